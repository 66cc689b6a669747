#include "shim/real_calls.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <sys/syscall.h>

namespace continuity::shim {

constinit RealCalls g_real_calls;

#ifndef CONTINUITY_WRAP
namespace {

constexpr std::array names{
#define CALL(name) #name,
#include "shim/calls.def"
#undef CALL
};

// dlsym may allocate, and an allocator that starts up just then may close what
// it has read its settings from.
__attribute__((tls_model("initial-exec"))) thread_local bool t_resolving = false;

int raw_close(int fd) {
  return static_cast<int>(::syscall(SYS_close, fd));
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
    if (call == Call::close) {
      return reinterpret_cast<void*>(&raw_close);
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
#else
void* resolve_real_call(Call) noexcept {
  std::abort();
}  // every slot is filled by the linker
#endif

}  // namespace continuity::shim
