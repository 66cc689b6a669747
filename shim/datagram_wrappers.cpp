// The wrapped calls that send and receive: of interest on datagram listeners, and for what
// systemd is told.
//
// The rules of wrappers.cpp. A receive from a datagram listener is what an accept is
// to another; once that is retired, whoever owns it now receives. An answer may be
// sent from it for as long as the program likes.
#include "shim/hooks.hpp"
#include "shim/real_calls.hpp"
#include "shim/watch.hpp"
#include "shim/wrapped.hpp"

#include <sys/uio.h>

namespace continuity::shim {
namespace {

inline bool is_datagram_listener(int fd) {
  return (fd_flags(fd) & fd_flag::datagram) != 0;
}

// A handler of the program's may interrupt the call and make one of its own.
class WhereWeAre {
 public:
  WhereWeAre(AcceptSlot* slot, std::int64_t where)
      : slot_(slot), before_(slot == nullptr ? 0 : slot->where.exchange(where)) {}
  ~WhereWeAre() { leave(); }
  WhereWeAre(const WhereWeAre&) = delete;
  WhereWeAre& operator=(const WhereWeAre&) = delete;

  void leave() {
    if (slot_ != nullptr) {
      slot_->where.store(before_);
      slot_ = nullptr;
    }
  }

 private:
  AcceptSlot* slot_;
  std::int64_t before_;
};

// The thread says where it is before it looks whether the listener has been
// retired, and whoever retires it does so the other way round.
template <typename Receive>
[[gnu::noinline]] auto receive_from_listener(int fd, bool waits, Receive receive)
    -> decltype(receive()) {
  for (;;) {
    if (gate() == Gate::unsettled) [[unlikely]] {
      before_receive(fd);
      if (waits_early() && !await_readiness(fd, waits)) {
        return -1;
      }
    }
    AcceptSlot* slot = own_accept_slot();
    if (slot != nullptr) [[likely]] {
      slot->called.store(AcceptSlot::inside(fd), std::memory_order_relaxed);
    }
    WhereWeAre where(slot, AcceptSlot::inside(fd));
    if ((fd_flags(fd) & fd_flag::retired) != 0) [[unlikely]] {
      where.leave();
      if (is_back_after(fd, waits)) {
        continue;
      }
      return -1;
    }
    const auto result = receive();
    where.leave();
    if (result < 0 && has_gone(fd) && must_look_again(slot)) [[unlikely]] {
      continue;
    }
    return result;
  }
}

template <typename Send>
[[gnu::noinline]] auto send_from_listener(int fd, Send send) -> decltype(send()) {
  for (;;) {
    WhereWeAre where(own_accept_slot(), AcceptSlot::inside(fd) | AcceptSlot::sends);
    if ((fd_flags(fd) & fd_flag::retired) != 0 && are_numbers_moving()) [[unlikely]] {
      where.leave();
      wait_until_settled();
      continue;
    }
    return send();
  }
}

bool may_sleep(int flags) {
  return (flags & MSG_DONTWAIT) == 0;
}

}  // namespace
}  // namespace continuity::shim

using namespace continuity::shim;  // NOLINT(google-build-using-namespace): as if written inside

// ---- Receiving ------------------------------------------------------------------------

CONTINUITY_EXPORT ssize_t WRAPPED(recv)(int fd, void* buffer, std::size_t size, int flags) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().recv(fd, buffer, size, flags);
  }
  return receive_from_listener(fd, may_sleep(flags),
                               [=] { return real().recv(fd, buffer, size, flags); });
}

CONTINUITY_EXPORT ssize_t WRAPPED(__recv_chk)(int fd, void* buffer, std::size_t size,
                                              std::size_t room, int flags) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().__recv_chk(fd, buffer, size, room, flags);
  }
  return receive_from_listener(fd, may_sleep(flags),
                               [=] { return real().__recv_chk(fd, buffer, size, room, flags); });
}

CONTINUITY_EXPORT ssize_t WRAPPED(recvfrom)(int fd, void* buffer, std::size_t size, int flags,
                                            sockaddr* address, socklen_t* length) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().recvfrom(fd, buffer, size, flags, address, length);
  }
  return receive_from_listener(fd, may_sleep(flags), [=] {
    return real().recvfrom(fd, buffer, size, flags, address, length);
  });
}

CONTINUITY_EXPORT ssize_t WRAPPED(__recvfrom_chk)(int fd, void* buffer, std::size_t size,
                                                  std::size_t room, int flags, sockaddr* address,
                                                  socklen_t* length) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().__recvfrom_chk(fd, buffer, size, room, flags, address, length);
  }
  return receive_from_listener(fd, may_sleep(flags), [=] {
    return real().__recvfrom_chk(fd, buffer, size, room, flags, address, length);
  });
}

CONTINUITY_EXPORT ssize_t WRAPPED(recvmsg)(int fd, msghdr* message, int flags) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().recvmsg(fd, message, flags);
  }
  return receive_from_listener(fd, may_sleep(flags),
                               [=] { return real().recvmsg(fd, message, flags); });
}

CONTINUITY_EXPORT int WRAPPED(recvmmsg)(int fd, mmsghdr* messages, unsigned count, int flags,
                                        timespec* timeout) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().recvmmsg(fd, messages, count, flags, timeout);
  }
  return receive_from_listener(
      fd, may_sleep(flags), [=] { return real().recvmmsg(fd, messages, count, flags, timeout); });
}

CONTINUITY_EXPORT ssize_t WRAPPED(read)(int fd, void* buffer, std::size_t size) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().read(fd, buffer, size);
  }
  return receive_from_listener(fd, true, [=] { return real().read(fd, buffer, size); });
}

CONTINUITY_EXPORT ssize_t WRAPPED(__read_chk)(int fd, void* buffer, std::size_t size,
                                              std::size_t room) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().__read_chk(fd, buffer, size, room);
  }
  return receive_from_listener(fd, true, [=] { return real().__read_chk(fd, buffer, size, room); });
}

CONTINUITY_EXPORT ssize_t WRAPPED(readv)(int fd, const iovec* parts, int count) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().readv(fd, parts, count);
  }
  return receive_from_listener(fd, true, [=] { return real().readv(fd, parts, count); });
}

// ---- Sending --------------------------------------------------------------------------

// send and write only for what systemd is told: without a peer they fail, and with one the
// socket is nobody's listener.

CONTINUITY_EXPORT ssize_t WRAPPED(send)(int fd, const void* data, std::size_t size, int flags) {
  if (may_be_notice(fd, nullptr) && keeps_notice(fd, nullptr, 0, data, size)) [[unlikely]] {
    return static_cast<ssize_t>(size);
  }
  return real().send(fd, data, size, flags);
}

CONTINUITY_EXPORT ssize_t WRAPPED(write)(int fd, const void* data, std::size_t size) {
  if (may_be_notice(fd, nullptr) && keeps_notice(fd, nullptr, 0, data, size)) [[unlikely]] {
    return static_cast<ssize_t>(size);
  }
  return real().write(fd, data, size);
}

CONTINUITY_EXPORT ssize_t WRAPPED(sendto)(int fd, const void* data, std::size_t size, int flags,
                                          const sockaddr* address, socklen_t length) {
  if (may_be_notice(fd, address) && keeps_notice(fd, address, length, data, size)) [[unlikely]] {
    return static_cast<ssize_t>(size);
  }
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().sendto(fd, data, size, flags, address, length);
  }
  return send_from_listener(fd,
                            [=] { return real().sendto(fd, data, size, flags, address, length); });
}

CONTINUITY_EXPORT ssize_t WRAPPED(sendmsg)(int fd, const msghdr* message, int flags) {
  if (message != nullptr && message->msg_controllen > 0) [[unlikely]] {
    before_passing(message);
  }
  if (message != nullptr && may_be_notice(fd, message->msg_name)) [[unlikely]] {
    if (const ssize_t kept = keeps_notice(fd, message); kept >= 0) {
      return kept;
    }
  }
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().sendmsg(fd, message, flags);
  }
  return send_from_listener(fd, [=] { return real().sendmsg(fd, message, flags); });
}

CONTINUITY_EXPORT int WRAPPED(sendmmsg)(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (!is_datagram_listener(fd)) [[likely]] {
    return real().sendmmsg(fd, messages, count, flags);
  }
  return send_from_listener(fd, [=] { return real().sendmmsg(fd, messages, count, flags); });
}
