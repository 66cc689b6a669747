#include "core/wake.hpp"

#include "core/log.hpp"
#include "core/owned_fd.hpp"

#include <array>
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

// The kernel's answer, since libc hides its own signals.
bool has_handler(const Sys& sys, int signal) {
  KernelAction action{};
  return sys.rt_sigaction(signal, nullptr, &action, sizeof action.mask) == 0 &&
         action.handler != SIG_DFL;
}

void do_nothing(int) {}

}  // namespace

int choose_wake_signal(const Sys& sys) {
  if (has_handler(sys, setxid_signal)) {
    return setxid_signal;
  }
  // Programs count real-time signals from the lowest.
  for (int signal = SIGRTMAX; signal >= SIGRTMIN; --signal) {
    if (!has_handler(sys, signal)) {
      struct sigaction action {};
      action.sa_handler = do_nothing;
      action.sa_flags = SA_RESTART;
      if (::sigaction(signal, &action, nullptr) != 0) {
        return 0;
      }
      // Libc gives its own signals no handler for others; but with the one that it has given
      // to this signal, which knows how to return, the kernel does. Libc replaces it as soon
      // as it needs it.
      KernelAction made{};
      if (sys.rt_sigaction(signal, nullptr, &made, sizeof made.mask) == 0 &&
          sys.rt_sigaction(setxid_signal, &made, nullptr, sizeof made.mask) == 0) {
        action.sa_handler = SIG_DFL;
        ::sigaction(signal, &action, nullptr);
        return setxid_signal;
      }
      return signal;
    }
  }
  return 0;
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
