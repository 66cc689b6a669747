// A program that waits for work by io_uring calls nothing that could be wrapped. So the
// agent looks at its rings: for the first accept, and, while the owner changes, for
// connections that nobody takes.
#pragma once

#include "core/clock.hpp"
#include "core/rings.hpp"

#include <atomic>
#include <map>
#include <vector>

namespace continuity::shim {

class Process;

class RingWatch {
 public:
  RingWatch(Process& process, RingIssuer& issuer);

  // The program may have rings; until it is told, nothing here does anything. True: that
  // was news.
  bool begin() noexcept { return !is_on_.exchange(true); }
  [[nodiscard]] bool is_on() const { return is_on_.load(); }

  // Whether a ring waits for connections: the program is ready then. When to look again.
  Nanoseconds look_for_readiness();

  // The generation owns its listeners from now on, or again.
  void note_ownership();
  // Of the rings that wait on a listener the kernel wakes one for each connection
  // (EPOLLEXCLUSIVE): it may have been one that was about to let go, or is dead, and then
  // the connection stays in the queue until the next one comes. So what stays there is
  // looked for, and the ring made to ask anew. When to look again.
  Nanoseconds look_after_queues();

 private:
  [[nodiscard]] std::vector<int> rings() const;

  Process* process_;
  Rings control_;
  std::atomic<bool> is_on_{false};
  Nanoseconds began_ = 0;
  Nanoseconds care_until_ = 0;
  std::map<int, int> waiting_;  // how often connections were there, by listener
};

}  // namespace continuity::shim
