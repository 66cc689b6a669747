// What the last restarts of a server came to, and when each of their steps was taken: kept
// by who serves, and handed on to whoever takes its place.
//
// Plain data, all zeros at first: it lies in the page that the processes of a generation
// share. Who is becoming the owner writes it, and afterwards who leads.
#pragma once

#include "core/clock.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <sys/types.h>

namespace continuity {

// The steps of a restart, in their order.
enum class RestartStep : std::uint8_t {
  found,    // the successor greeted
  claimed,  // it has bound an address
  granted,  // it has all descriptors
  ready,    // it is about to wait for work
  retired,  // the predecessor is deaf
  healthy,  // the probation is over
  drained,  // the predecessor has no connection left
  left,     // it has ended
};
constexpr std::size_t restart_steps = 8;

enum class RestartOutcome : std::uint8_t {
  under_way,
  done,
  ended,        // the successor, before it was ready
  timed_out,    // it was not ready in time
  rolled_back,  // it failed in its probation: the predecessor serves again
};

// What showed that the successor is ready.
enum class Evidence : std::uint8_t {
  unknown,
  accept,
  poll,
  select,
  epoll,
  receive,
  ring,    // an accept waits in an io_uring
  listen,  // CONTINUITY_READY=listen
  said,    // the program said so
};

struct Restart {
  pid_t predecessor = 0;
  pid_t successor = 0;
  RestartOutcome outcome = RestartOutcome::under_way;
  Evidence evidence = Evidence::unknown;
  std::int64_t wall = 0;                               // at the claim: nanoseconds since 1970
  std::array<std::int64_t, restart_steps> steps = {};  // monotonic; 0: not taken

  [[nodiscard]] std::int64_t at(RestartStep step) const {
    return steps.at(static_cast<std::size_t>(step));
  }
  void note(RestartStep step, Nanoseconds time) { steps.at(static_cast<std::size_t>(step)) = time; }
  bool operator==(const Restart&) const = default;
};

struct Journal {
  static constexpr std::size_t room = 8;

  std::uint32_t restarts = 0;  // that succeeded, since the first start
  std::uint32_t count = 0;     // of those that are remembered, failed ones too
  std::array<Restart, room> last = {};

  Restart& add(const Restart& restart) {
    if (count == room) {
      for (std::size_t i = 1; i < room; ++i) {
        last.at(i - 1) = last.at(i);
      }
      --count;
    }
    return last.at(count++) = restart;
  }
  // The last one; null: there has been none.
  Restart* current() { return count == 0 || count > room ? nullptr : &last.at(count - 1); }
  [[nodiscard]] std::span<const Restart> all() const {
    return std::span(last).first(count > room ? room : count);
  }
};

}  // namespace continuity
