// A kernel that can be made to lie, to fail on demand, and that remembers what
// was opened through it.
//
// Without hooks every call goes to libc. `fail_nth(n, code)` makes one call
// fail, whichever it is: running something again and again with n = 1, 2, ...
// until no call is left visits every error path there is. The table follows
// core/sys_calls.def, so a call that is added there cannot be forgotten here.
#pragma once

#include "core/clock.hpp"
#include "core/sys.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <set>

namespace continuity::test {

enum class Call : std::uint8_t {
#define SYS_CALL(result, name, parameters, arguments) name,
#include "core/sys_calls.def"
#undef SYS_CALL
  count
};

struct Hooks {
#define SYS_CALL(result, name, parameters, arguments) std::function<result parameters> name{};
#include "core/sys_calls.def"
#undef SYS_CALL
};

class FakeKernel {
 public:
  Hooks hooks;  // where one is set, it is called instead of libc

  // The n-th call from now on fails, counting those that can fail.
  void fail_nth(int n, int code) {
    countdown_ = n;
    code_ = code;
    failed_ = false;
  }
  // What has been asked for is dropped, if it has not come to pass.
  void stop_failing() { countdown_ = 0; }
  // The next call of this kind fails.
  void fail_next(Call call, int code) {
    only_ = call;
    fail_nth(1, code);
  }
  [[nodiscard]] bool has_failed() const { return failed_; }
  // Which call it was.
  [[nodiscard]] const char* failed_call() const {
    static constexpr std::array<const char*, static_cast<std::size_t>(Call::count) + 1> names{
#define SYS_CALL(result, name, parameters, arguments) #name,
#include "core/sys_calls.def"
#undef SYS_CALL
        "none"};
    return names.at(static_cast<std::size_t>(failed_ ? failed_call_ : Call::count));
  }
  [[nodiscard]] int count(Call call) const {
    return counts_.at(static_cast<std::size_t>(call));
  }
  // Descriptors made through this kernel and not yet closed through it.
  [[nodiscard]] const std::set<int>& open() const {
    return open_;
  }

  template <Call call, typename R, typename... A>
  R invoke(const std::function<R(A...)>& hook, R (*libc)(A...), A... arguments) {
    ++counts_.at(static_cast<std::size_t>(call));
    if (fails(call)) {
      errno = code_;
      return static_cast<R>(-1);
    }
    if constexpr (call == Call::close) {
      forget(arguments...);
    }
    const R value = hook ? hook(arguments...) : libc(arguments...);
    note<call>(static_cast<long>(value), arguments...);
    return value;
  }

 private:
  // These cannot fail, or (close) have done their work when they say so.
  static constexpr bool can_fail(Call call) {
    return call != Call::close && call != Call::clock_gettime && call != Call::getpid &&
           call != Call::geteuid && call != Call::number && call != Call::sched_yield;
  }
  bool fails(Call call) {
    if (countdown_ == 0 || !can_fail(call) || (only_ != Call::count && only_ != call) ||
        --countdown_ > 0) {
      return false;
    }
    only_ = Call::count;
    failed_call_ = call;
    return failed_ = true;
  }
  void forget(int fd) {
    open_.erase(fd);
  }

  template <Call call, typename... A>
  void note(long value, A... arguments) {
    if (value < 0) {
      return;
    }
    if constexpr (call == Call::accept4 || call == Call::eventfd || call == Call::openat ||
                  call == Call::pidfd_open || call == Call::socket) {
      open_.insert(static_cast<int>(value));
    } else if constexpr (call == Call::fcntl) {
      note_fcntl(value, arguments...);
    } else if constexpr (call == Call::socketpair) {
      note_pair(arguments...);
    } else if constexpr (call == Call::recvmsg) {
      note_received(arguments...);
    }
  }
  void note_fcntl(long value, int, int command, long) {
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
      open_.insert(static_cast<int>(value));
    }
  }
  void note_pair(int, int, int, const int* pair) {
    open_.insert({pair[0], pair[1]});
  }
  void note_received(int, msghdr* message, int) {
    for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
         header = CMSG_NXTHDR(message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
        continue;
      }
      const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
        open_.insert(fd);
      }
    }
  }

  std::array<int, static_cast<std::size_t>(Call::count)> counts_{};
  std::set<int> open_;
  int countdown_ = 0;
  int code_ = 0;
  bool failed_ = false;
  Call only_ = Call::count;
  Call failed_call_ = Call::count;
};

// Sys is a table of plain functions, which carry no context: a kernel of its
// own for each `which`, one at a time.
template <int which>
class FakeSys : public FakeKernel {
 public:
  FakeSys() { current() = this; }
  ~FakeSys() { current() = nullptr; }
  FakeSys(const FakeSys&) = delete;
  FakeSys& operator=(const FakeSys&) = delete;

  [[nodiscard]] const Sys& table() const {
    static constexpr Sys sys{
#define SYS_CALL(result, name, parameters, arguments) .name = Functions::name,
#include "core/sys_calls.def"
#undef SYS_CALL
    };
    return sys;
  }
  // NOLINTNEXTLINE(google-explicit-constructor): it stands for one
  operator const Sys&() const {
    return table();
  }

  // Whether the kernel of this kind, if there is one now, has opened it.
  static bool has_opened(int fd) {
    return current() != nullptr && current()->open().contains(fd);
  }

 private:
  static FakeSys*& current() {
    static FakeSys* kernel = nullptr;
    return kernel;
  }

  template <Call call, typename R, typename... A>
  struct Bound {
    FakeKernel* kernel;
    const std::function<R(A...)>* hook;
    R (*libc)(A...);
    R operator()(A... arguments) const {
      return kernel->template invoke<call, R, A...>(*hook, libc, arguments...);
    }
  };
  template <Call call, typename R, typename... A>
  static Bound<call, R, A...> bound(const std::function<R(A...)>& hook, R (*libc)(A...)) {
    return {current(), &hook, libc};
  }

  struct Functions {
#define SYS_CALL(result, name, parameters, arguments)                           \
  static result name parameters {                                               \
    return bound<Call::name>(current()->hooks.name, libc_sys().name) arguments; \
  }
#include "core/sys_calls.def"
#undef SYS_CALL
  };
};

// Every clock shows `time`, whatever that is by then.
inline void play_clock(FakeKernel& kernel, const Nanoseconds& time) {
  kernel.hooks.clock_gettime = [&time](clockid_t, timespec* answer) {
    *answer = to_timespec(time);
    return 0;
  };
}

// The same, and it goes on by each wait, which is over at once.
inline void play_time(FakeKernel& kernel, Nanoseconds& time) {
  play_clock(kernel, time);
  kernel.hooks.ppoll = [&time](pollfd*, nfds_t, const timespec* timeout) {
    time += to_nanoseconds(*timeout);
    return 0;
  };
}

// Runs `body` with its n-th call failing, for n = 1, 2, ... until a run has no
// failure left. `body` is handed n. Answers how many calls were failed.
template <typename Body>
int for_each_failure(FakeKernel& kernel, int code, Body body) {
  constexpr int most = 2000;
  for (int n = 1; n < most; ++n) {
    kernel.fail_nth(n, code);
    body(n);
    const bool failed = kernel.has_failed();
    kernel.stop_failing();
    if (!failed) {
      return n - 1;
    }
  }
  return most;
}

}  // namespace continuity::test
