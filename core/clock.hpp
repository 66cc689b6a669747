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

inline Nanoseconds to_nanoseconds(const timespec& time) {
  return static_cast<Nanoseconds>(time.tv_sec) * second + time.tv_nsec;
}

inline Nanoseconds time_of(const Sys& sys, clockid_t clock) {
  timespec time{};
  sys.clock_gettime(clock, &time);
  return to_nanoseconds(time);
}

inline Nanoseconds now(const Sys& sys) {
  return time_of(sys, CLOCK_MONOTONIC);
}

// What the calling thread has used of a processor.
inline Nanoseconds processor_time(const Sys& sys) {
  return time_of(sys, CLOCK_THREAD_CPUTIME_ID);
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

// How long to look for what comes soon: longer than the usual take-over of one listener.
constexpr Nanoseconds soon = 300 * microsecond;

// Looks again and again whether something is there, for so long at most. Who sleeps instead runs
// again only 50 to 150 us after it has been woken, where a processor that has nothing to do is
// given back to a hypervisor or sleeps deeply. Meanwhile others run.
template <typename Look>
bool look_for(const Sys& sys, Nanoseconds time, Look is_there) {
  for (const Nanoseconds end = now(sys) + time; !is_there();) {
    if (now(sys) >= end) {
      return false;
    }
    sys.sched_yield();
  }
  return true;
}

}  // namespace continuity
