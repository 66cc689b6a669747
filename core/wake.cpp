#include "core/wake.hpp"

#include "core/log.hpp"
#include "core/owned_fd.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/syscall.h>

namespace continuity {
namespace {

// glibc's own signal for setuid in all threads. It cannot be blocked, its
// handler does nothing for a sender that is not glibc itself, and it has
// SA_RESTART (nptl/nptl_setxid.c): just what wakes a thread out of accept.
constexpr int setxid_signal = 33;

struct KernelAction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)();
  unsigned long mask;
};

using Handler = void (*)(int);

// The kernel's answer, since libc hides its own signals.
Handler handler_of(const Sys& sys, int signal) {
  KernelAction action{};
  return sys.rt_sigaction(signal, nullptr, &action, sizeof action.mask) == 0 ? action.handler
                                                                             : SIG_DFL;
}

constinit std::atomic<void (*)()> g_action{nullptr};

void on_wake(int) {
  if (auto* action = g_action.load()) {
    const int saved = errno;
    action();
    errno = saved;
  }
}

// One that has our handler, or gets it, since nobody handles it. 0: none.
int take_signal(const Sys& sys) {
  // Programs count real-time signals from the lowest.
  for (int signal = SIGRTMAX; signal >= SIGRTMIN; --signal) {
    const Handler handler = handler_of(sys, signal);
    if (handler == on_wake) {
      return signal;
    }
    if (handler == SIG_DFL) {
      struct sigaction action {};
      action.sa_handler = on_wake;
      action.sa_flags = SA_RESTART;
      return ::sigaction(signal, &action, nullptr) == 0 ? signal : 0;
    }
  }
  return 0;
}

}  // namespace

void set_wake_action(void (*action)()) {
  g_action.store(action);
}

int choose_wake_signal(const Sys& sys) {
  if (handler_of(sys, setxid_signal) != SIG_DFL) {
    return setxid_signal;
  }
  const int signal = take_signal(sys);
  // Libc gives its own signals no handler for others; but with the one that it has given
  // to this signal, which knows how to return, the kernel does. Libc replaces it as soon
  // as it needs it.
  KernelAction made{};
  if (signal != 0 && sys.rt_sigaction(signal, nullptr, &made, sizeof made.mask) == 0 &&
      sys.rt_sigaction(setxid_signal, &made, nullptr, sizeof made.mask) == 0) {
    static_cast<void>(::signal(signal, SIG_DFL));
    return setxid_signal;
  }
  return signal;
}

int choose_acting_signal(const Sys& sys) {
  return handler_of(sys, setxid_signal) == on_wake ? setxid_signal : take_signal(sys);
}

bool wake_thread(const Sys& sys, pid_t thread, int signal) {
  siginfo_t info{};
  info.si_signo = signal;
  info.si_code = SI_QUEUE;
  info.si_pid = sys.getpid();
  return sys.tgsigqueueinfo(sys.getpid(), thread, signal, &info) == 0 || errno != ESRCH;
}

// "SigPnd:\t0000000100000000" among some fifty lines, of which that of the groups
// may be long.
bool is_pending(const Sys& sys, int proc, pid_t thread, int signal) {
  const auto path = compose("self/task/{}/status", thread);
  const OwnedFd file(sys, sys.openat(proc, path.c_str(), O_RDONLY | O_CLOEXEC, 0));
  if (!file.is_open()) {
    return errno != ENOENT;
  }
  constexpr std::string_view name = "\nSigPnd:\t";
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t size = 0; (size = sys.read(file.get(), part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(size));
  }
  const auto found = text.find(name);
  if (found == std::string::npos) {
    return true;
  }
  const auto set = std::strtoull(text.c_str() + found + name.size(), nullptr, 16);
  return signal <= 0 || (set >> (signal - 1) & 1) != 0;
}

// "43 0x3 0x7ffe... " or "running".
SleepingCall find_call(const Sys& sys, int proc, pid_t thread) {
  constexpr SleepingCall unknown{.number = running, .first_argument = running};
  const auto path = compose("self/task/{}/syscall", thread);
  const OwnedFd file(sys, sys.openat(proc, path.c_str(), O_RDONLY | O_CLOEXEC, 0));
  std::array<char, 256> text{};
  if (!file.is_open()) {
    return errno == ENOENT ? SleepingCall{.number = no_thread, .first_argument = -1} : unknown;
  }
  if (sys.read(file.get(), text.data(), text.size() - 1) <= 0) {
    return unknown;
  }
  char* end = nullptr;
  const long number = std::strtol(text.data(), &end, 10);
  if (end == text.data()) {
    return unknown;
  }
  return {.number = number, .first_argument = std::strtol(end, nullptr, 16)};
}

int find_accept(const Sys& sys, int proc, pid_t thread) {
  const SleepingCall call = find_call(sys, proc, thread);
  switch (call.number) {
    case running:
      return running;
    case SYS_accept:
    case SYS_accept4:
    case SYS_recvfrom:  // what an accept is to another, to a datagram listener
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_read:
    case SYS_readv:
      return static_cast<int>(call.first_argument);
    default:
      return not_in_accept;
  }
}

}  // namespace continuity
