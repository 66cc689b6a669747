#include "shim/agent.hpp"

#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"

namespace continuity::shim {
namespace {

// glibc's own signal for setuid in all threads. It cannot be blocked, its
// handler does nothing for a sender that is not glibc itself, and it has
// SA_RESTART (nptl/nptl_setxid.c): just what wakes a thread out of accept.
constexpr int setxid_signal = 33;

// 1 while numbers move.
constinit std::atomic<std::uint32_t> g_moving{0};
constinit std::atomic<std::uint32_t> g_retire_epoch{0};

// The kernel's answer, since libc hides its own signals.
bool has_handler(int signal) {
  struct {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
  } action{};
  return ::syscall(SYS_rt_sigaction, signal, nullptr, &action, sizeof action.mask) == 0 &&
         action.handler != SIG_DFL;
}

void do_nothing(int) {}

// Where glibc has no such handler: a real-time signal nobody uses, the highest
// first, since programs count from the lowest.
int choose_wake_signal() {
  if (has_handler(setxid_signal)) {
    return setxid_signal;
  }
  for (int signal = SIGRTMAX; signal >= SIGRTMIN; --signal) {
    if (!has_handler(signal)) {
      struct sigaction action {};
      action.sa_handler = do_nothing;
      action.sa_flags = SA_RESTART;
      return ::sigaction(signal, &action, nullptr) == 0 ? signal : 0;
    }
  }
  return 0;
}

int wake_signal() {
  static const int signal = choose_wake_signal();
  return signal;
}

}  // namespace

void wait_until_settled() noexcept {
  while (g_moving.load() != 0) {
    real_sys().futex(&g_moving, FUTEX_WAIT_PRIVATE, 1, nullptr);
  }
}

std::uint32_t retire_epoch() noexcept { return g_retire_epoch.load(); }

// ---- The program, as an owner -------------------------------------------------------

ProcessOwner::ProcessOwner(Process& process)
    : process_(&process),
      retirement_(real_sys(), process.proc.get(), process.rendezvous()->directory(), *this,
                  &is_ours) {}

std::vector<Owner::Item> ProcessOwner::inventory() {
  std::vector<Item> items;
  const DescriptorsHeld held;
  const Sys& sys = real_sys();
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & fd_flag::listening) == 0 || !is_listening(sys, fd)) {
      continue;
    }
    const std::uint64_t inode = socket_inode(sys, fd);
    const bool known = std::any_of(items.begin(), items.end(),
                                   [&](const Item& item) { return item.inode == inode; });
    auto listener = describe_socket(sys, fd);
    if (known || !listener || !listener->address.is_supported()) {
      continue;
    }
    if (const auto file = process_->socket_files.find(inode);
        file != process_->socket_files.end()) {
      listener->file = file->second;
    }
    items.push_back({.listener = std::move(*listener), .fd = fd, .inode = inode});
  }
  return items;
}

Status ProcessOwner::prepare(std::vector<Item> items) {
  return retirement_.prepare(std::move(items));
}

void ProcessOwner::abandon() { retirement_.abandon(); }
int ProcessOwner::descriptor(std::uint32_t id) { return retirement_.copy_of(id); }

bool ProcessOwner::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  return retirement_.retire(ids, deadline);
}

void ProcessOwner::sweep() { retirement_.sweep(); }
void ProcessOwner::revive() {
  retirement_.revive();
  const DescriptorsHeld held;
  process_->handed_over.clear();
  process_->has_handed_over = false;
}

void ProcessOwner::forget_listeners() { retirement_.forget_listeners(); }

unsigned ProcessOwner::connections() {
  // Most looks find the connection of the look before: one call, not one per
  // descriptor.
  const Sys& sys = real_sys();
  if (last_seen_.count > 0 && last_seen_.example_inode != 0 &&
      socket_inode(sys, last_seen_.example) == last_seen_.example_inode) {
    return last_seen_.count;
  }
  const auto addresses = retirement_.addresses();
  Descriptors descriptors(sys, process_->proc.get());
  const auto found = descriptors.find_connections(addresses, &is_ours);
  if (!found) {
    // Not knowing is no reason to cut anybody off.
    return std::max(last_seen_.count, 1U);
  }
  last_seen_ = *found;
  return last_seen_.count;
}

// An address nobody claimed. What its queue holds has been promised an answer:
// no newcomer is let in, and the program accepts until the queue is empty.
void ProcessOwner::close_listeners(std::span<const std::uint32_t> ids) {
  const Sys& sys = real_sys();
  constexpr Nanoseconds longest = second;
  const Nanoseconds deadline = after(sys, longest);
  for (const std::uint32_t id : ids) {
    const int fd = retirement_.copy_of(id);
    const auto listener = describe_socket(sys, fd);
    if (!listener || listener->address.is_unix() ||
        !close_to_newcomers(sys, fd, listener->address.family())) {
      process_->log.debug("a listener nobody claimed cannot be closed to newcomers first");
    }
  }
  for (const std::uint32_t id : ids) {
    tcp_info info{};
    socklen_t size = sizeof info;
    // For a listener this is the length of its queue (tcp_get_info).
    while (sys.getsockopt(retirement_.copy_of(id), IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
           info.tcpi_unacked > 0 && now(sys) < deadline) {
      const timespec pause = to_timespec(millisecond);
      sys.ppoll(nullptr, 0, &pause);
    }
  }
  retirement_.retire(ids, deadline);
  retirement_.sweep();
  retirement_.forget_listeners();
}

void ProcessOwner::send_signal(int signal) { real_sys().kill(::getpid(), signal); }

void ProcessOwner::withdraw() {
  process_->rendezvous()->withdraw(process_->identity, process_->generation);
}

void ProcessOwner::lock_descriptors() { shim::lock_descriptors(); }
void ProcessOwner::unlock_descriptors() { shim::unlock_descriptors(); }

void ProcessOwner::note_retired(int fd, const Listener& listener, bool blocking, bool polled) {
  g_moving.store(1);
  g_retire_epoch.fetch_add(1);
  process_->retired_names[fd] = listener.address;
  process_->has_handed_over = true;
  if (listener.file.inode != 0) {
    process_->handed_over.push_back(listener.file);
  }
  remove_fd_flags(fd, fd_flag::listening | fd_flag::claimed);
  add_fd_flags(fd, static_cast<std::uint8_t>(fd_flag::retired | (blocking ? fd_flag::blocking : 0) |
                                             (polled ? fd_flag::polled : 0)));
}

void ProcessOwner::note_settled() {
  g_moving.store(0);
  real_sys().futex(&g_moving, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr);
}

void ProcessOwner::note_revived(int fd) {
  process_->retired_names.erase(fd);
  add_fd_flags(fd, fd_flag::listening);
  remove_fd_flags(fd, fd_flag::retired | fd_flag::blocking);
  for (AcceptSlot& slot : g_accept_slots) {
    if (slot.where.load() == (AcceptSlot::inside(fd) | AcceptSlot::parked)) {
      wake(slot);
    }
  }
}

void ProcessOwner::wake(AcceptSlot& slot) {
  const int signal = wake_signal();
  siginfo_t info{};
  info.si_signo = signal;
  info.si_code = SI_QUEUE;
  info.si_pid = ::getpid();
  slot.woken.store(true);
  const pid_t thread = slot.thread.load();
  if (real_sys().tgsigqueueinfo(::getpid(), thread, signal, &info) != 0 && errno == ESRCH) {
    slot.where.store(AcceptSlot::outside);  // cancelled, or ended, inside accept
  }
}

// A thread that left accept by siglongjmp never said so. /proc tells: the
// number of the system call it is in, or that it runs.
bool ProcessOwner::is_really_inside(pid_t thread) {
  const Sys& sys = real_sys();
  const auto path = compose("self/task/{}/syscall", thread);
  const OwnedFd file(sys, sys.openat(process_->proc.get(), path.c_str(), O_RDONLY | O_CLOEXEC, 0));
  std::array<char, 128> text{};
  if (!file.is_open()) {
    return errno != ENOENT;
  }
  if (sys.read(file.get(), text.data(), text.size() - 1) <= 0) {
    return true;
  }
  char* end = text.data();
  const long number = std::strtol(text.data(), &end, 10);
  return end == text.data() || number == SYS_accept || number == SYS_accept4;
}

bool ProcessOwner::clear_accepts(std::span<const int> fds, Nanoseconds deadline) {
  constexpr Nanoseconds pause_time = 20 * microsecond;
  constexpr Nanoseconds doubt_after = 5 * millisecond;
  const Sys& sys = real_sys();
  const Nanoseconds began = now(sys);
  for (;;) {
    bool clear = true;
    for (AcceptSlot& slot : g_accept_slots) {
      const std::int64_t where = slot.where.load();
      if (std::none_of(fds.begin(), fds.end(),
                       [&](int fd) { return where == AcceptSlot::inside(fd); })) {
        continue;
      }
      if (now(sys) - began > doubt_after && !is_really_inside(slot.thread.load())) {
        slot.where.store(AcceptSlot::outside);
        continue;
      }
      clear = false;
      wake(slot);
    }
    if (clear || now(sys) > deadline) {
      return clear;
    }
    const timespec pause = to_timespec(pause_time);
    sys.ppoll(nullptr, 0, &pause);
  }
}

// ---- The thread -----------------------------------------------------------------------

Agent::Agent(Process& process, OwnedFd door, OwnedFd wake)
    : door_(std::move(door)),
      wake_(std::move(wake)),
      owner_(process),
      holder_(real_sys(), process.log, process.options, owner_,
              {.identity = process.identity, .generation = process.generation}, door_.get(),
              wake_.get()) {}

Agent* Agent::start(Process& process, std::vector<Channel> predecessors,
                    Nanoseconds probation_ends) {
  const Sys& sys = real_sys();
  Rendezvous* rendezvous = process.rendezvous();
  if (rendezvous == nullptr) {
    return nullptr;
  }
  const auto give_up = [&](const char* step, int code) -> Agent* {
    process.log.error("{}: {}; this program cannot be restarted without loss", step,
                      error_text(code));
    return nullptr;
  };
  OwnedFd wake(sys, sys.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.is_open()) {
    return give_up("make an eventfd", errno);
  }
  auto door = rendezvous->publish(process.identity, process.generation);
  if (!door) {
    return give_up(door.error().step, door.error().code);
  }
  auto agent = std::unique_ptr<Agent>(new Agent(process, std::move(*door), std::move(wake)));
  for (Channel& channel : predecessors) {
    agent->holder_.watch_predecessor(std::move(channel), probation_ends);
  }
  // Signals are blocked here, in the slow path, and so in the new thread.
  constexpr std::size_t stack_size = std::size_t{256} * 1024;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, stack_size);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread{};
  const int failed = ::pthread_create(&thread, &attributes, &Agent::run, agent.get());
  ::pthread_attr_destroy(&attributes);
  if (failed != 0) {
    rendezvous->withdraw(process.identity, process.generation);
    return give_up("start a thread", failed);
  }
  return agent.release();  // lives as long as the process
}

void* Agent::run(void* self) {
  ::pthread_setname_np(::pthread_self(), "continuity");
  auto* agent = static_cast<Agent*>(self);
  for (;;) {
    try {
      agent->holder_.run_once();
    } catch (const std::exception&) {
      // No memory just now. Who asked is not answered, and asks again.
      const timespec pause = to_timespec(millisecond);
      real_sys().ppoll(nullptr, 0, &pause);
    }
  }
}

}  // namespace continuity::shim
