#include "shim/unlisted_thread.hpp"

#include "shim/real_calls.hpp"

// Before glibc 2.35 (_dl_find_object) the unwinder takes the loader's lock.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(CONTINUITY_WRAP)
#include <features.h>
#if __GLIBC_PREREQ(2, 35)
#define CONTINUITY_KNOWS_LIBC
#endif
#endif
#ifdef CONTINUITY_KNOWS_LIBC
#include <bit>
#include <cstddef>
#include <cstdint>
#include <pthread.h>
#include <sched.h>
#include <sys/single_threaded.h>
#endif

#if defined(__GLIBC__) && !defined(CONTINUITY_WRAP)
#include <algorithm>
#include <array>
#include <dlfcn.h>
#endif

namespace continuity::shim {

#if defined(__GLIBC__) && !defined(CONTINUITY_WRAP)
namespace {

void* find(const char* name) {
  return ::dlsym(RTLD_DEFAULT, name);
}

}  // namespace

// What runs in a thread may be called in any case.
bool has_sanitizer() noexcept {
  constexpr auto sanitizers = std::to_array({"__asan_init", "__msan_init", "__tsan_init"});
  return std::any_of(sanitizers.begin(), sanitizers.end(), find);
}
#else
bool has_sanitizer() noexcept {
  return false;  // none can be in a program that is linked statically
}
#endif

#ifdef CONTINUITY_KNOWS_LIBC
namespace {

// What begins the block of memory that %fs points to (the x86-64 supplement of the ABI has
// the first, stack protectors the fifth; glibc's sysdeps/x86_64/nptl/tls.h all of them).
struct ThreadHeader {
  void* self_for_tls;
  void* vector;
  void* self;
  int multiple_threads;
  int gscope_flag;
  std::uintptr_t sysinfo;
  std::uintptr_t stack_guard;
  std::uintptr_t pointer_guard;
};
static_assert(offsetof(ThreadHeader, stack_guard) == 0x28);

struct Begin {
  int (*function)(void*);
  void* argument;
  void (*init_ctype)();
};
// Of the one that is being started: read before its caller goes on.
constinit Begin g_begin{};

int begin(void*) {
  const Begin begin = g_begin;
  begin.init_ctype();
  return begin.function(begin.argument);
}

// Not dladdr, which looks through all symbols.
const void* object_of(const void* function) {
  dl_find_object found{};
  void* address = const_cast<void*>(function);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  return ::_dl_find_object(address, &found) == 0 ? found.dlfo_map_start : nullptr;
}

// Whether what a preloaded library takes first is libc's here.
bool are_calls_of_libc() {
  const void* libc = object_of(reinterpret_cast<const void*>(&::sched_yield));
  const auto is_of_libc = [&](auto* call) {
    return object_of(reinterpret_cast<const void*>(call)) == libc;
  };
  return libc != nullptr && is_of_libc(real().recvmsg.address()) &&
         is_of_libc(real().close.address()) && is_of_libc(real().open.address()) &&
         is_of_libc(real().epoll_wait.address()) && is_of_libc(real().ppoll.address()) &&
         is_of_libc(find("clock_gettime"));
}

bool may_be_unlisted() {
  return __libc_single_threaded != 0 && !has_sanitizer() && are_calls_of_libc();
}

}  // namespace

bool start_unlisted_thread(std::span<std::byte> stack, int (*function)(void*),
                           void* argument) noexcept {
  // Not in libc's interface (GLIBC_PRIVATE), but there since threads are: debuggers' libraries,
  // sanitizers and other languages' runtimes ask for such.
  auto* const allocate_tls = reinterpret_cast<void* (*)(void*)>(find("_dl_allocate_tls"));
  auto* const init_ctype = reinterpret_cast<void (*)()>(find("__ctype_init"));
  const auto* const own = std::bit_cast<const ThreadHeader*>(::pthread_self());
  if (allocate_tls == nullptr || init_ctype == nullptr || own->self != own ||
      own->self_for_tls != own || !may_be_unlisted()) {
    return false;
  }
  resolve_agent_calls();
  auto* const header = static_cast<ThreadHeader*>(allocate_tls(nullptr));
  if (header == nullptr) {
    return false;
  }
  header->self_for_tls = header;
  header->self = header;
  header->stack_guard = own->stack_guard;
  header->pointer_guard = own->pointer_guard;
  g_begin = {.function = function, .argument = argument, .init_ctype = init_ctype};
  return ::clone(&begin, stack.data() + stack.size(), thread_flags, nullptr, nullptr, header,
                 nullptr) > 0;
}
#else
bool start_unlisted_thread(std::span<std::byte>, int (*)(void*), void*) noexcept {
  return false;
}
#endif

}  // namespace continuity::shim
