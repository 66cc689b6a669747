#include "shim/ring_watch.hpp"

#include "core/descriptors.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/waits.hpp"

#include <algorithm>
#include <array>

namespace continuity::shim {

RingWatch::RingWatch(Process& process, RingIssuer& issuer)
    : process_(&process), control_(real_sys(), process.proc.get(), &issuer) {}

std::vector<int> RingWatch::rings() const {
  auto holdings = Descriptors(real_sys(), process_->proc.get()).find({}, &is_ours);
  return holdings ? std::move(holdings->rings) : std::vector<int>{};
}

// Often where somebody waits for us to be ready: a ring takes connections out of the
// predecessor's queue as soon as it is asked to.
//
// Where a ring cannot be looked at, a program without a predecessor counts as one that
// waits: it is found then, and who comes is told why it cannot be followed.
Nanoseconds RingWatch::look_for_readiness() {
  constexpr Nanoseconds shortest = 5 * millisecond;
  constexpr Nanoseconds longest_of_successor = 20 * millisecond;
  constexpr Nanoseconds longest = 500 * millisecond;
  constexpr Nanoseconds share = 64;  // of the time that it has taken already
  if (!is_on_.load()) {
    return never;
  }
  const Nanoseconds time = now(real_sys());
  began_ = began_ == 0 ? time : began_;
  const bool is_successor = process_->page->claims.load() > 0;
  const auto found = rings();
  const bool datagrams = has_listener(fd_flag::datagram);
  const bool waits = std::any_of(found.begin(), found.end(), [&](int ring) {
    return control_.waits_for_work(ring, datagrams);
  });
  if (has_listener() && (waits || (!is_successor && control_.any_closed(found)))) {
    settle_for_ring(*process_);
  }
  return time + std::clamp((time - began_) / share, shortest,
                           is_successor ? longest_of_successor : longest);
}

void RingWatch::note_ownership() {
  constexpr Nanoseconds care_time = 2 * second;
  care_until_ = after(real_sys(), care_time);
}

Nanoseconds RingWatch::look_after_queues() {
  constexpr Nanoseconds interval = 5 * millisecond;
  constexpr int too_often = 3;  // for a program that only has not come to it yet
  const Nanoseconds time = now(real_sys());
  if (!is_on_.load() || time >= care_until_) {
    return never;
  }
  const auto found = rings();
  if (found.empty()) {
    care_until_ = 0;
    return never;
  }
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    constexpr std::uint8_t kinds = fd_flag::listening | fd_flag::datagram;
    if ((fd_flags(fd) & kinds) != fd_flag::listening || !has_queued(real_sys(), fd)) {
      waiting_.erase(fd);
    } else if (++waiting_[fd] >= too_often) {
      const std::array<int, 1> listener{fd};
      static_cast<void>(control_.end_accepts(found, listener));
      waiting_.erase(fd);
    }
  }
  return time + interval;
}

}  // namespace continuity::shim
