#include "manager.hpp"

#include "support/client.hpp"
#include "support/waiting.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

namespace continuity::test {
namespace {

bool has_line(const std::string& message, const std::string& line) {
  return ("\n" + message).find("\n" + line) != std::string::npos;
}

}  // namespace

NotifySocket::NotifySocket()
    : path_(directory_ / "notify"), fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  const SocketAddress address(path_);
  const int on = 1;
  if (::bind(fd_, address.get(), address.length) != 0 ||
      ::setsockopt(fd_, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    throw std::runtime_error("no notify socket");
  }
}

NotifySocket::~NotifySocket() {
  for (const int fd : stored_) {
    ::close(fd);
  }
  ::close(fd_);
}

std::string NotifySocket::await(const std::string& line) {
  const auto deadline = Clock::now() + patience;
  for (;;) {
    while (awaited_ < messages_.size()) {
      if (const std::string& message = messages_[awaited_++]; has_line(message, line)) {
        return message;
      }
    }
    if (Clock::now() >= deadline) {
      std::string all;
      for (const std::string& message : messages_) {
        all += "[" + message + "]\n";
      }
      throw std::runtime_error("nobody has said " + line + ", but:\n" + all);
    }
    receive(100);
  }
}

bool NotifySocket::has_heard(const std::string& line) {
  while (receive(0)) {
  }
  return std::any_of(messages_.begin(), messages_.end(),
                     [&](const std::string& message) { return has_line(message, line); });
}

bool NotifySocket::receive(int timeout) {
  pollfd ready{.fd = fd_, .events = POLLIN, .revents = 0};
  if (::poll(&ready, 1, timeout) <= 0) {
    return false;
  }
  std::array<char, 4096> text{};
  alignas(cmsghdr) std::array<char, 4096> control{};
  iovec body{.iov_base = text.data(), .iov_len = text.size()};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(fd_, &message, MSG_CMSG_CLOEXEC);
  if (size < 0) {
    return false;
  }
  ucred sender{};
  std::vector<int> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    const std::size_t length = header->cmsg_len - CMSG_LEN(0);
    if (header->cmsg_type == SCM_CREDENTIALS) {
      std::memcpy(&sender, CMSG_DATA(header), sizeof sender);
    } else if (header->cmsg_type == SCM_RIGHTS) {
      fds.resize(length / sizeof(int));
      std::memcpy(fds.data(), CMSG_DATA(header), length);
    }
  }
  if (main_ != 0 && sender.pid != main_) {
    for (const int fd : fds) {
      ::close(fd);
    }
    return true;
  }
  messages_.emplace_back(text.data(), static_cast<std::size_t>(size));
  if (has_line(messages_.back(), "FDSTOREREMOVE=1")) {
    for (const int fd : stored_) {
      ::close(fd);
    }
    stored_.clear();
  }
  stored_.insert(stored_.end(), fds.begin(), fds.end());
  return true;
}

}  // namespace continuity::test
