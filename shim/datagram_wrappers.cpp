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

inline bool may_sleep(int flags) {
  return (flags & MSG_DONTWAIT) == 0;
}

// What a wrapper does on a number that is not plain, behind it: so it needs no frame itself.
// `call`: libc's function; `rest`: what it takes after the number.
template <auto call, typename... Rest>
[[gnu::noinline]] auto look_and_receive(int fd, bool waits, Rest... rest) {
  const auto receive = [=] { return (real().*call)(fd, rest...); };
  return is_datagram_listener(fd) ? receive_from_listener(fd, waits, receive) : receive();
}

template <auto call, typename... Rest>
[[gnu::noinline]] auto look_and_send(int fd, Rest... rest) {
  const auto send = [=] { return (real().*call)(fd, rest...); };
  return is_datagram_listener(fd) ? send_from_listener(fd, send) : send();
}

// The same for what may be meant for systemd.
template <auto call, typename... Rest>
[[gnu::noinline]] ssize_t look_and_write(int fd, const void* data, std::size_t size,
                                         Rest... flags) {
  return keeps_notice(fd, nullptr, 0, data, size) ? static_cast<ssize_t>(size)
                                                  : (real().*call)(fd, data, size, flags...);
}

}  // namespace
}  // namespace continuity::shim

using namespace continuity::shim;  // NOLINT(google-build-using-namespace): as if written inside

// ---- Receiving ------------------------------------------------------------------------

CONTINUITY_BUSY ssize_t WRAPPED(recv)(int fd, void* buffer, std::size_t size, int flags) {
  if (is_plain(fd)) [[likely]] {
    return real().recv(fd, buffer, size, flags);
  }
  return look_and_receive<&RealCalls::recv>(fd, may_sleep(flags), buffer, size, flags);
}

CONTINUITY_EXPORT ssize_t WRAPPED(__recv_chk)(int fd, void* buffer, std::size_t size,
                                              std::size_t room, int flags) {
  if (is_plain(fd)) [[likely]] {
    return real().__recv_chk(fd, buffer, size, room, flags);
  }
  return look_and_receive<&RealCalls::__recv_chk>(fd, may_sleep(flags), buffer, size, room, flags);
}

CONTINUITY_BUSY ssize_t WRAPPED(recvfrom)(int fd, void* buffer, std::size_t size, int flags,
                                          sockaddr* address, socklen_t* length) {
  if (is_plain(fd)) [[likely]] {
    return real().recvfrom(fd, buffer, size, flags, address, length);
  }
  return look_and_receive<&RealCalls::recvfrom>(fd, may_sleep(flags), buffer, size, flags, address,
                                                length);
}

CONTINUITY_EXPORT ssize_t WRAPPED(__recvfrom_chk)(int fd, void* buffer, std::size_t size,
                                                  std::size_t room, int flags, sockaddr* address,
                                                  socklen_t* length) {
  if (is_plain(fd)) [[likely]] {
    return real().__recvfrom_chk(fd, buffer, size, room, flags, address, length);
  }
  return look_and_receive<&RealCalls::__recvfrom_chk>(fd, may_sleep(flags), buffer, size, room,
                                                      flags, address, length);
}

CONTINUITY_BUSY ssize_t WRAPPED(recvmsg)(int fd, msghdr* message, int flags) {
  if (is_plain(fd)) [[likely]] {
    return real().recvmsg(fd, message, flags);
  }
  return look_and_receive<&RealCalls::recvmsg>(fd, may_sleep(flags), message, flags);
}

CONTINUITY_EXPORT int WRAPPED(recvmmsg)(int fd, mmsghdr* messages, unsigned count, int flags,
                                        timespec* timeout) {
  if (is_plain(fd)) [[likely]] {
    return real().recvmmsg(fd, messages, count, flags, timeout);
  }
  return look_and_receive<&RealCalls::recvmmsg>(fd, may_sleep(flags), messages, count, flags,
                                                timeout);
}

CONTINUITY_BUSY ssize_t WRAPPED(read)(int fd, void* buffer, std::size_t size) {
  if (is_plain(fd)) [[likely]] {
    return real().read(fd, buffer, size);
  }
  return look_and_receive<&RealCalls::read>(fd, true, buffer, size);
}

CONTINUITY_EXPORT ssize_t WRAPPED(__read_chk)(int fd, void* buffer, std::size_t size,
                                              std::size_t room) {
  if (is_plain(fd)) [[likely]] {
    return real().__read_chk(fd, buffer, size, room);
  }
  return look_and_receive<&RealCalls::__read_chk>(fd, true, buffer, size, room);
}

CONTINUITY_BUSY ssize_t WRAPPED(readv)(int fd, const iovec* parts, int count) {
  if (is_plain(fd)) [[likely]] {
    return real().readv(fd, parts, count);
  }
  return look_and_receive<&RealCalls::readv>(fd, true, parts, count);
}

// ---- Sending --------------------------------------------------------------------------

// send and write only for what systemd is told: without a peer they fail, and with one the
// socket is nobody's listener.

CONTINUITY_BUSY ssize_t WRAPPED(send)(int fd, const void* data, std::size_t size, int flags) {
  if (may_be_notice(fd, nullptr)) [[unlikely]] {
    return look_and_write<&RealCalls::send>(fd, data, size, flags);
  }
  return real().send(fd, data, size, flags);
}

CONTINUITY_BUSY ssize_t WRAPPED(write)(int fd, const void* data, std::size_t size) {
  if (may_be_notice(fd, nullptr)) [[unlikely]] {
    return look_and_write<&RealCalls::write>(fd, data, size);
  }
  return real().write(fd, data, size);
}

NOT_INLINED static ssize_t look_and_sendto(int fd, const void* data, std::size_t size, int flags,
                                           const sockaddr* address, socklen_t length) {
  if (may_be_notice(fd, address) && keeps_notice(fd, address, length, data, size)) {
    return static_cast<ssize_t>(size);
  }
  return look_and_send<&RealCalls::sendto>(fd, data, size, flags, address, length);
}

CONTINUITY_BUSY ssize_t WRAPPED(sendto)(int fd, const void* data, std::size_t size, int flags,
                                        const sockaddr* address, socklen_t length) {
  if (is_plain(fd) && !may_be_notice(fd, address)) [[likely]] {
    return real().sendto(fd, data, size, flags, address, length);
  }
  return look_and_sendto(fd, data, size, flags, address, length);
}

NOT_INLINED static ssize_t look_and_sendmsg(int fd, const msghdr* message, int flags) {
  if (message != nullptr && message->msg_controllen > 0) {
    before_passing(message);
  }
  if (message != nullptr && may_be_notice(fd, message->msg_name)) {
    if (const ssize_t kept = keeps_notice(fd, message); kept >= 0) {
      return kept;
    }
  }
  return look_and_send<&RealCalls::sendmsg>(fd, message, flags);
}

CONTINUITY_BUSY ssize_t WRAPPED(sendmsg)(int fd, const msghdr* message, int flags) {
  if (message != nullptr && message->msg_controllen == 0 && is_plain(fd) &&
      !may_be_notice(fd, message->msg_name)) [[likely]] {
    return real().sendmsg(fd, message, flags);
  }
  return look_and_sendmsg(fd, message, flags);
}

CONTINUITY_EXPORT int WRAPPED(sendmmsg)(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (is_plain(fd)) [[likely]] {
    return real().sendmmsg(fd, messages, count, flags);
  }
  return look_and_send<&RealCalls::sendmmsg>(fd, messages, count, flags);
}
