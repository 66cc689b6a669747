// A conversation's channel: a SOCK_SEQPACKET connection that carries messages
// and descriptors. No call waits longer than its deadline.
#pragma once

#include "core/clock.hpp"
#include "core/owned_fd.hpp"
#include "core/wire.hpp"

#include <cstddef>
#include <span>
#include <sys/socket.h>
#include <vector>

namespace continuity {

struct Received {
  Message message;
  std::vector<OwnedFd> fds;
};

struct Credentials {
  pid_t pid = 0;
  uid_t uid = 0;
};

class Channel {
 public:
  Channel() = default;
  Channel(const Sys& sys, OwnedFd fd) : sys_(&sys), fd_(std::move(fd)) {}

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool is_open() const { return fd_.is_open(); }
  void close() { fd_.reset(); }

  // Descriptors stay the caller's. ETIMEDOUT after `deadline` (monotonic);
  // EPIPE or ECONNRESET when nobody is on the other side any more.
  Status send(const Message& message, std::span<const int> fds, Nanoseconds deadline);
  Status send(const Message& message, Nanoseconds deadline) { return send(message, {}, deadline); }

  // Until there is something to receive, awake: it must not be far. For so long at most.
  void look_out(Nanoseconds time) const;

  // ECONNRESET when the other side is gone; EPROTO for anything that is not a
  // message of ours: then every descriptor that came with it has been closed.
  Result<Received> receive(Nanoseconds deadline) { return receive(deadline, 0); }
  // The same, and the message stays where it is: `drop` takes it away.
  Result<Received> look(Nanoseconds deadline) { return receive(deadline, MSG_PEEK); }
  void drop();

  // The other side is gone, and has not read all that it was told.
  [[nodiscard]] bool was_cut_off() const { return cut_off_; }

  // Who is on the other side, as the kernel recorded it at connect or listen.
  [[nodiscard]] Result<Credentials> peer() const;

 private:
  Result<std::size_t> receive_into(msghdr& packet, int flags, Nanoseconds deadline);
  Result<Received> receive(Nanoseconds deadline, int flags);
  [[nodiscard]] Status wait_for(short events, Nanoseconds deadline) const;

  const Sys* sys_ = nullptr;
  OwnedFd fd_;
  std::uint32_t sequence_ = 0;
  bool cut_off_ = false;
};

}  // namespace continuity
