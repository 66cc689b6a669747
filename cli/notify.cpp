#include "cli/notify.hpp"

#include "core/address.hpp"
#include "core/proc_text.hpp"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/un.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

constexpr std::size_t longest_notice = 4096;
constexpr std::size_t most_fds = 253;  // of one message, by the kernel

// As sd_notify reads it: a path, or @ and an abstract name.
std::optional<Address> parse(const std::string& text) {
  if (text.size() < 2 || (text[0] != '/' && text[0] != '@')) {
    return std::nullopt;
  }
  return parse_address("unix:" + text);
}

}  // namespace

OwnedFd make_named_socket(const Sys& sys, int type, std::string& name) {
  OwnedFd fd(sys, sys.socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un chosen{};
  chosen.sun_family = AF_UNIX;
  auto* address = reinterpret_cast<sockaddr*>(&chosen);  // NOLINT: the socket API
  socklen_t length = sizeof chosen;
  if (sys.bind(fd.get(), address, sizeof(sa_family_t)) != 0 ||
      sys.getsockname(fd.get(), address, &length) != 0) {
    return {};
  }
  name.assign(&chosen.sun_path[0], length - offsetof(sockaddr_un, sun_path));
  name.front() = '@';
  return fd;
}

Manager::Manager(const Sys& sys, const std::string& address) : sys_(&sys) {
  const auto parsed = parse(address);
  if (!parsed) {
    return;
  }
  fd_ = OwnedFd(sys, sys.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd_.is_open() && sys.connect(fd_.get(), parsed->get(), parsed->length) != 0) {
    fd_.reset();
  }
}

void Manager::say(const std::string& lines, const std::vector<int>& fds) {
  if (!fd_.is_open() || lines.empty() || fds.size() > most_fds) {
    return;
  }
  iovec body{.iov_base = const_cast<char*>(lines.data()),  // NOLINT: sendmsg does not write
             .iov_len = lines.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * most_fds)> control{};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    const std::size_t size = fds.size() * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(header), fds.data(), size);
  }
  sys_->sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
}

ServerNotices::ServerNotices(const Sys& sys)
    : sys_(&sys), fd_(make_named_socket(sys, SOCK_DGRAM, address_)) {
  const int on = 1;
  if (sys.setsockopt(fd_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
    fd_.reset();
    address_.clear();
  }
}

std::optional<ServerNotices::Notice> ServerNotices::receive() {
  std::array<char, longest_notice> text{};
  iovec body{.iov_base = text.data(), .iov_len = text.size()};
  alignas(cmsghdr)
      std::array<std::byte, CMSG_SPACE(sizeof(int) * most_fds) + CMSG_SPACE(sizeof(ucred))>
          control{};
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = sys_->recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
  if (size < 0) {
    return std::nullopt;
  }
  Notice notice;
  notice.lines.assign(text.data(), static_cast<std::size_t>(size));
  ucred sender{.pid = 0, .uid = static_cast<uid_t>(-1), .gid = 0};
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET) {
      continue;
    }
    const std::size_t length = header->cmsg_len - CMSG_LEN(0);
    if (header->cmsg_type == SCM_CREDENTIALS && length == sizeof sender) {
      std::memcpy(&sender, CMSG_DATA(header), length);
    } else if (header->cmsg_type == SCM_RIGHTS) {
      for (std::size_t at = 0; at + sizeof(int) <= length; at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
        notice.fds.emplace_back(*sys_, fd);
      }
    }
  }
  notice.sender = sender.pid;
  // Cut short, or from nowhere that we can see: nobody has said it.
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || sender.pid <= 0) {
    notice.lines.clear();
    notice.fds.clear();
  }
  return notice;
}

std::string lines_to_pass_on(const std::string& lines) {
  constexpr std::array<std::string_view, 8> passed{
      "STATUS=", "WATCHDOG=", "WATCHDOG_USEC=", "EXTEND_TIMEOUT_USEC=",
      "ERRNO=",  "BUSERROR=", "FDSTORE=",       "FDNAME="};
  std::string result;
  for_each_line(lines, [&](std::string_view line) {
    for (const std::string_view prefix : passed) {
      if (line.starts_with(prefix)) {
        result.append(line).append("\n");
      }
    }
  });
  return result;
}

std::vector<OwnedFd> take_listen_fds(const Sys& sys) {
  constexpr int first = 3;  // SD_LISTEN_FDS_START
  std::vector<OwnedFd> fds;
  const auto number = [](const char* name) {
    const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): there is one thread
    int value = 0;
    return text != nullptr && read_number(text, value, 10) ? value : 0;
  };
  const int count = number("LISTEN_FDS");
  if (number("LISTEN_PID") == sys.getpid() && count > 0 && count < 65'536) {
    for (int fd = first; fd < first + count; ++fd) {
      if (sys.fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) {
        fds.emplace_back(sys, fd);
      }
    }
  }
  for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) {
    ::unsetenv(name);  // NOLINT(concurrency-mt-unsafe)
  }
  return fds;
}

}  // namespace continuity::cli
