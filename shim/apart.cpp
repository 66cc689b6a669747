#include "shim/apart.hpp"

#include "core/log.hpp"
#include "core/wake.hpp"
#include "shim/agent.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"
#include "shim/unlisted_thread.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>

namespace continuity::shim {
namespace {

// Of the agent's stack: what it needs itself while it waits.
constexpr std::size_t own_stack = std::size_t{16} * 1024;
// Of what the kernel says of a process, as much as there may be before the lines read here:
// the groups of one that has many come before.
constexpr std::size_t status_size = 4096;

constexpr Nanoseconds first_pause = millisecond;
constexpr Nanoseconds longest_pause = 10 * millisecond;

// Calls that begin again by themselves after a handler with SA_RESTART, unless they have a
// time-out (signal(7)); and none at all.
constexpr auto restarted = std::to_array<long>(
    {running, SYS_read, SYS_readv, SYS_recvfrom, SYS_recvmsg, SYS_wait4, SYS_waitid, SYS_flock});

constinit std::atomic<Apart*> g_current{nullptr};
constinit std::atomic<bool> g_is_deaf{false};
constinit std::atomic<bool> g_was_signalled{false};

bool change_state(ApartState from, ApartState to) noexcept {
  auto number = static_cast<std::uint32_t>(from);
  std::atomic<std::uint32_t>* word = g_apart_state.load();
  return word != nullptr && word->compare_exchange_strong(number, static_cast<std::uint32_t>(to));
}

void set_state(ApartState to) noexcept {
  g_apart_state.load()->store(static_cast<std::uint32_t>(to));
}

void wake_state() noexcept {
  real().syscall(SYS_futex, g_apart_state.load(), FUTEX_WAKE_PRIVATE, INT_MAX);
}

// While it is this, or for so long.
void await_change(ApartState state, Nanoseconds longest) noexcept {
  const timespec most = to_timespec(longest);
  real().syscall(SYS_futex, g_apart_state.load(), FUTEX_WAIT_PRIVATE,
                 static_cast<std::uint32_t>(state), &most);
}

// The helper has the agent's thread-local memory: the agent may not write to errno, as any
// call of libc's does. What the helper does before is done the same way.
void futex_alone(const std::atomic<std::uint32_t>& word, long operation, std::uint32_t value) {
#if defined(__x86_64__)
  long result = SYS_futex;
  register const void* none __asm__("r10") = nullptr;
  __asm__ volatile("syscall"
                   : "+a"(result)
                   : "D"(&word), "S"(operation), "d"(static_cast<unsigned long>(value)), "r"(none)
                   : "rcx", "r11", "memory");
#else
  static_cast<void>(word);
  static_cast<void>(operation);
  static_cast<void>(value);
#endif
}

void wait_alone(const std::atomic<std::uint32_t>& word, std::uint32_t until) {
  for (std::uint32_t seen = word.load(); seen != until; seen = word.load()) {
    futex_alone(word, FUTEX_WAIT_PRIVATE, seen);
  }
}

void set_alone(std::atomic<std::uint32_t>& word) {
  word.store(1);
  futex_alone(word, FUTEX_WAKE_PRIVATE, 1);
}

void help_current() {
  if (Apart* current = g_current.load()) {
    current->help();
  }
}

void on_signal() {
  g_was_signalled.store(true);
  help_current();
}

// All signals, those of libc's too: it hides them from sigprocmask.
class AllBlocked {
 public:
  AllBlocked() noexcept {
    const std::uint64_t all = ~std::uint64_t{0};
    real().syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, sizeof before_);
  }
  ~AllBlocked() {
    real().syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof before_);
  }
  AllBlocked(const AllBlocked&) = delete;
  AllBlocked& operator=(const AllBlocked&) = delete;

 private:
  std::uint64_t before_ = 0;
};

// A file below /proc, by the kernel's numbers, to its end or as much as there is room for.
std::string_view read_proc(int proc, const char* path, std::span<char> room) noexcept {
  const long file = real().syscall(SYS_openat, proc, path, O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) {
    return {};
  }
  std::size_t size = 0;
  for (long part = 1; part > 0 && size < room.size();) {
    part = real().syscall(SYS_read, file, room.data() + size, room.size() - size);
    size += static_cast<std::size_t>(std::max(part, 0L));
  }
  real().syscall(SYS_close, file);
  return {room.data(), size};
}

// What the kernel says of this process under this name; empty: nothing.
std::string_view status_of(std::string_view text, std::string_view name) noexcept {
  const auto at = text.find(name);
  const auto rest = at == std::string_view::npos ? "" : text.substr(at + name.size());
  return rest.substr(0, rest.find('\n'));
}

// How many filters of system calls it has; kernels before 5.9 say only whether it has any.
unsigned filters_of(std::string_view status) noexcept {
  const auto many = status_of(status, "\nSeccomp_filters:\t");
  const auto any = status_of(status, "\nSeccomp:\t");
  unsigned count = 0;
  const auto text = many.empty() ? any : many;
  std::from_chars(text.data(), text.data() + text.size(), count);
  return count;
}

int get_descriptor(int process, int number) noexcept {
  return number < 0 ? -1 : static_cast<int>(real().syscall(SYS_pidfd_getfd, process, number, 0));
}

int open_process() noexcept {
  return static_cast<int>(real().syscall(SYS_pidfd_open, real().syscall(SYS_getpid), 0));
}

}  // namespace

// ---- The agent's thread ---------------------------------------------------------------

bool Apart::prepare(int proc) noexcept {
#if defined(__x86_64__) && defined(__GLIBC__)
  std::array<char, status_size> room{};
  filters_ = filters_of(read_proc(proc, "self/status", room));
  return !has_sanitizer();
#else
  static_cast<void>(proc);
  return false;
#endif
}

void Apart::begin(std::span<std::byte> stack, void (*work)(void*), void* argument,
                  int wake) noexcept {
  // Where libc has made the thread its thread-local memory is there, too.
  const auto* const frame = static_cast<const std::byte*>(__builtin_frame_address(0));
  const auto below = static_cast<std::size_t>(frame - stack.data());
  stack_ = stack.first((below - own_stack) / alignof(std::max_align_t) * alignof(std::max_align_t));
  work_ = work;
  argument_ = argument;
  wake_ = wake;
  process_ = real_sys().getpid();
  thread_memory_ = std::bit_cast<void*>(::pthread_self());
  // At once, so that the program has as many descriptors later as now.
  bell_ = OwnedFd(real_sys(), real_sys().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

// Where the program has more threads than one they share its table anyway, and could not all
// be held. And a filter of system calls that it has since the agent was made might end who
// makes another thread.
bool Apart::may_part(int proc) const noexcept {
  std::array<char, status_size> room{};
  const auto status = read_proc(proc, "self/status", room);
  return status_of(status, "\nThreads:\t") == "2" && filters_of(status) == filters_;
}

bool Apart::ask_to_part(int proc) noexcept {
  auto open = static_cast<std::uint32_t>(Gate::open);
  if (!may_part(proc) || !bell_.is_open() || (gate() != Gate::open && gate() != Gate::with_bell)) {
    return false;
  }
  g_current.store(this);
  g_has_bell.store(true);
  g_gate.load()->compare_exchange_strong(open, static_cast<std::uint32_t>(Gate::with_bell));
  return change_state(ApartState::together, ApartState::wanted);
}

void Apart::stay() noexcept {
  if (change_state(ApartState::held, ApartState::together)) {
    wake_state();
  }
}

// The program's thread does nothing meanwhile: what it closed while this thread had copies of
// everything would not be closed, and its epolls would go on to tell of it.
bool Apart::part(const Watched& watched) noexcept {
  if (!change_state(ApartState::held, ApartState::parting)) {
    return false;
  }
  // What is needed afterwards is tried before.
  const int process = open_process();
  const int copy = process < 0 ? -1 : get_descriptor(process, watched.proc);
  const bool may_copy = copy >= 0 && may_part(watched.proc);
  for (const int made : {process, copy}) {
    if (made >= 0) {
      real().syscall(SYS_close, made);
    }
  }
  const bool has_parted =
      may_copy && real().syscall(SYS_close_range, 0U, ~0U, CLOSE_RANGE_UNSHARE) == 0;
  if (has_parted) {
    set_wake_action(&on_signal);
    watch(watched);
  }
  if (!has_parted) {
    // Nobody rings.
    auto open = static_cast<std::uint32_t>(Gate::with_bell);
    g_has_bell.store(false);
    g_gate.load()->compare_exchange_strong(open, static_cast<std::uint32_t>(Gate::open));
  }
  set_state(has_parted ? ApartState::apart : ApartState::together);
  wake_state();
  return has_parted;
}

void Apart::watch(const Watched& watched) noexcept {
  real().syscall(SYS_close_range, 0U, ~0U, 0U);
  const int process = open_process();
  copies_.bells = get_descriptor(process, watched.bells);
  copies_.leader = get_descriptor(process, watched.leader);
  copies_.door = get_descriptor(process, watched.door);
  copies_.proc = get_descriptor(process, watched.proc);
  own_bell_ = get_descriptor(process, real_sys().number(bell_.get()));
  watches_all_ = copies_.bells >= 0 && (copies_.leader >= 0) == (watched.leader >= 0) &&
                 (copies_.door >= 0) == (watched.door >= 0);
  real().syscall(SYS_close, process);
}

bool Apart::wait(Nanoseconds until) noexcept {
  const Nanoseconds time = now(real_sys());
  if (!watches_all_ || apart_state() != ApartState::apart) {
    return true;
  }
  std::array<pollfd, 3> fds{pollfd{.fd = copies_.bells, .events = POLLIN, .revents = 0},
                            pollfd{.fd = copies_.leader, .events = POLLIN, .revents = 0},
                            pollfd{.fd = copies_.door, .events = POLLIN, .revents = 0}};
  const timespec timeout = to_timespec(until == never ? never : until - time);
  return real().ppoll(fds.data(), fds.size(), until == never ? nullptr : &timeout, nullptr) > 0 ||
         apart_state() != ApartState::apart;
}

void Apart::be_helped() noexcept {
  const Nanoseconds began = now(real_sys());
  Nanoseconds pause = first_pause;
  Look where{};
  // Not until it is there: that it was about to be made does not say that it could be.
  while (helper_.load() == 0) {
    change_state(ApartState::apart, ApartState::asked);
    ring_bell();
    await_change(ApartState::asked, pause);
    const Nanoseconds waited = now(real_sys()) - began;
    pause = std::min(2 * pause, waited < second ? longest_pause : 10 * longest_pause);
    signal_if_late(waited, where);
  }
  real().syscall(SYS_close_range, 0U, ~0U, 0U);
  set_alone(go_);
  wait_alone(ended_, 1);
  // The kernel tells of the end of a thread as of what processes share.
  for (std::uint32_t thread = helper_.load(); thread != 0; thread = helper_.load()) {
    futex_alone(helper_, FUTEX_WAIT, thread);
  }
  go_.store(0);
  ended_.store(0);
  g_was_signalled.store(false);
  set_state(ApartState::apart);
}

void Apart::ring_bell() const noexcept {
  const std::uint64_t one = 1;
  real().syscall(SYS_write, own_bell_, &one, sizeof one);
}

// Where the program's thread is; running: in its own code.
Apart::Look Apart::look() const noexcept {
  std::array<char, status_size> room{};
  constexpr std::string_view tasks = "self/task/";
  std::array<char, 48> path{};
  const auto read = [&](std::string_view file) {
    char* end = std::copy(tasks.begin(), tasks.end(), path.data());
    end = std::to_chars(end, path.data() + path.size(), process_).ptr;
    *std::copy(file.begin(), file.end(), end) = 0;
    return read_proc(copies_.proc, path.data(), room);
  };
  Look found{.call = running};
  const auto number = [](std::string_view text, auto& value) {
    std::from_chars(text.data(), text.data() + text.size(), value);
  };
  const auto status = read("/status");
  found.may_be_signalled = filters_of(status) == filters_;
  number(status_of(status, "\nvoluntary_ctxt_switches:\t"), found.sleeps);
  number(read("/syscall"), found.call);
  return found;
}

// It is somewhere else than in a wait on its epoll. Who is in its own code, or in a call that
// begins again by itself, and has been for a while, is interrupted soon; what a signal ends or
// leaves half done only where it takes very long.
void Apart::signal_if_late(Nanoseconds waited, Look& before) const noexcept {
  constexpr Nanoseconds soon = 10 * millisecond;
  constexpr Nanoseconds late = 500 * millisecond;
  if (waited < soon || apart_state() != ApartState::asked) {
    return;
  }
  const Look now = look();
  const bool is_there_still = now.call == before.call && now.sleeps == before.sleeps;
  before = now;
  if (now.may_be_signalled &&
      (waited >= late || (is_there_still && std::find(restarted.begin(), restarted.end(),
                                                      now.call) != restarted.end()))) {
    wake_thread(real_sys(), process_, choose_acting_signal(real_sys()));
  }
}

// ---- The program's threads ------------------------------------------------------------

void Apart::join_wait(int epoll) {
  constexpr Nanoseconds patience = 50 * millisecond;
  const Sys& sys = real_sys();
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = bell_data}};
  if (real().epoll_ctl(epoll, EPOLL_CTL_ADD, sys.number(bell_.get()), &event) != 0 &&
      errno != EEXIST) {
    change_state(ApartState::wanted, ApartState::together);
    return;
  }
  g_bell_epoll.store(epoll);
  if (!change_state(ApartState::wanted, ApartState::held)) {
    return;
  }
  ring(sys, wake_);
  const Nanoseconds deadline = after(sys, patience);
  for (ApartState state = apart_state(); state == ApartState::held || state == ApartState::parting;
       state = apart_state()) {
    // It may be waiting for the slow path.
    if (state == ApartState::held && now(sys) >= deadline &&
        change_state(ApartState::held, ApartState::together)) {
      return;
    }
    await_change(state, millisecond);
  }
}

void Apart::help() noexcept {
  make_helper(ApartState::asked);
}

void Apart::help_meanwhile() noexcept {
  g_is_deaf.store(true);
  if (make_helper(ApartState::asked) || make_helper(ApartState::apart)) {
    ring(real_sys(), wake_);
  }
}

bool Apart::is_deaf() noexcept {
  return g_is_deaf.load();
}

bool Apart::make_helper(ApartState from) noexcept {
  constexpr int flags = thread_flags | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  if (apart_state() != from) {
    return false;
  }
  const ErrnoGuard guard;
  const AllBlocked blocked;
  // A vfork child has our memory, and would make a thread of its own.
  if (real_sys().getpid() != process_ || !change_state(from, ApartState::helped)) {
    return false;
  }
  std::byte* const top = stack_.data() + stack_.size();
  if (::clone(&begin_helper, top, flags, this, &helper_, thread_memory_, &helper_) < 0) {
    set_state(from);
    return false;
  }
  wake_state();
  return true;
}

int Apart::begin_helper(void* self) {
  auto* apart = static_cast<Apart*>(self);
  wait_alone(apart->go_, 1);
  apart->work_(apart->argument_);
  set_alone(apart->ended_);
  return 0;
}

namespace {

void before_wait_with_bell(int epoll) noexcept {
  g_was_signalled.store(false, std::memory_order_relaxed);
  if (g_is_deaf.load(std::memory_order_relaxed)) {
    g_is_deaf.store(false);
  }
  const ApartState state = apart_state();
  if (state == ApartState::asked) {
    help_current();
  }
  if (state == ApartState::together ||
      (state != ApartState::wanted && epoll == g_bell_epoll.load())) [[likely]] {
    return;
  }
  try {
    const SlowPath process(Process::existing());
    if (process && process->agent != nullptr) {
      process->agent->join_wait(epoll);
    }
  } catch (...) {  // no memory: the next wait tries again
  }
}

// How many there are without it.
int remove_bell(epoll_event* events, int count) noexcept {
  const std::span<epoll_event> all(events, static_cast<std::size_t>(count));
  const auto end = std::remove_if(
      all.begin(), all.end(), [](const epoll_event& event) { return event.data.u64 == bell_data; });
  return static_cast<int>(end - all.begin());
}

// A tenth of the price. It is behind the time: by up to two ticks (up to 7.7 ms of 4 ms where a
// processor was idle), and where the processor that keeps it is kept from running, as a guest's
// may be, by the MAX_STALLED_JIFFIES (5) after which another one keeps it.
timespec coarse_time() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return time;
}

// Of one that began then by that clock; never less than there is.
Nanoseconds rest_of(Nanoseconds timeout, const timespec& began) noexcept {
  timespec tick{};
  ::clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
  constexpr Nanoseconds ticks_behind = 2 + 5;
  const Nanoseconds passed = to_nanoseconds(coarse_time()) - to_nanoseconds(began);
  return std::max<Nanoseconds>(timeout + ticks_behind * to_nanoseconds(tick) - passed, 0);
}

// wait(timeout) has returned this. Where there was nothing but the bell, again for what is
// left of it.
template <typename Wait>
int end_wait_with_bell(epoll_event* events, Nanoseconds timeout, int count, const timespec& began,
                       Wait wait) {
  const bool ends = timeout > 0 && timeout != never;
  for (;;) {
    if (apart_state() == ApartState::asked) {
      help_current();
    }
    // By us: it had left its own code since it was looked at.
    const bool was_ours = count < 0 && errno == EINTR && g_was_signalled.exchange(false);
    if (count <= 0 && !was_ours) {
      return count;
    }
    if (const int left = was_ours ? 0 : remove_bell(events, count); left > 0) {
      return left;
    }
    count = wait(ends ? rest_of(timeout, began) : timeout);
  }
}

template <typename Wait>
int wait_with_bell(int epoll, epoll_event* events, Nanoseconds timeout, Wait wait) {
  before_wait_with_bell(epoll);
  const timespec began = coarse_time();
  return end_wait_with_bell(events, timeout, wait(timeout), began, wait);
}

Nanoseconds in_nanoseconds(int timeout) {
  return timeout < 0 ? never : timeout * millisecond;
}

// Never less.
int in_milliseconds_of_epoll(Nanoseconds timeout) {
  return timeout == never ? -1 : static_cast<int>((timeout + millisecond - 1) / millisecond);
}

}  // namespace

int epoll_wait_with_bell(int epoll, epoll_event* events, int room, int timeout) {
  return wait_with_bell(epoll, events, in_nanoseconds(timeout), [&](Nanoseconds rest) {
    return real().epoll_wait(epoll, events, room, in_milliseconds_of_epoll(rest));
  });
}

int end_epoll_wait_with_bell(int epoll, epoll_event* events, int room, int timeout, int count,
                             const timespec& began) {
  return end_wait_with_bell(events, in_nanoseconds(timeout), count, began, [&](Nanoseconds rest) {
    return real().epoll_wait(epoll, events, room, in_milliseconds_of_epoll(rest));
  });
}

int epoll_pwait_with_bell(int epoll, epoll_event* events, int room, int timeout,
                          const sigset_t* mask) {
  return wait_with_bell(epoll, events, in_nanoseconds(timeout), [&](Nanoseconds rest) {
    return real().epoll_pwait(epoll, events, room, in_milliseconds_of_epoll(rest), mask);
  });
}

int epoll_pwait2_with_bell(int epoll, epoll_event* events, int room, const timespec* timeout,
                           const sigset_t* mask) {
  constexpr std::int64_t longest = 1'000'000'000;  // seconds, that a number of ns has room for
  const bool ends = timeout != nullptr && timeout->tv_sec >= 0 && timeout->tv_sec < longest;
  const Nanoseconds time = ends ? to_nanoseconds(*timeout) : never;
  return wait_with_bell(epoll, events, time, [&](Nanoseconds rest) {
    const timespec left = to_timespec(rest);
    return real().epoll_pwait2(epoll, events, room, rest == never ? timeout : &left, mask);
  });
}

void before_deaf_wait() noexcept {
  if (Apart* current = g_current.load(); current != nullptr) {
    current->help_meanwhile();
  }
}

}  // namespace continuity::shim
