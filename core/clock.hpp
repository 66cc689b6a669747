// Time for deadlines: the monotonic clock, in nanoseconds.
#pragma once

#include "core/sys.hpp"

#include <algorithm>
#include <cstdint>

namespace continuity {

using Nanoseconds = std::int64_t;
constexpr Nanoseconds microsecond = 1'000;
constexpr Nanoseconds millisecond = 1'000'000;
constexpr Nanoseconds second = 1'000'000'000;
constexpr Nanoseconds never = INT64_MAX;

inline Nanoseconds now(const Sys& sys) {
  timespec time{};
  sys.clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<Nanoseconds>(time.tv_sec) * second + time.tv_nsec;
}

// What the calling thread has used of a processor.
inline Nanoseconds processor_time(const Sys& sys) {
  timespec time{};
  sys.clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<Nanoseconds>(time.tv_sec) * second + time.tv_nsec;
}

inline Nanoseconds after(const Sys& sys, Nanoseconds wait) {
  return wait >= never / 2 ? never : now(sys) + wait;
}

inline timespec to_timespec(Nanoseconds time) {
  time = std::max<Nanoseconds>(time, 0);
  return {.tv_sec = static_cast<time_t>(time / second),
          .tv_nsec = static_cast<long>(time % second)};
}

inline void pause_for(const Sys& sys, Nanoseconds time) {
  const timespec pause = to_timespec(time);
  sys.ppoll(nullptr, 0, &pause);
}

}  // namespace continuity
