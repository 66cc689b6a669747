#include "shim/ring_issuer.hpp"

#include "core/clock.hpp"
#include "core/directory.hpp"
#include "core/log.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"
#include "core/wake.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace continuity::shim {

#if defined(__x86_64__)
namespace {

constexpr long by_index = 1 << 4;  // IORING_ENTER_REGISTERED_RING

// The call in which a thread sleeps, as /proc tells.
struct Place {
  long number = running;
  long first_argument = 0;
  long flags = 0;  // of io_uring_enter
};

// "426 0x3 0x0 0x1 0x1 0x0 0x8 0x7ffe85744308 0x7f56a3e939f7", or "running".
Place place_of(const Sys& sys, int proc, pid_t thread) {
  const std::string text = read_proc(sys, proc, compose("self/task/{}/syscall", thread));
  std::string_view line(text.data(), std::min(text.find('\n'), text.size()));
  Place place;
  std::array<std::uint64_t, 4> values{};
  if (!read_number(take_word(line), place.number, 10)) {
    return {};
  }
  for (std::uint64_t& value : values) {
    std::string_view word = take_word(line);
    if (!word.starts_with("0x") || !read_number(word.substr(2), value, 16)) {
      return {};
    }
  }
  place.first_argument = static_cast<long>(values[0]);
  place.flags = static_cast<long>(values[3]);
  return place;
}

// What is to be done by another thread, one at a time.
enum class Step : std::uint32_t { none, asked, under_way, done };
struct Request {
  std::atomic<std::uint32_t> step{0};  // a Step; a futex
  pid_t thread = 0;
  int ring = 0;
  unsigned operation = 0;
  void* argument = nullptr;
  unsigned count = 0;
  int result = 0;
  int error = 0;
};
constinit Request g_request;

constexpr auto number(Step step) {
  return static_cast<std::uint32_t>(step);
}

// Whether the registers are those of a call of io_uring_enter that waits, on this ring.
// Which call it was the kernel does not leave in them; but of all that end with EINTR
// after a signal for which calls are restarted none other has arguments like these: a
// ring, or its index, two numbers that are no pointers, and these flags.
bool waits_in_ring(const greg_t* registers, int ring) {
  constexpr greg_t longest_queue = 65'536;
  constexpr greg_t get_events = IORING_ENTER_GETEVENTS;
  constexpr greg_t all_flags = 0x7f;
  const greg_t flags = registers[REG_R10];
  const auto is_count = [](greg_t value) { return value >= 0 && value <= longest_queue; };
  return ((flags & by_index) != 0 || registers[REG_RDI] == ring) && (flags & get_events) != 0 &&
         (flags & ~all_flags) == 0 && is_count(registers[REG_RDI]) &&
         is_count(registers[REG_RSI]) && is_count(registers[REG_RDX]);
}

// io_uring_enter is never restarted after a signal, it returns EINTR (io_cqring_wait in
// io_uring/wait.c); many programs take that for the end. So it is begun again here: two
// bytes back is the instruction that made the call. The kernel has left its arguments in
// the registers, all but the number.
void begin_call_again(greg_t* registers, int ring) {
  constexpr std::array<unsigned char, 2> instruction{0x0f, 0x05};  // syscall
  if (registers[REG_RAX] != -EINTR || !waits_in_ring(registers, ring)) {
    return;
  }
  const auto made_by = static_cast<std::uintptr_t>(registers[REG_RIP]) - instruction.size();
  // NOLINTNEXTLINE(performance-no-int-to-ptr): a register's value
  const auto* const call = reinterpret_cast<const void*>(made_by);
  if (std::memcmp(call, instruction.data(), instruction.size()) == 0) {
    registers[REG_RAX] = SYS_io_uring_enter;
    registers[REG_RIP] = static_cast<greg_t>(made_by);
  }
}

void on_signal(int, siginfo_t*, void* context) {
  const ErrnoGuard guard;
  std::uint32_t asked = number(Step::asked);
  if (g_request.thread != ::gettid() ||
      !g_request.step.compare_exchange_strong(asked, number(Step::under_way))) {
    return;
  }
  g_request.result = libc_sys().io_uring_register(g_request.ring, g_request.operation,
                                                  g_request.argument, g_request.count);
  g_request.error = errno;
  begin_call_again(static_cast<ucontext_t*>(context)->uc_mcontext.gregs, g_request.ring);
  g_request.step.store(number(Step::done));
  libc_sys().futex(&g_request.step, FUTEX_WAKE_PRIVATE, 1, nullptr);
}

// The signal that makes a thread do it; 0: there is none left.
int issuer_signal() {
  static const int signal = [] {
    // Programs count real-time signals from the lowest.
    for (int one = SIGRTMAX; one >= SIGRTMIN; --one) {
      struct sigaction action {};
      if (::sigaction(one, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) {
        continue;
      }
      action.sa_sigaction = on_signal;
      action.sa_flags = SA_RESTART | SA_SIGINFO | SA_ONSTACK;
      return ::sigaction(one, &action, nullptr) == 0 ? one : 0;
    }
    return 0;
  }();
  return signal;
}

// The program may have taken it for itself since.
bool is_still_ours(int signal) {
  struct sigaction action {};
  return signal != 0 && ::sigaction(signal, nullptr, &action) == 0 &&
         action.sa_sigaction == on_signal;
}

std::uint64_t inode_of(const Sys& sys, int fd) {
  struct stat status {};
  return sys.fstat(fd, &status) == 0 ? status.st_ino : 0;
}

}  // namespace

// The only thread there is besides ours; or one that sleeps on just this ring.
pid_t ThreadIssuer::find_thread(int ring) const {
  std::vector<pid_t> others;
  const OwnedFd tasks(*sys_, sys_->openat(proc_, "self/task", O_RDONLY | O_CLOEXEC, 0));
  const auto read = for_each_number(*sys_, tasks.get(), [&](int thread) {
    if (thread != sys_->gettid()) {
      others.push_back(thread);
    }
  });
  if (!read || others.size() == 1) {
    return read ? others.front() : 0;
  }
  for (const pid_t thread : others) {
    const Place place = place_of(*sys_, proc_, thread);
    if (place.number == SYS_io_uring_enter && place.first_argument == ring &&
        (place.flags & by_index) == 0) {
      return thread;
    }
  }
  return 0;
}

bool ThreadIssuer::takes_signal(pid_t thread) const {
  const int signal = issuer_signal();
  std::uint64_t blocked = ~std::uint64_t{0};
  for_each_line(read_proc(*sys_, proc_, compose("self/task/{}/status", thread)),
                [&](std::string_view line) {
                  if (take_word(line) == "SigBlk:") {
                    read_number(take_word(line), blocked, 16);
                  }
                });
  return is_still_ours(signal) && (blocked >> (signal - 1) & 1) == 0;
}

// It may be at work, or have every signal blocked for a moment, as who forks or makes a
// thread has; and on a busy machine off its processor meanwhile.
bool ThreadIssuer::reach(int ring) {
  constexpr Nanoseconds longest = 300 * millisecond;
  constexpr Nanoseconds between = millisecond;
  const Nanoseconds deadline = after(*sys_, longest);
  for (;;) {
    const pid_t thread = find_thread(ring);
    if (thread != 0 && takes_signal(thread)) {
      threads_[inode_of(*sys_, ring)] = thread;
      return true;
    }
    if (now(*sys_) >= deadline) {
      return false;
    }
    pause_for(*sys_, between);
  }
}

int ThreadIssuer::call(int ring, unsigned operation, void* argument, unsigned count) {
  constexpr Nanoseconds longest = 100 * millisecond;
  // A successor may need it before anybody has claimed what it has.
  auto known = threads_.find(inode_of(*sys_, ring));
  if (known == threads_.end() && reach(ring)) {
    known = threads_.find(inode_of(*sys_, ring));
  }
  const int signal = issuer_signal();
  if (known == threads_.end() || !is_still_ours(signal)) {
    errno = EEXIST;
    return -1;
  }
  g_request.thread = known->second;
  g_request.ring = ring;
  g_request.operation = operation;
  g_request.argument = argument;
  g_request.count = count;
  g_request.step.store(number(Step::asked));
  if (!wake_thread(*sys_, known->second, signal)) {
    g_request.step.store(number(Step::none));
    errno = EEXIST;
    return -1;
  }
  const Nanoseconds deadline = after(*sys_, longest);
  for (;;) {
    std::uint32_t step = g_request.step.load();
    if (step == number(Step::done)) {
      errno = g_request.error;
      return g_request.result;
    }
    if (step == number(Step::asked) && now(*sys_) >= deadline &&
        g_request.step.compare_exchange_strong(step, number(Step::none))) {
      errno = EEXIST;
      return -1;
    }
    const timespec moment = to_timespec(millisecond);
    sys_->futex(&g_request.step, FUTEX_WAIT_PRIVATE, step, &moment);
  }
}
#else
// Without knowing how a call is begun again, nobody is interrupted.
bool ThreadIssuer::reach(int) {
  return false;
}
int ThreadIssuer::call(int, unsigned, void*, unsigned) {
  errno = EEXIST;
  return -1;
}
#endif

}  // namespace continuity::shim
