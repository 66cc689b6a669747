#include "core/channel.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

namespace continuity {
namespace {

// Room for as many descriptors as the kernel can deliver at once: what does
// not fit is closed silently, and we want to know.
constexpr std::size_t kernel_max_fds = 253;

void adopt_descriptors(const Sys& sys, const cmsghdr& header, std::vector<OwnedFd>& fds) {
  const std::size_t count = (header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t i = 0; i < count; ++i) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(&header) + i * sizeof(int), sizeof fd);
    fds.emplace_back(sys, fd);
  }
}

}  // namespace

void Channel::look_out(Nanoseconds time) const {
  look_for(*sys_, time, [&] { return static_cast<bool>(wait_for(POLLIN, 0)); });
}

Status Channel::wait_for(short events, Nanoseconds deadline) const {
  for (;;) {
    pollfd entry{.fd = fd_.get(), .events = events, .revents = 0};
    const Nanoseconds left = deadline == never ? never : deadline - now(*sys_);
    const timespec timeout = to_timespec(left);
    const int ready = sys_->ppoll(&entry, 1, left == never ? nullptr : &timeout);
    if (ready > 0) {
      return Done{};
    }
    if (ready == 0) {
      return Error{"wait for the other side", ETIMEDOUT};
    }
    if (errno != EINTR) {
      return last_error("wait for the other side");
    }
  }
}

Status Channel::send(const Message& message, std::span<const int> fds, Nanoseconds deadline) {
  Message numbered = message;
  numbered.sequence = ++sequence_;
  auto bytes = encode(numbered);
  if (!bytes) {
    return bytes.error();
  }
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(max_fds_per_message * sizeof(int))> control{};
  if (fds.size() > max_fds_per_message) {
    return Error{"send a message", EMSGSIZE};
  }
  iovec body{.iov_base = bytes->data(), .iov_len = bytes->size()};
  msghdr packet{};
  packet.msg_iov = &body;
  packet.msg_iovlen = 1;
  if (!fds.empty()) {
    packet.msg_control = control.data();
    packet.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&packet);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (sys_->sendmsg(fd_.get(), &packet, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
      return Done{};
    }
    if (errno == EINTR) {
      continue;
    }
    if (errno != EAGAIN) {
      cut_off_ = cut_off_ || errno == EPIPE || errno == ECONNRESET;
      return last_error("send a message");
    }
    if (auto waited = wait_for(POLLOUT, deadline); !waited) {
      return waited;
    }
  }
}

// Its size. The kernel changes the packet only where it has received.
Result<std::size_t> Channel::receive_into(msghdr& packet, int flags, Nanoseconds deadline) {
  for (;;) {
    const ssize_t size = sys_->recvmsg(fd_.get(), &packet, MSG_DONTWAIT | flags);
    if (size >= 0) {
      return static_cast<std::size_t>(size);
    }
    if (errno == EINTR) {
      continue;
    }
    if (errno != EAGAIN) {
      // An error, and not the end, where its queue was not empty (unix_release_sock).
      cut_off_ = cut_off_ || errno == ECONNRESET;
      return last_error("receive a message");
    }
    if (auto waited = wait_for(POLLIN, deadline); !waited) {
      return waited.error();
    }
  }
}

Result<Received> Channel::receive(Nanoseconds deadline, int flags) {
  iovec body{};
  msghdr packet{};
  packet.msg_iov = &body;
  packet.msg_iovlen = 1;
  // Room for the longest would be a mapping of its own: to unmap that costs 100 us where the
  // program's threads run on other processors, and nobody accepts meanwhile.
  const auto next = receive_into(packet, MSG_PEEK | MSG_TRUNC | flags, deadline);
  if (!next) {
    return next.error();
  }
  const std::size_t room = std::min(std::max(*next, std::size_t{1}), max_message_size);
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(room);
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kernel_max_fds * sizeof(int))> control{};
  Received received;
  received.fds.reserve(kernel_max_fds);  // no allocation may fail once descriptors are here

  body = {.iov_base = buffer.get(), .iov_len = room};
  packet.msg_control = control.data();
  packet.msg_controllen = control.size();
  const auto size = receive_into(packet, MSG_CMSG_CLOEXEC | flags, deadline);
  if (!size) {
    return size.error();
  }
  for (cmsghdr* header = CMSG_FIRSTHDR(&packet); header != nullptr;
       header = CMSG_NXTHDR(&packet, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      adopt_descriptors(*sys_, *header, received.fds);
    }
  }
  if (*size == 0) {
    // The end of the conversation, or a message of no bytes: a peer's mistake.
    pollfd entry{.fd = fd_.get(), .events = POLLRDHUP, .revents = 0};
    const timespec at_once{};
    const bool ended = sys_->ppoll(&entry, 1, &at_once) > 0 &&
                       (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
    return Error{"receive a message", ended ? ECONNRESET : EPROTO};
  }
  // A message that was cut has lost descriptors or bytes. Half a hand-over is
  // worse than none, so what came with it is dropped.
  if ((packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return Error{"receive a message", EPROTO};
  }
  auto message = decode({buffer.get(), *size});
  if (!message) {
    return message.error();
  }
  received.message = std::move(*message);
  return received;
}

// The kernel throws away what there is no room for.
void Channel::drop() {
  std::byte first{};
  iovec body{.iov_base = &first, .iov_len = sizeof first};
  msghdr packet{};
  packet.msg_iov = &body;
  packet.msg_iovlen = 1;
  while (sys_->recvmsg(fd_.get(), &packet, MSG_DONTWAIT) < 0 && errno == EINTR) {
  }
}

Result<Credentials> Channel::peer() const {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (sys_->getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return last_error("ask who is on the other side");
  }
  return Credentials{.pid = credentials.pid, .uid = credentials.uid};
}

}  // namespace continuity
