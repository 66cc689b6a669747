// poll and select of a retired program on probation, and of one that is not ready by its
// own word (early_waits.hpp).
//
// Who goes to sleep on a stand-in sleeps on a file that will never wake it, and
// the kernel looks a number up again only when something does. So one more
// descriptor is waited for, which becomes readable when the listeners are given
// back; then the wait begins again, for the rest of its time. A retired datagram
// listener is there still, and is not asked whether it is readable; nor is what has been
// claimed, before the program is ready.
#include "core/clock.hpp"
#include "shim/agent.hpp"
#include "shim/early_waits.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"
#include "shim/watch.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <new>
#include <sys/select.h>
#include <vector>

namespace continuity::shim {
namespace {

bool is_early(int fd) {
  return waits_early() && (fd_flags(fd) & fd_flag::claimed) != 0;
}

// Watched in vain, until something else is heard of.
bool is_deaf(int fd) {
  return (fd_flags(fd) & fd_flag::retired) != 0 || is_early(fd);
}

// Of these, what must not be asked whether it is readable.
bool is_left_out(int fd) {
  constexpr std::uint8_t gone = fd_flag::retired | fd_flag::datagram;
  return (fd_flags(fd) & gone) == gone || is_early(fd);
}

// What becomes readable then.
int other_number() {
  return waits_early() ? early_bed_number() : revival_number();
}

// What is left of a time-out that began with `began`.
class Remaining {
 public:
  explicit Remaining(const timespec* timeout)
      : endless_(timeout == nullptr),
        ends_(endless_ ? never : now(real_sys()) + length(*timeout)) {}

  const timespec* get() {
    left_ = to_timespec(endless_ ? 0 : ends_ - now(real_sys()));
    return endless_ ? nullptr : &left_;
  }

 private:
  static Nanoseconds length(const timespec& time) {
    constexpr time_t longest = 1'000'000'000;  // 30 years
    return std::min(time.tv_sec, longest) * second + time.tv_nsec;
  }
  bool endless_;
  Nanoseconds ends_;
  timespec left_{};
};

constexpr int bits_per_word = CHAR_BIT * sizeof(unsigned long);

// As much of a program's set as it has: that may be less than an fd_set.
void copy_set(int count, const fd_set* from, fd_set* to) {
  const auto words = static_cast<std::size_t>((count + bits_per_word - 1) / bits_per_word);
  const auto* source = reinterpret_cast<const unsigned long*>(from);
  std::copy_n(source, words, reinterpret_cast<unsigned long*>(to));
}

struct Sets {
  fd_set readable{};
  fd_set writable{};
  fd_set special{};

  Sets(int count, const fd_set* r, const fd_set* w, const fd_set* s) {
    for (auto [from, to] : {std::pair{r, &readable}, {w, &writable}, {s, &special}}) {
      if (from != nullptr) {
        copy_set(count, from, to);
      }
    }
  }
  void give_back(int count, fd_set* r, fd_set* w, fd_set* s) const {
    for (auto [from, to] : {std::pair{&readable, r}, {&writable, w}, {&special, s}}) {
      if (to != nullptr) {
        copy_set(count, from, to);
      }
    }
  }
};

bool watches_retired(int count, const fd_set* readable) {
  for (int fd = 0; fd < count; ++fd) {
    if (is_deaf(fd) && FD_ISSET(fd, readable)) {
      return true;
    }
  }
  return false;
}

}  // namespace

int ppoll_deaf(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  constexpr nfds_t most = 256;
  const int revived = other_number();
  const bool watches =
      std::any_of(fds, fds + count, [](const pollfd& entry) { return is_deaf(entry.fd); });
  if (!watches || revived < 0 || (count >= most && !waits_early())) {
    return real().ppoll(fds, count, timeout, mask);
  }
  Remaining remaining(timeout);
  const std::uint32_t epoch = revivals();
  std::array<pollfd, most> few;  // NOLINT: filled as far as it is used
  std::vector<pollfd> many;
  pollfd* entries = few.data();
  if (count >= most) {
    try {
      many.resize(count + 1);
    } catch (const std::bad_alloc&) {
      errno = ENOMEM;
      return -1;
    }
    entries = many.data();
  }
  std::copy_n(fds, count, entries);
  for (nfds_t i = 0; i < count; ++i) {
    if (is_left_out(entries[i].fd)) {
      constexpr short about_writing = POLLOUT | POLLWRNORM | POLLWRBAND;
      entries[i].events &= about_writing;
      entries[i].fd = entries[i].events == 0 ? -1 : entries[i].fd;
    }
  }
  entries[count] = {.fd = revived, .events = POLLIN, .revents = 0};
  const int ready = real().ppoll(entries, count + 1, timeout, mask);
  const bool given_back = ready > 0 && entries[count].revents != 0;
  const bool woken = ready < 0 && errno == EINTR && epoch != revivals();  // by us
  if ((given_back && ready == 1) || woken) {
    return real().ppoll(fds, count, remaining.get(), mask);
  }
  for (nfds_t i = 0; i < count && ready >= 0; ++i) {
    fds[i].revents = entries[i].revents;
  }
  return given_back ? ready - 1 : ready;
}

int poll_deaf(pollfd* fds, nfds_t count, int timeout) {
  const timespec time = to_timespec(Nanoseconds{timeout} * millisecond);
  return ppoll_deaf(fds, count, timeout < 0 ? nullptr : &time, nullptr);
}

int pselect_deaf(int count, fd_set* readable, fd_set* writable, fd_set* special,
                 const timespec* timeout, const sigset_t* mask) {
  const int revived = other_number();
  if (readable == nullptr || count > FD_SETSIZE || revived < 0 || revived >= FD_SETSIZE ||
      !watches_retired(count, readable)) {
    return real().pselect(count, readable, writable, special, timeout, mask);
  }
  Remaining remaining(timeout);
  const std::uint32_t epoch = revivals();
  Sets sets(count, readable, writable, special);
  for (int fd = 0; fd < count; ++fd) {
    if (is_left_out(fd)) {
      FD_CLR(fd, &sets.readable);
    }
  }
  FD_SET(revived, &sets.readable);
  const int ready = real().pselect(std::max(count, revived + 1), &sets.readable, &sets.writable,
                                   &sets.special, timeout, mask);
  const bool given_back = ready > 0 && FD_ISSET(revived, &sets.readable);
  const bool woken = ready < 0 && errno == EINTR && epoch != revivals();  // by us
  if ((given_back && ready == 1) || woken) {
    return real().pselect(count, readable, writable, special, remaining.get(), mask);
  }
  if (ready >= 0) {
    FD_CLR(revived, &sets.readable);
    sets.give_back(count, readable, writable, special);
  }
  return given_back ? ready - 1 : ready;
}

// Linux tells what is left of the time-out.
int select_deaf(int count, fd_set* readable, fd_set* writable, fd_set* special, timeval* timeout) {
  timespec time{};
  if (timeout != nullptr) {
    time = {.tv_sec = timeout->tv_sec, .tv_nsec = timeout->tv_usec * 1000};
  }
  Remaining remaining(timeout != nullptr ? &time : nullptr);
  const int ready = pselect_deaf(count, readable, writable, special,
                                 timeout != nullptr ? &time : nullptr, nullptr);
  if (const timespec* left = remaining.get(); timeout != nullptr && left != nullptr) {
    *timeout = {.tv_sec = left->tv_sec, .tv_usec = left->tv_nsec / 1000};
  }
  return ready;
}

}  // namespace continuity::shim
