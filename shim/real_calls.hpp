// The functions behind our wrappers: libc's own.
//
// Libraries that the program links are initialised before a preloaded one and
// may call any wrapper then (redis-server's jemalloc does): every slot is
// filled when it is first used, by whoever comes first. All of them store the
// same pointer.
#pragma once

#include <atomic>
#include <cstdio>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <type_traits>
#include <unistd.h>

// NOLINTBEGIN(readability-identifier-naming): libc's names
// What a fortified program calls instead of poll, recv, open and the like. libc's headers
// declare them only when compiling with fortification.
extern "C" {
int __poll_chk(pollfd* fds, nfds_t count, int timeout, std::size_t room);
int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask,
                std::size_t room);
ssize_t __recv_chk(int fd, void* buffer, std::size_t size, std::size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void* buffer, std::size_t size, std::size_t room, int flags,
                       sockaddr* address, socklen_t* length);
ssize_t __read_chk(int fd, void* buffer, std::size_t size, std::size_t room);
int __open_2(const char* path, int flags);
int __open64_2(const char* path, int flags);
int __openat_2(int directory, const char* path, int flags);
int __openat64_2(int directory, const char* path, int flags);

// In libc, but in none of its headers (libcap's sys/capability.h has it).
int capset(void* header, const void* data) noexcept;

// What programs call that were built with a glibc before 2.33.
int __xstat(int version, const char* path, struct stat* status) noexcept;
int __xstat64(int version, const char* path, struct stat64* status) noexcept;
int __lxstat(int version, const char* path, struct stat* status) noexcept;
int __lxstat64(int version, const char* path, struct stat64* status) noexcept;
int __fxstatat(int version, int directory, const char* path, struct stat* status,
               int flags) noexcept;
int __fxstatat64(int version, int directory, const char* path, struct stat64* status,
                 int flags) noexcept;
}
// NOLINTEND(readability-identifier-naming)

namespace continuity::shim {

enum class Call {
#define CALL(name) name,
#include "shim/calls.def"
#undef CALL
};

// Looks a function up; ends the program if libc does not have it. Keeps errno.
void* resolve_real_call(Call call) noexcept;

template <typename Function, Call call>
class RealCall {
 public:
  constexpr RealCall() noexcept = default;
  constexpr explicit RealCall(Function* function) noexcept : function_(function) {}

  template <typename... Arguments>
  auto operator()(Arguments... arguments) const {
    Function* function = function_.load(std::memory_order_relaxed);
    if (function == nullptr) [[unlikely]] {
      return first_call(arguments...);
    }
    return function(arguments...);
  }

  // To be called without a frame of ours in between.
  [[nodiscard]] Function* address() const {
    if (function_.load(std::memory_order_relaxed) == nullptr) [[unlikely]] {
      function_.store(reinterpret_cast<Function*>(resolve_real_call(call)),
                      std::memory_order_relaxed);
    }
    return function_.load(std::memory_order_relaxed);
  }

 private:
  // Apart, so that a wrapper need not keep its arguments for this.
  template <typename... Arguments>
  [[gnu::noinline]] [[gnu::cold]] std::invoke_result_t<Function*, Arguments...> first_call(
      Arguments... arguments) const {
    auto* function = reinterpret_cast<Function*>(resolve_real_call(call));
    function_.store(function, std::memory_order_relaxed);
    return function(arguments...);
  }

  mutable std::atomic<Function*> function_{nullptr};
};

#ifdef CONTINUITY_WRAP
// `ld --wrap=NAME` makes __real_NAME the function of that name.
extern "C" {
#define CALL(name) decltype(::name) __real_##name;
#include "shim/calls.def"
#undef CALL
}
#endif

// Whole lines of the processor's cache: so what comes behind it begins one (watch.cpp).
struct alignas(64) RealCalls {
#ifdef CONTINUITY_WRAP
#define CALL(name) RealCall<decltype(::name), Call::name> name{&__real_##name};
#else
#define CALL(name) RealCall<decltype(::name), Call::name> name{};
#endif
#include "shim/calls.def"
#undef CALL
};

extern constinit RealCalls g_real_calls;

inline const RealCalls& real() {
  return g_real_calls;
}

// Looks up what the agent may call, if libc does not know of it: then it may not itself.
void resolve_agent_calls() noexcept;

}  // namespace continuity::shim
