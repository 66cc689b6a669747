// Sys as libc provides it. The only file of core that calls libc's kernel
// functions by name.
#include "core/sys.hpp"

#include <csignal>
#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

namespace continuity {
namespace {

// These have no libc function of this shape on Debian 12's glibc.
namespace shaped {
int fcntl(int fd, int command, long argument) {
  return ::fcntl(fd, command, argument);
}
int fchmodat(int dir, const char* path, mode_t mode) {
  return ::fchmodat(dir, path, mode, 0);
}
int number(int fd) {
  return fd;
}
int openat(int dir, const char* path, int flags, mode_t mode) {
  return ::openat(dir, path, flags, mode);
}
int futex(std::atomic<std::uint32_t>* word, int operation, std::uint32_t value,
          const timespec* timeout) {
  return static_cast<int>(::syscall(SYS_futex, word, operation, value, timeout, nullptr, 0));
}
ssize_t getdents(int fd, void* buffer, std::size_t size) {
  return ::syscall(SYS_getdents64, fd, buffer, size);
}
int ioctl(int fd, unsigned long request, int* value) {
  return ::ioctl(fd, request, value);
}
int io_uring_register(int ring, unsigned operation, void* argument, unsigned count) {
  return static_cast<int>(::syscall(SYS_io_uring_register, ring, operation, argument, count));
}
int membarrier(int command) {
  return static_cast<int>(::syscall(SYS_membarrier, command, 0, 0));
}
int getrlimit(int resource, rlimit* limit) {
  return ::getrlimit(static_cast<__rlimit_resource>(resource), limit);
}
int setrlimit(int resource, const rlimit* limit) {
  return ::setrlimit(static_cast<__rlimit_resource>(resource), limit);
}
int pidfd_open(pid_t pid, unsigned flags) {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, flags));
}
int pidfd_send_signal(int pidfd, int signal) {
  return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}
int ppoll(pollfd* fds, nfds_t count, const timespec* timeout) {
  return ::ppoll(fds, count, timeout, nullptr);
}
int rt_sigaction(int signal, const void* action, void* old_action, std::size_t mask_size) {
  return static_cast<int>(::syscall(SYS_rt_sigaction, signal, action, old_action, mask_size));
}
int tgsigqueueinfo(pid_t process, pid_t thread, int signal, siginfo_t* info) {
  return static_cast<int>(::syscall(SYS_rt_tgsigqueueinfo, process, thread, signal, info));
}
}  // namespace shaped

}  // namespace

const Sys& libc_sys() {
  static constexpr Sys sys{
      .accept4 = ::accept4,
      .bind = ::bind,
      .clock_gettime = ::clock_gettime,
      .close = ::close,
      .connect = ::connect,
      .dup3 = ::dup3,
      .epoll_ctl = ::epoll_ctl,
      .epoll_create1 = ::epoll_create1,
      .epoll_wait = ::epoll_wait,
      .eventfd = ::eventfd,
      .fchmodat = shaped::fchmodat,
      .fchown = ::fchown,
      .fcntl = shaped::fcntl,
      .flock = ::flock,
      .fstat = ::fstat,
      .fstatat = ::fstatat,
      .futex = shaped::futex,
      .getdents = shaped::getdents,
      .getpgid = ::getpgid,
      .getpid = ::getpid,
      .getpeername = ::getpeername,
      .getrlimit = shaped::getrlimit,
      .getsockname = ::getsockname,
      .getsockopt = ::getsockopt,
      .geteuid = ::geteuid,
      .gettid = ::gettid,
      .ioctl = shaped::ioctl,
      .io_uring_register = shaped::io_uring_register,
      .kill = ::kill,
      .listen = ::listen,
      .membarrier = shaped::membarrier,
      .memfd_create = ::memfd_create,
      .mkdirat = ::mkdirat,
      .number = shaped::number,
      .openat = shaped::openat,
      .pidfd_open = shaped::pidfd_open,
      .pidfd_send_signal = shaped::pidfd_send_signal,
      .ppoll = shaped::ppoll,
      .read = ::read,
      .readlinkat = ::readlinkat,
      .recvmsg = ::recvmsg,
      .renameat = ::renameat,
      .renameat2 = ::renameat2,
      .rt_sigaction = shaped::rt_sigaction,
      .sched_yield = ::sched_yield,
      .sendmsg = ::sendmsg,
      .setrlimit = shaped::setrlimit,
      .setsockopt = ::setsockopt,
      .shutdown = ::shutdown,
      .socket = ::socket,
      .socketpair = ::socketpair,
      .tgkill = ::tgkill,
      .tgsigqueueinfo = shaped::tgsigqueueinfo,
      .unlinkat = ::unlinkat,
      .write = ::write,
  };
  return sys;
}

}  // namespace continuity
