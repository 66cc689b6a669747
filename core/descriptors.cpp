#include "core/descriptors.hpp"

#include "core/directory.hpp"
#include "core/listener.hpp"
#include "core/proc_text.hpp"
#include "core/sorted.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>  // has what libc's netinet/tcp.h has not
#include <netinet/in.h>
#include <string>
#include <string_view>
#include <sys/ioctl.h>

namespace continuity {
namespace {

// Takes the number behind `label` off the front of `line`.
template <typename Number>
bool take(std::string_view& line, std::string_view label, int base, Number& number) {
  const auto at = line.find(label);
  if (at == std::string_view::npos) {
    return false;
  }
  line.remove_prefix(at + label.size());
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number, base);
  if (error != std::errc{}) {
    return false;
  }
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  return true;
}

// Files without a place in a file system: epolls, eventfds, timers.
bool is_anonymous(const struct stat& status) {
  return (status.st_mode & S_IFMT) == 0;
}

// Whether its local address is that of a connection through one of these listeners.
bool came_through_any(const Sys& sys, int fd, const CameThrough& through) {
  Address local;
  local.length = sizeof local.storage;
  return sys.getsockname(fd, local.get(), &local.length) == 0 && local.is_supported() &&
         through(local);
}

// Nothing has come that was not read, nothing was sent that has not arrived, and
// of what came and what was sent, the latter was last: a request that is being
// worked at, or has come in part, is neither in a queue nor answered. (Both times
// are kept in ticks: an answer in the same tick as its request is one.) The kernel
// tells no times of UNIX sockets.
bool is_idle(const Sys& sys, int fd) {
  int unread = 0;
  int unsent = 0;
  if (sys.ioctl(fd, SIOCINQ, &unread) != 0 || sys.ioctl(fd, SIOCOUTQ, &unsent) != 0 ||
      unread != 0 || unsent != 0) {
    return false;
  }
  tcp_info info{};
  socklen_t size = sizeof info;
  if (sys.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    return errno == EOPNOTSUPP;
  }
  const bool unanswered = info.tcpi_bytes_received > 0 && info.tcpi_bytes_sent == 0;
  return !unanswered && info.tcpi_last_data_sent <= info.tcpi_last_data_recv;
}

// The kernel reports these whether asked for or not, and lists them as if asked.
constexpr std::uint32_t always_reported = EPOLLERR | EPOLLHUP;

}  // namespace

std::optional<Registration> parse_epoll_line(std::string_view line) {
  Registration found{};
  if (!take(line, "tfd:", 10, found.fd) || !take(line, "events:", 16, found.events) ||
      !take(line, "data:", 16, found.data) || !take(line, "ino:", 16, found.inode)) {
    return std::nullopt;
  }
  found.events &= ~always_reported;
  return found;
}

// thread-self, not self: when a program's first thread has ended, the
// directories of the process are empty.
OwnedFd Descriptors::open_own(const char* path) const {
  const std::string relative = std::string("thread-self/") + path;
  return {*sys_, sys_->openat(proc_, relative.c_str(), O_RDONLY | O_CLOEXEC, 0)};
}

Result<std::size_t> Descriptors::find_in_epoll(int epoll, std::span<const std::uint64_t> wanted,
                                               std::vector<Registration>& found) {
  const auto inodes = sorted(wanted);
  const OwnedFd info = open_own(("fdinfo/" + std::to_string(epoll)).c_str());
  if (!info.is_open()) {
    return last_error("open the list of an epoll");
  }
  // Few large reads: 10,000 registrations take 20 ms so, 118 ms through stdio.
  std::size_t chunk = first_read;
  constexpr std::size_t longest_chunk = 262'144;
  std::string text;
  std::size_t used = 0;
  std::size_t total = 0;
  for (;;) {
    text.resize(used + chunk);
    const ssize_t size = sys_->read(info.get(), text.data() + used, chunk);
    if (size < 0) {
      return last_error("read the list of an epoll");
    }
    if (size == 0) {
      return total;
    }
    total += static_cast<std::size_t>(size);
    const std::string_view view(text.data(), used + static_cast<std::size_t>(size));
    std::size_t begin = 0;
    for (auto end = view.find('\n'); end != std::string_view::npos; end = view.find('\n', begin)) {
      auto registration = parse_epoll_line(view.substr(begin, end - begin));
      if (registration && is_in(inodes, registration->inode)) {
        registration->epoll = epoll;
        found.push_back(*registration);
      }
      begin = end + 1;
    }
    used = view.size() - begin;
    text.erase(0, begin);
    if (static_cast<std::size_t>(size) > chunk / 2) {
      chunk = longest_chunk;
    }
  }
}

Result<Holdings> Descriptors::find(std::span<const std::uint64_t> wanted, bool (*ours)(int fd)) {
  const auto inodes = sorted(wanted);
  const OwnedFd directory = open_own("fd");
  if (!directory.is_open()) {
    return last_error("open the list of descriptors");
  }
  Holdings holdings;
  std::vector<int> epolls;
  int failure = 0;
  const auto visit = [&](int fd) {
    struct stat status {};
    if (ours(fd) || fd == sys_->number(directory.get())) {
      return;
    }
    if (sys_->fstat(fd, &status) != 0) {
      // EBADF: closed meanwhile. ENOENT: a directory in /proc of a process that has
      // ended (proc_fd_getattr in fs/proc/fd.c).
      failure = errno == EBADF || errno == ENOENT ? failure : errno;
      return;
    }
    if (S_ISSOCK(status.st_mode) && is_in<std::uint64_t>(inodes, status.st_ino)) {
      holdings.copies.push_back({.fd = fd, .inode = status.st_ino});
    } else if (is_anonymous(status)) {
      constexpr std::string_view epoll_name = "anon_inode:[eventpoll]";
      std::array<char, 64> name{};
      const ssize_t size =
          sys_->readlinkat(directory.get(), std::to_string(fd).c_str(), name.data(), name.size());
      const std::string_view file(name.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
      if (file == epoll_name) {
        epolls.push_back(fd);
      } else if (file == ring_name) {
        holdings.rings.push_back(fd);
      }
    }
  };
  if (const auto read = for_each_number(*sys_, directory.get(), visit); !read) {
    return read.error();
  }
  if (failure != 0) {
    return Error{"look at a descriptor", failure};
  }
  for (const int epoll : epolls) {
    // Closed meanwhile is no failure: then it watches nothing.
    const auto read = find_in_epoll(epoll, inodes, holdings.registrations);
    if (!read && read.error().code != ENOENT) {
      return read.error();
    }
    constexpr std::size_t small = 8'192;
    if (read && *read <= small) {
      holdings.small_epolls.push_back(epoll);
    }
  }
  return holdings;
}

template <typename Visit>
Status Descriptors::for_each_connection(std::span<const Address> addresses, bool (*ours)(int fd),
                                        Visit visit) {
  const OwnedFd directory = open_own("fd");
  if (!directory.is_open()) {
    return last_error("open the list of descriptors");
  }
  const CameThrough through(addresses);
  const auto look = [&](int fd) {
    if (ours(fd)) {
      return;
    }
    int type = 0;
    socklen_t size = sizeof type;
    if (came_through_any(*sys_, fd, through) &&
        sys_->getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
        (type == SOCK_STREAM || type == SOCK_SEQPACKET) && !is_listening(*sys_, fd)) {
      visit(fd);
    }
  };
  return for_each_number(*sys_, directory.get(), look);
}

Result<Descriptors::Connections> Descriptors::find_connections(std::span<const Address> addresses,
                                                               bool (*ours)(int fd)) {
  Connections connections;
  const auto looked = for_each_connection(addresses, ours, [&](int fd) {
    ++connections.count;
    connections.example = fd;
    connections.example_inode = socket_inode(*sys_, fd);
  });
  if (!looked) {
    return looked.error();
  }
  return connections;
}

Status Descriptors::finish_idle(std::span<const Address> addresses, bool (*ours)(int fd)) {
  std::vector<int> fds;
  auto looked = for_each_connection(addresses, ours, [&](int fd) { fds.push_back(fd); });
  const CameThrough through(addresses);
  for (const int fd : fds) {
    // A copy: the program may close the number, and have something else under it.
    const OwnedFd connection(*sys_, sys_->fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (connection.is_open() && came_through_any(*sys_, connection.get(), through) &&
        is_idle(*sys_, connection.get())) {
      sys_->shutdown(connection.get(), SHUT_RD);
    }
  }
  return looked;
}

}  // namespace continuity
