#include "shim/real_calls.hpp"

#include "shim/placement.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <sys/syscall.h>

namespace continuity::shim {

#ifdef CONTINUITY_WRAP
constinit RealCalls g_real_calls;  // does not begin as zeros
#else
CONTINUITY_BUSY_DATA constinit RealCalls g_real_calls;
#endif

#ifndef CONTINUITY_WRAP
namespace {

constexpr std::array names{
#define CALL(name) #name,
#include "shim/calls.def"
#undef CALL
};

// dlsym may allocate, and an allocator that starts up just then may read its
// settings: from a link, or from a file, which it closes.
__attribute__((tls_model("initial-exec"))) thread_local bool t_resolving = false;

int raw_close(int fd) {
  return static_cast<int>(::syscall(SYS_close, fd));
}

int raw_open(const char* path, int flags, mode_t mode) {
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
int raw_openat(int directory, const char* path, int flags, mode_t mode) {
  return static_cast<int>(::syscall(SYS_openat, directory, path, flags, mode));
}
ssize_t raw_read(int fd, void* buffer, std::size_t size) {
  return ::syscall(SYS_read, fd, buffer, size);
}
int raw_access(const char* path, int mode) {
  return static_cast<int>(::syscall(SYS_faccessat, AT_FDCWD, path, mode));
}
ssize_t raw_readlink(const char* path, char* target, std::size_t room) {
  return ::syscall(SYS_readlinkat, AT_FDCWD, path, target, room);
}

// Null: no allocator needs it to start up.
void* raw_call(Call call) {
  switch (call) {
    case Call::close:
      return reinterpret_cast<void*>(&raw_close);
    case Call::open:
    case Call::open64:
      return reinterpret_cast<void*>(&raw_open);
    case Call::openat:
    case Call::openat64:
      return reinterpret_cast<void*>(&raw_openat);
    case Call::read:
      return reinterpret_cast<void*>(&raw_read);
    case Call::access:
      return reinterpret_cast<void*>(&raw_access);
    case Call::readlink:
      return reinterpret_cast<void*>(&raw_readlink);
    default:
      return nullptr;
  }
}

[[noreturn]] void end_program(const char* name) {
  constexpr const char* text = "continuity: this libc has no function ";
  for (const char* part : {text, name, "\n"}) {
    ::syscall(SYS_write, STDERR_FILENO, part, std::strlen(part));
  }
  std::abort();
}

}  // namespace

void* resolve_real_call(Call call) noexcept {
  const int saved = errno;
  const char* name = names.at(static_cast<std::size_t>(call));
  if (t_resolving) {
    if (void* raw = raw_call(call)) {
      return raw;
    }
    end_program(name);
  }
  t_resolving = true;
  void* function = ::dlsym(RTLD_NEXT, name);
  t_resolving = false;
  if (function == nullptr) {
    end_program(name);
  }
  errno = saved;
  return function;
}

void resolve_agent_calls() noexcept {
  const int saved = errno;
  const auto resolve = [](const auto&... calls) { (static_cast<void>(calls.address()), ...); };
  // What the cold half calls. Not all there are: each that is looked up brings pages of libc's
  // symbols into the process.
  const RealCalls& calls = real();
  resolve(calls.accept, calls.accept4, calls.bind, calls.close, calls.connect, calls.dup3,
          calls.epoll_ctl, calls.epoll_wait, calls.fchmodat, calls.fcntl, calls.fstatat,
          calls.ftruncate, calls.getsockname, calls.getsockopt, calls.ioctl, calls.kill,
          calls.listen, calls.openat, calls.ppoll, calls.read, calls.readlinkat, calls.recv,
          calls.recvmsg, calls.renameat, calls.renameat2, calls.sendmsg, calls.sendto,
          calls.setsockopt, calls.shutdown, calls.syscall, calls.unlinkat, calls.write);
  errno = saved;
}
#else
void resolve_agent_calls() noexcept {}
void* resolve_real_call(Call) noexcept {
  std::abort();
}  // every slot is filled by the linker
#endif

}  // namespace continuity::shim
