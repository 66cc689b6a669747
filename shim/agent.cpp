#include "shim/agent.hpp"

#include "core/directory.hpp"
#include "core/wake.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"

#include <algorithm>
#include <climits>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

// 1 while numbers move.
constinit std::atomic<std::uint32_t> g_moving{0};
constinit std::atomic<std::uint32_t> g_retire_epoch{0};
constinit std::atomic<bool> g_granted{false};
constinit std::atomic<int> g_revived{-1};
constinit std::atomic<std::uint32_t> g_revivals{0};

int wake_signal() {
  static const int signal = choose_wake_signal(real_sys());
  return signal;
}

}  // namespace

void wait_until_settled() noexcept {
  while (g_moving.load() != 0) {
    real_sys().futex(&g_moving, FUTEX_WAIT_PRIVATE, 1, nullptr);
  }
}

namespace {

void wake(AcceptSlot& slot) {
  slot.woken.store(true);
  if (!wake_thread(real_sys(), slot.thread.load(), wake_signal())) {
    slot.where.store(AcceptSlot::outside);  // cancelled, or ended, inside accept
  }
}

}  // namespace

void wake_sleepers(int fd) noexcept {
  for (AcceptSlot& slot : g_accept_slots) {
    if ((slot.where.load() & ~AcceptSlot::parked) == AcceptSlot::inside(fd)) {
      wake(slot);
    }
  }
}

std::uint32_t retire_epoch() noexcept {
  return g_retire_epoch.load();
}

// ---- The program, as an owner -------------------------------------------------------

ProcessOwner::ProcessOwner(Process& process)
    : LocalOwner(real_sys(), process.log, process.proc.get(), process.rendezvous()->directory(),
                 *this, &is_ours),
      process_(&process) {}

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

// Before a successor has copies: from then on the program must not shut a
// listener down for everybody.
Status ProcessOwner::prepare(std::vector<Item> items) {
  if (!is_alone()) {
    return Error{"several processes serve this listener, and this release restarts servers of one",
                 ENOTSUP};
  }
  revived_ = OwnedFd(sys(), sys().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  g_revived.store(revived_.get());
  g_granted.store(true);
  auto prepared = LocalOwner::prepare(std::move(items));
  if (!prepared) {
    g_granted.store(false);
  }
  return prepared;
}

// Whoever waits on the listener besides this process would go on accepting.
bool ProcessOwner::is_alone() const {
  const SharedRecord* record = process_->shared();
  if (record == nullptr) {
    return true;
  }
  const pid_t binder = record->binder.load();
  const bool master_lives = binder != 0 && binder != ::getpid() && sys().kill(binder, 0) == 0;
  return record->aside.load() == 0 && !master_lives;
}

void ProcessOwner::abandon() {
  LocalOwner::abandon();
  g_granted.store(false);
}

void ProcessOwner::revive() {
  g_granted.store(false);
  LocalOwner::revive();
  process_->set_gate(Gate::note_polls);
  g_revivals.fetch_add(1);
  const std::uint64_t one = 1;
  sys().write(revived_.get(), &one, sizeof one);
  wake_pollers();
  const DescriptorsHeld held;
  process_->handed_over.clear();
  process_->handed_over_addresses.clear();
  process_->has_handed_over = false;
}

void ProcessOwner::stop(int signal) {
  send_signal(signal);
}

// A thread that was on its way into poll while numbers moved sleeps on a
// stand-in and waits for nothing else. Its poll ends with EINTR; that of the
// others begins again.
void ProcessOwner::wake_pollers() {
  const OwnedFd tasks(sys(),
                      sys().openat(process_->proc.get(), "self/task", O_RDONLY | O_CLOEXEC, 0));
  const auto visit = [&](int thread) {
    const long call = find_call(sys(), process_->proc.get(), thread).number;
    if (call == SYS_poll || call == SYS_ppoll || call == SYS_select || call == SYS_pselect6) {
      wake_thread(sys(), thread, wake_signal());
    }
  };
  if (!for_each_number(sys(), tasks.get(), visit)) {
    process_->log.debug("threads asleep in poll cannot be found");
  }
}

// Nobody will be given anything back any more.
void ProcessOwner::forget_listeners() {
  LocalOwner::forget_listeners();
  process_->set_gate(Gate::open);
}

void ProcessOwner::withdraw() {
  process_->rendezvous()->withdraw(process_->identity, process_->generation);
}

void ProcessOwner::lock_descriptors() {
  shim::lock_descriptors();
}
void ProcessOwner::unlock_descriptors() {
  shim::unlock_descriptors();
}

void ProcessOwner::note_retired(int fd, const Listener& listener, bool blocking, bool polled) {
  g_moving.store(1);
  if (gate() != Gate::unsettled) {
    process_->set_gate(Gate::deaf);
  }
  g_retire_epoch.fetch_add(1);
  process_->retired_names[fd] = listener.address;
  process_->has_handed_over = true;
  process_->handed_over_addresses.push_back(listener.address);
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

// Who sleeps in accept on the stand-in will find the listener there, and must be
// waited for when that is retired again: it is inside from now on.
void ProcessOwner::note_reviving(int fd) {
  process_->retired_names.erase(fd);
  add_fd_flags(fd, fd_flag::listening);
  remove_fd_flags(fd, fd_flag::retired | fd_flag::blocking);
  for (AcceptSlot& slot : g_accept_slots) {
    std::int64_t asleep = AcceptSlot::inside(fd) | AcceptSlot::parked;
    slot.where.compare_exchange_strong(asleep, AcceptSlot::inside(fd));
  }
}

void ProcessOwner::note_revived(int fd) {
  wake_sleepers(fd);
}

bool ProcessOwner::clear_accepts(std::span<const int> fds, Nanoseconds deadline) {
  constexpr Nanoseconds pause_time = 20 * microsecond;
  constexpr Nanoseconds doubt_after = 5 * millisecond;
  const Sys& sys = LocalOwner::sys();
  const Nanoseconds began = now(sys);
  for (;;) {
    bool clear = true;
    for (AcceptSlot& slot : g_accept_slots) {
      const std::int64_t where = slot.where.load();
      if (std::none_of(fds.begin(), fds.end(),
                       [&](int fd) { return where == AcceptSlot::inside(fd); })) {
        continue;
      }
      // A thread that left accept by siglongjmp never said so.
      if (now(sys) - began > doubt_after &&
          find_accept(sys, process_->proc.get(), slot.thread.load()) == not_in_accept) {
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
  process.published = rendezvous;
  return agent.release();  // lives as long as the process
}

void Agent::watch(std::vector<Channel> predecessors, Nanoseconds until) {
  {
    const DescriptorsHeld held;
    for (Channel& channel : predecessors) {
      arrivals_.push_back(std::move(channel));
    }
    arrivals_until_ = until;
  }
  const std::uint64_t one = 1;
  real_sys().write(wake_.get(), &one, sizeof one);
}

void Agent::take_arrivals() {
  const DescriptorsHeld held;
  for (Channel& channel : arrivals_) {
    holder_.watch_predecessor(std::move(channel), arrivals_until_);
  }
  arrivals_.clear();
}

int revival_number() noexcept {
  const int handle = g_revived.load();
  return handle < 0 ? -1 : real_sys().number(handle);
}

std::uint32_t revivals() noexcept {
  return g_revivals.load();
}

bool Agent::has_granted() noexcept {
  return g_granted.load();
}

// No signal but libc's own reaches the thread; that one interrupts its poll.
void Agent::notice_moved() noexcept {
  if (const pid_t thread = thread_.load(); thread != 0) {
    wake_thread(real_sys(), thread, wake_signal());
  }
}

void* Agent::run(void* self) {
  ::pthread_setname_np(::pthread_self(), "continuity");
  auto* agent = static_cast<Agent*>(self);
  agent->thread_.store(::gettid());
  for (;;) {
    try {
      agent->take_arrivals();
      agent->holder_.run_once();
    } catch (const std::exception&) {
      // No memory just now. Who asked is not answered, and asks again.
      const timespec pause = to_timespec(millisecond);
      real_sys().ppoll(nullptr, 0, &pause);
    }
  }
}

}  // namespace continuity::shim
