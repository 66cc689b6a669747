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
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <sys/single_threaded.h>
#endif

namespace continuity::shim {

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

// Not in libc's interface (GLIBC_PRIVATE), but there since threads are: debuggers' libraries,
// sanitizers and other languages' runtimes ask for such.
struct Private {
  void* (*allocate_tls)(void*);
  void (*init_ctype)();
};

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

template <typename Function>
bool find(const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
  return function != nullptr;
}

bool is_there(const char* name) {
  return ::dlsym(RTLD_DEFAULT, name) != nullptr;
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
  const std::array<const void*, 6> calls{reinterpret_cast<const void*>(real().recvmsg.address()),
                                         reinterpret_cast<const void*>(real().close.address()),
                                         reinterpret_cast<const void*>(real().open.address()),
                                         reinterpret_cast<const void*>(real().epoll_wait.address()),
                                         ::dlsym(RTLD_DEFAULT, "clock_gettime"),
                                         reinterpret_cast<const void*>(real().ppoll.address())};
  return libc != nullptr && std::all_of(calls.begin(), calls.end(),
                                        [&](const void* call) { return object_of(call) == libc; });
}

// What runs in the thread may be called in any case.
constexpr auto sanitizers = std::to_array({"__asan_init", "__msan_init", "__tsan_init"});

bool may_be_unlisted() {
  return __libc_single_threaded != 0 &&
         std::none_of(sanitizers.begin(), sanitizers.end(), is_there) && are_calls_of_libc();
}

}  // namespace

bool start_unlisted_thread(std::span<std::byte> stack, int (*function)(void*),
                           void* argument) noexcept {
  constexpr int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                        CLONE_SYSVSEM | CLONE_SETTLS;
  Private libc{};
  const auto* const own = std::bit_cast<const ThreadHeader*>(::pthread_self());
  if (own->self != own || own->self_for_tls != own || !may_be_unlisted() ||
      !find("_dl_allocate_tls", libc.allocate_tls) || !find("__ctype_init", libc.init_ctype)) {
    return false;
  }
  resolve_agent_calls();
  auto* const header = static_cast<ThreadHeader*>(libc.allocate_tls(nullptr));
  if (header == nullptr) {
    return false;
  }
  header->self_for_tls = header;
  header->self = header;
  header->stack_guard = own->stack_guard;
  header->pointer_guard = own->pointer_guard;
  g_begin = {.function = function, .argument = argument, .init_ctype = libc.init_ctype};
  return ::clone(&begin, stack.data() + stack.size(), flags, nullptr, nullptr, header, nullptr) > 0;
}
#else
bool start_unlisted_thread(std::span<std::byte>, int (*)(void*), void*) noexcept {
  return false;
}
#endif

}  // namespace continuity::shim
