#include "shim/own_descriptors.hpp"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cstring>

#include "core/result.hpp"
#include "shim/real_calls.hpp"
#include "shim/watch.hpp"

namespace continuity::shim {
namespace {

constexpr int highest_own = 1023;

int highest_allowed() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > highest_own) {
    return highest_own;
  }
  return static_cast<int>(limit.rlim_cur) - 1;
}

bool is_free(int fd) { return real().fcntl(fd, F_GETFD) < 0; }

// A copy of `fd` at the highest free number, or -1.
int copy_high(int fd) {
  int wanted = highest_allowed();
  while (wanted > 2 && (is_ours(wanted) || !is_free(wanted))) {
    --wanted;
  }
  const int copy = real().fcntl(fd, F_DUPFD_CLOEXEC, wanted);
  if (copy >= 0) {
    set_fd_flags(copy, fd_flag::ours);
  }
  return copy;
}

// Takes a descriptor that has just been made for us.
int place(int fd) {
  if (fd < 0) {
    return fd;
  }
  const int high = copy_high(fd);
  if (high < 0) {
    set_fd_flags(fd, fd_flag::ours);  // no room above: it stays where it is
    return fd;
  }
  real().close(fd);
  return high;
}

void place_received(msghdr& message) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      unsigned char* at = CMSG_DATA(header) + i * sizeof(int);
      int fd = -1;
      std::memcpy(&fd, at, sizeof fd);
      fd = place(fd);
      std::memcpy(at, &fd, sizeof fd);
    }
  }
}

namespace placed {
int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return place(real().accept4(fd, address, length, flags));
}
int bind(int fd, const sockaddr* address, socklen_t length) {
  return real().bind(fd, address, length);
}
int close(int fd) {
  remove_fd_flags(fd, fd_flag::ours);
  return real().close(fd);
}
int dup3(int from, int to, int flags) { return real().dup3(from, to, flags); }
int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) {
  return real().epoll_ctl(epoll, operation, fd, event);
}
int eventfd(unsigned value, int flags) { return place(::eventfd(value, flags)); }
int fcntl(int fd, int command, long argument) {
  if (command == F_DUPFD_CLOEXEC) {
    return copy_high(fd);
  }
  return real().fcntl(fd, command, argument);
}
int getsockname(int fd, sockaddr* address, socklen_t* length) {
  return real().getsockname(fd, address, length);
}
int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  return real().getsockopt(fd, level, name, value, length);
}
int listen(int fd, int backlog) { return real().listen(fd, backlog); }
int openat(int directory, const char* path, int flags, mode_t mode) {
  return place(::openat(directory, path, flags, mode));
}
int pidfd_open(pid_t pid, unsigned flags) {
  return place(static_cast<int>(real().syscall(SYS_pidfd_open, pid, flags)));
}
int ppoll(pollfd* fds, nfds_t count, const timespec* timeout) {
  return real().ppoll(fds, count, timeout, nullptr);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const ssize_t size = ::recvmsg(fd, message, flags);
  if (size >= 0 && message->msg_controllen > 0) {
    place_received(*message);
  }
  return size;
}
int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  return real().setsockopt(fd, level, name, value, length);
}
int shutdown(int fd, int how) { return real().shutdown(fd, how); }
int socket(int family, int type, int protocol) {
  return place(::socket(family, type, protocol));
}
int socketpair(int family, int type, int protocol, int* pair) {
  const int result = ::socketpair(family, type, protocol, pair);
  if (result == 0) {
    pair[0] = place(pair[0]);
    pair[1] = place(pair[1]);
  }
  return result;
}
int unlinkat(int directory, const char* path, int flags) {
  return real().unlinkat(directory, path, flags);
}
}  // namespace placed

Sys make_real_sys() {
  Sys sys = libc_sys();
  sys.accept4 = placed::accept4;
  sys.bind = placed::bind;
  sys.close = placed::close;
  sys.dup3 = placed::dup3;
  sys.epoll_ctl = placed::epoll_ctl;
  sys.eventfd = placed::eventfd;
  sys.fcntl = placed::fcntl;
  sys.getsockname = placed::getsockname;
  sys.getsockopt = placed::getsockopt;
  sys.listen = placed::listen;
  sys.openat = placed::openat;
  sys.pidfd_open = placed::pidfd_open;
  sys.ppoll = placed::ppoll;
  sys.recvmsg = placed::recvmsg;
  sys.setsockopt = placed::setsockopt;
  sys.shutdown = placed::shutdown;
  sys.socket = placed::socket;
  sys.socketpair = placed::socketpair;
  sys.unlinkat = placed::unlinkat;
  return sys;
}

}  // namespace

const Sys& real_sys() {
  static const Sys sys = make_real_sys();
  return sys;
}

void close_own_descriptors() noexcept {
  for (int fd = g_highest_fd.load(); fd >= 0; --fd) {
    if (is_ours(fd)) {
      placed::close(fd);
    }
  }
}

}  // namespace continuity::shim
