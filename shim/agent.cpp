#include "shim/agent.hpp"

#include "core/directory.hpp"
#include "core/wake.hpp"
#include "shim/atomic_number.hpp"
#include "shim/hiding.hpp"
#include "shim/hooks.hpp"
#include "shim/manager.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"
#include "shim/unlisted_thread.hpp"
#include "shim/waits.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unordered_set>

namespace continuity::shim {
namespace {

// 1 while numbers move.
constinit std::atomic<std::uint32_t> g_moving{0};
constinit std::atomic<std::uint32_t> g_retire_epoch{0};
constinit std::atomic<bool> g_granted{false};
constinit AtomicNumber g_revived;
constinit std::atomic<std::uint32_t> g_revivals{0};
constinit AtomicNumber g_bed;

int wake_signal() {
  static const int signal = choose_wake_signal(real_sys());
  return signal;
}

}  // namespace

bool register_barrier(const Sys& sys) noexcept {
  return sys.membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

bool are_numbers_moving() noexcept {
  return g_moving.load() != 0;
}

void wait_until_settled() noexcept {
  while (are_numbers_moving()) {
    real_sys().futex(&g_moving, FUTEX_WAIT_PRIVATE, 1, nullptr);
  }
}

namespace {

// After this every thread has said where it is, or sees what has been written to
// flags and numbers before: accepts that go the short way have no barrier.
void make_accepts_visible() {
  const Sys& sys = real_sys();
  if (!short_ways_are_allowed() || sys.membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) {
    return;
  }
  // No memory, or a seccomp filter since the start. No processor keeps a store
  // to itself for this long, and from now on every thread has its own barrier.
  allow_short_ways(false);
  pause_for(sys, millisecond);
}

void wake(AcceptSlot& slot) {
  slot.woken.store(true);
  if (!wake_thread(real_sys(), slot.thread.load(), wake_signal())) {
    slot.where.store(AcceptSlot::outside);  // cancelled, or ended, inside accept
  }
}

}  // namespace

void wake_sleepers(int fd) noexcept {
  make_accepts_visible();
  for (AcceptSlot& slot : used_accept_slots()) {
    if ((slot.where.load() & ~AcceptSlot::parked) == AcceptSlot::inside(fd)) {
      wake(slot);
    }
  }
}

void forget_moving() noexcept {
  g_moving.store(0);
}

std::uint32_t retire_epoch() noexcept {
  return g_retire_epoch.load();
}

// ---- The program, as an owner -------------------------------------------------------

ProcessOwner::ProcessOwner(Process& process)
    : LocalOwner(real_sys(), process.log, process.proc.get(), process.rendezvous()->directory(),
                 *this, &is_ours),
      process_(&process),
      issuer_(real_sys(), process.proc.get()) {}

std::vector<Owner::Item> ProcessOwner::inventory() {
  std::vector<Item> items;
  std::unordered_set<std::uint64_t> known;
  const DescriptorsHeld held;
  const Sys& sys = real_sys();
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & (fd_flag::listening | fd_flag::bound)) == 0 || !receives_work(sys, fd)) {
      continue;
    }
    const std::uint64_t inode = socket_inode(sys, fd);
    auto listener = describe_socket(sys, fd);
    if (!listener || !listener->address.is_supported() || !known.insert(inode).second) {
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

// Also what it has claimed, or only bound.
bool ProcessOwner::holds(std::span<const std::uint64_t> inodes) {
  constexpr std::uint8_t ours = fd_flag::listening | fd_flag::claimed | fd_flag::bound;
  const DescriptorsHeld held;
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & ours) != 0 &&
        std::find(inodes.begin(), inodes.end(), socket_inode(real_sys(), fd)) != inodes.end()) {
      return true;
    }
  }
  return false;
}

// Before a successor has copies: from then on the program must not shut a
// listener down for everybody.
Status ProcessOwner::prepare(std::vector<Item> items) {
  revived_ = OwnedFd(sys(), sys().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  g_revived.store(revived_.get());
  make_bed(items);
  g_granted.store(true);
  auto prepared = LocalOwner::prepare(std::move(items));
  if (!prepared) {
    g_granted.store(false);
  }
  return prepared;
}

Status ProcessOwner::prepare_late(std::vector<Item> items) {
  make_bed(items);
  return LocalOwner::prepare_late(std::move(items));
}

void ProcessOwner::make_bed(const std::vector<Item>& items) {
  const bool datagrams = std::any_of(items.begin(), items.end(),
                                     [](const Item& item) { return item.listener.is_datagram(); });
  if (datagrams && !bed_.is_open()) {
    bed_ = OwnedFd(sys(), sys().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    g_bed.store(bed_.get());
  }
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
  ring(sys(), revived_.get());
  wake_pollers();
  // Who sleeps there reads the end. Who comes later has seen that nothing is retired.
  sys().shutdown(bed_.get(), SHUT_RD);
  bed_.reset();
  g_bed.store(-1);
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

void ProcessOwner::name_main_process(pid_t main) {
  tell_main_process(main);
}

void ProcessOwner::withdraw() {
  process_->rendezvous()->withdraw(process_->identity, process_->page->generation);
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
  if (process_->hidden && !process_->has_handed_over) {
    process_->hidden->note_own();
  }
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
  for (AcceptSlot& slot : used_accept_slots()) {
    std::int64_t asleep = AcceptSlot::inside(fd) | AcceptSlot::parked;
    slot.where.compare_exchange_strong(asleep, AcceptSlot::inside(fd));
  }
}

void ProcessOwner::note_revived(int fd) {
  wake_sleepers(fd);
}

bool ProcessOwner::is_waited_for(int fd) const {
  return (fd_flags(fd) & fd_flag::polled) != 0 ||
         std::ranges::any_of(used_accept_slots(), [&](const AcceptSlot& slot) {
           return slot.called.load() == AcceptSlot::inside(fd);
         });
}

bool ProcessOwner::clear_sends(int fd, Nanoseconds deadline) {
  constexpr Nanoseconds pause_time = 20 * microsecond;
  const Sys& sys = LocalOwner::sys();
  const auto sends = [&](const AcceptSlot& slot) {
    return slot.where.load() == (AcceptSlot::inside(fd) | AcceptSlot::sends);
  };
  while (std::ranges::any_of(used_accept_slots(), sends)) {
    if (now(sys) > deadline) {
      return false;
    }
    pause_for(sys, pause_time);
  }
  return true;
}

bool ProcessOwner::clear_accepts(std::span<const int> fds, Nanoseconds deadline) {
  constexpr Nanoseconds pause_time = 20 * microsecond;
  constexpr Nanoseconds doubt_after = 5 * millisecond;
  const Sys& sys = LocalOwner::sys();
  const Nanoseconds began = now(sys);
  make_accepts_visible();
  for (;;) {
    bool clear = true;
    for (AcceptSlot& slot : used_accept_slots()) {
      const std::int64_t where = slot.where.load();
      if (std::none_of(fds.begin(), fds.end(),
                       [&](int fd) { return where == AcceptSlot::inside(fd); })) {
        continue;
      }
      // A thread that left the call by siglongjmp never said so.
      if (now(sys) - began > doubt_after) {
        const int found = find_accept(sys, process_->proc.get(), slot.thread.load());
        if (found != running && AcceptSlot::inside(found) != where) {
          slot.where.store(AcceptSlot::outside);
          continue;
        }
      }
      clear = false;
      wake(slot);
    }
    if (clear || now(sys) > deadline) {
      return clear;
    }
    pause_for(sys, pause_time);
  }
}

// ---- The thread -----------------------------------------------------------------------

namespace {

constexpr std::size_t stack_needed = agent_stack_size / 2;
// For an agent that may be waiting for what a thread of the program's has.
constexpr Nanoseconds patience = 200 * millisecond;

}  // namespace

Agent::Agent(Process& process, OwnedFd wake, OwnedFd bells)
    : process_(&process),
      wake_(std::move(wake)),
      bells_(std::move(bells)),
      owner_(process),
      ring_watch_(process, owner_),
      generation_(real_sys(), process.log, *process.page, owner_, process.proc.get(),
                  {.bell = process.ties.bell.get(),
                   .offers = process.ties.offers.get(),
                   .offering = process.ties.offering.get(),
                   .page = process.page_memory(),
                   .door = process.ties.door.get()}) {}

Agent* Agent::start(Process& process) {
  const Sys& sys = real_sys();
  const auto give_up = [&](const char* step, int code) -> Agent* {
    process.log.error("{}: {}; this program cannot be restarted without loss", step,
                      error_text(code));
    return nullptr;
  };
  if (!process.tie()) {
    return nullptr;
  }
  OwnedFd wake(sys, sys.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  OwnedFd bells(sys, sys.epoll_create1(EPOLL_CLOEXEC));
  epoll_event each_ring{.events = EPOLLIN | EPOLLET, .data = {.u64 = 0}};
  if (!wake.is_open() || !bells.is_open() ||
      sys.epoll_ctl(bells.get(), EPOLL_CTL_ADD, wake.get(), &each_ring) != 0 ||
      sys.epoll_ctl(bells.get(), EPOLL_CTL_ADD, process.ties.bell.get(), &each_ring) != 0) {
    return give_up("make what wakes the agent", errno);
  }
  // Before anybody can ask for a retirement.
  allow_short_ways(register_barrier(sys));
  auto agent = std::unique_ptr<Agent>(new Agent(process, std::move(wake), std::move(bells)));
  agent->may_part_ = agent->apart_.prepare(sys.number(process.proc.get()));
  int error = EINVAL;
  if (agent->stack_ = process.take_agent_stack(); !agent->stack_.empty()) {
    error = agent->start_unlisted() ? 0 : agent->start_thread(Stack::own);
  }
  if (error == EINVAL || (error == 0 && agent->started_.load() == cramped)) {
    error = agent->start_thread(Stack::any);
  }
  if (error != 0) {
    return give_up("start a thread", error);
  }
  Agent* running = agent.release();  // lives as long as the process
  return running->started_.load() == started ? running : nullptr;
}

// Signals are blocked here, in the slow path, and so in the new thread.
int Agent::start_thread(Stack stack) {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  if (stack == Stack::own) {
    ::pthread_attr_setstack(&attributes, stack_.data(), stack_.size());
  }
  started_.store(0);
  pthread_t thread{};
  const int error = ::pthread_create(&thread, &attributes, &Agent::run, this);
  ::pthread_attr_destroy(&attributes);
  if (error == 0) {
    await_started();
  }
  return error;
}

// A handshake: whoever forks by number while a thread is being made leaves a
// child that hangs in setuid (nptl/nptl_setxid.c waits for that thread).
void Agent::await_started() {
  while (started_.load() == 0) {
    real_sys().futex(&started_, FUTEX_WAIT_PRIVATE, 0, nullptr);
  }
}

bool Agent::start_unlisted() {
  wake_signal();  // to make one is the program's thread's business
  unlisted_ = true;
  const auto run_unlisted = [](void* self) {
    run(self);
    return 0;
  };
  if (!start_unlisted_thread(stack_, run_unlisted, this)) {
    unlisted_ = false;
    return false;
  }
  await_started();
  return true;
}

// Variables that each thread has for itself are at the end of its stack, the program's too.
bool Agent::is_cramped() const {
  const std::byte here{};
  return is_on_own_stack(&here) && &here < stack_.data() + stack_needed;
}

bool Agent::is_on_own_stack(const std::byte* here) const {
  return here > stack_.data() && here < stack_.data() + stack_.size();
}

void Agent::say_started(std::uint32_t how) {
  started_.store(how);
  real_sys().futex(&started_, FUTEX_WAKE_PRIVATE, 1, nullptr);
}

void Agent::watch(std::vector<Channel> predecessors, Nanoseconds until) {
  {
    const DescriptorsHeld held;
    for (Channel& channel : predecessors) {
      arrivals_.push_back(std::move(channel));
    }
    arrivals_until_ = until;
  }
  ring(real_sys(), wake_.get());
}

void Agent::notice_lifelines() noexcept {
  ring(real_sys(), wake_.get());
}

void Agent::watch_rings() noexcept {
  if (ring_watch_.begin()) {
    ring(real_sys(), wake_.get());
  }
}

void Agent::take_arrivals() {
  const DescriptorsHeld held;
  for (Channel& channel : arrivals_) {
    holder_->watch_predecessor(std::move(channel), arrivals_until_);
  }
  arrivals_.clear();
}

int revival_number() noexcept {
  return real_sys().number(g_revived.load());
}

std::uint32_t revivals() noexcept {
  return g_revivals.load();
}

int bed_number() noexcept {
  return real_sys().number(g_bed.load());
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

// Under a name of ours, where others find it. The door was made before the
// program's first fork, so that all processes have it; if its directory is out
// of this process's reach, since it has become another user, a new one is made.
bool Agent::announce() {
  Page& page = *process_->page;
  Rendezvous* place = process_->rendezvous();
  if (place == nullptr) {
    return false;
  }
  if (page.announced.load() == 0) {
    // Two at a time would each find the door gone from where it was made.
    if (!take_turn(real_sys(), page.announcer)) {
      return false;
    }
    const bool done = page.announced.load() != 0 || publish(*place);
    page.announcer.store({});
    if (!done) {
      return false;
    }
  }
  process_->published = place;
  return true;
}

bool Agent::publish(Rendezvous& place) {
  Page& page = *process_->page;
  if (!place.announce(process_->identity, page.generation)) {
    auto door = place.publish(process_->identity, page.generation);
    if (!door) {
      process_->log.error("{}: {}; this program cannot be restarted without loss",
                          door.error().step, error_text(door.error().code));
      return false;
    }
    process_->ties.old_door = std::move(process_->ties.door);
    process_->ties.door = std::move(*door);
  }
  page.announced.store(1);
  real_sys().futex(&page.announced, FUTEX_WAKE, INT_MAX, nullptr);
  return true;
}

bool Agent::announce_if_leading() {
  return process_->page->announced.load() != 0 ||
         (generation_.expected_leader() == ::getpid() && announce());
}

void Agent::see_to_announcement() {
  constexpr Nanoseconds longest = second;
  Page& page = *process_->page;
  const Nanoseconds deadline = after(real_sys(), longest);
  while (page.announced.load() == 0 && now(real_sys()) < deadline) {
    if (announce_if_leading()) {
      return;
    }
    ring(real_sys(), process_->ties.bell.get());
    const timespec moment = to_timespec(10 * millisecond);
    real_sys().futex(&page.announced, FUTEX_WAIT, 0, &moment);
  }
}

void Agent::make_holder() {
  if (!holder_) {
    holder_.emplace(
        real_sys(), process_->log, process_->options, generation_,
        Holder::Self{.identity = process_->identity, .generation = process_->page->generation},
        process_->ties.door.get(), bells_.get(), process_->hidden ? &*process_->hidden : nullptr);
  }
}

bool Agent::is_announced() {
  if (process_->page->announced.load() != 0 && process_->published != nullptr) {
    return true;
  }
  const SlowPath process(process_);
  return process && announce();
}

void Agent::take_charge() {
  Page& page = *process_->page;
  if (!is_announced() || !generation_.take_over()) {
    return;
  }
  {
    // Who has asked may not have the right to exchange files: a worker has not,
    // where its parent is root.
    const SlowPath process(process_);
    if (process) {
      end_hiding(*process, true);
    }
  }
  if (process_->hidden && process_->published != nullptr) {
    process_->hidden->expect_at(process_->published->directory());
  }
  make_holder();
  holder_->answer_at(process_->ties.door.get());
  generation_.answer_at(process_->ties.door.get());
  in_charge_ = true;
  {
    // A copy: processes that are forked later inherit the process's own.
    const DescriptorsHeld held;
    const Sys& sys = real_sys();
    for (const Channel& lifeline : process_->lifelines) {
      OwnedFd copy(sys, sys.fcntl(lifeline.fd(), F_DUPFD_CLOEXEC, 0));
      if (copy.is_open()) {
        holder_->watch_predecessor(Channel(sys, std::move(copy)), page.probation_ends);
      }
    }
  }
  holder_->let_go_at(page.probation_ends + second);
  switch (static_cast<Stage>(page.stage.load())) {
    case Stage::serving:
      holder_->resume(HolderPhase::active, never);
      break;
    case Stage::prepared:
      holder_->resume(HolderPhase::granted, never);
      break;
    case Stage::retired:
      holder_->resume(HolderPhase::probation, page.watch_ends != 0
                                                  ? page.watch_ends.load()
                                                  : after(real_sys(), process_->options.probation));
      break;
    case Stage::forgotten:
    case Stage::finishing:
      holder_->resume(HolderPhase::draining, page.drain_ends);
      break;
  }
  holder_->begin();
}

// Closed at the other end: the predecessor has let go, or is dead. Until then each
// process keeps its own, which says that the generation lives.
void Agent::drop_lifelines() {
  const Sys& sys = real_sys();
  const DescriptorsHeld held;
  std::erase_if(process_->lifelines, [&](const Channel& lifeline) {
    epoll_event end{.events = EPOLLET, .data = {.u64 = 0}};
    sys.epoll_ctl(bells_.get(), EPOLL_CTL_ADD, lifeline.fd(), &end);
    pollfd state{.fd = lifeline.fd(), .events = 0, .revents = 0};
    const timespec at_once{};
    return sys.ppoll(&state, 1, &at_once) > 0;
  });
}

void Agent::drain_bells() {
  std::array<epoll_event, 4> rings{};
  real_sys().epoll_wait(bells_.get(), rings.data(), static_cast<int>(rings.size()), 0);
}

void Agent::run_holder(Nanoseconds until) {
  holder_->run_once(until_rest(until));
  drain_bells();
}

// Who may lead next must not miss the end of who leads. A program that executes
// another has not ended, but its agent has: one of the others looks now and then.
void Agent::watch_leader() {
  const pid_t leader = generation_.expected_leader();
  if (leader == leader_pid_ && leader_.is_open()) {
    return;
  }
  leader_pid_ = leader;
  leader_ = OwnedFd(real_sys(), real_sys().pidfd_open(leader, 0));
}

void Agent::sleep(Nanoseconds most) {
  const Sys& sys = real_sys();
  const Nanoseconds until = until_rest(most);
  std::array<pollfd, 2> fds{pollfd{.fd = bells_.get(), .events = POLLIN, .revents = 0},
                            pollfd{.fd = leader_.get(), .events = POLLIN, .revents = 0}};
  const nfds_t count = leader_.is_open() ? 2 : 1;
  const timespec timeout = to_timespec(until == never ? never : until - now(sys));
  if (sys.ppoll(fds.data(), count, until == never ? nullptr : &timeout) <= 0) {
    return;
  }
  drain_bells();
  if (count == 2 && fds[1].revents != 0) {
    leader_.reset();
  }
}

// This program was not allowed to become the owner. Whoever waits for work ends
// by itself; the process on top, which may wait for nothing, is told.
void Agent::end_generation() {
  constexpr Nanoseconds longest = 10 * second;
  abandon_hiding(*process_);
  process_->log.error("this program was not allowed to take over; it ends (SIGTERM)");
  real_sys().kill(real_sys().getpid(), SIGTERM);
  pause_for(real_sys(), longest);
  constexpr int told_to_end = 75;
  ::_exit(told_to_end);
}

// Nobody owns anything yet. Who leads answers processes that belong to the
// generation, and asks for it where who waits for work cannot.
void Agent::start_up() {
  Page& page = *process_->page;
  if (page.ready_requested.load() != 0 && page.current_phase() == GenerationPhase::starting) {
    settle_for_others(*process_);
  }
  if (waits_early()) {
    settle_said(*process_);
  }
  const Nanoseconds next_look = ring_watch_.look_for_readiness();
  if (!generation_.try_to_lead()) {
    sleep(next_look);
    return;
  }
  // To be found from the first moment on; who knocks is answered after that.
  if (page.current_phase() == GenerationPhase::asking && page.announced.load() == 0) {
    is_announced();
  }
  if (!holder_) {
    make_holder();
    holder_->wait_for_ownership();
  }
  if (page.current_phase() != GenerationPhase::active) {
    run_holder(next_look);
  }
}

bool Agent::prepare_rendezvous(uid_t user) {
  errand_user_ = user;
  return ask_for(Errand::prepare_rendezvous);
}

bool Agent::say_goodbye() {
  if (apart_state() == ApartState::apart || apart_state() == ApartState::asked) {
    return true;  // there is nobody to be told
  }
  return ask_for(Errand::say_goodbye);
}

void Agent::follow_user() {
  if (!unlisted_ && apart_state() != ApartState::helped) {
    return;
  }
  Credentials now{};
  auto& [real_user, user, saved_user] = now.users;
  auto& [real_group, group, saved_group] = now.groups;
  const long count = real().syscall(SYS_getgroups, 0, nullptr);
  now.other_groups.resize(static_cast<std::size_t>(std::max(count, 0L)));
  if (real().syscall(SYS_getresuid, &real_user, &user, &saved_user) != 0 ||
      real().syscall(SYS_getresgid, &real_group, &group, &saved_group) != 0 ||
      real().syscall(SYS_getgroups, count, now.other_groups.data()) != count) {
    return;  // that cannot be
  }
  {
    const DescriptorsHeld held;
    credentials_ = std::move(now);
    credentials_version_.fetch_add(1);
    must_follow_.store(1);
  }
  ring(real_sys(), wake_.get());
  const Nanoseconds deadline = after(real_sys(), patience);
  while (must_follow_.load() != 0 && continuity::now(real_sys()) < deadline) {
    apart_.help();
    const timespec moment = to_timespec(millisecond);
    real_sys().futex(&must_follow_, FUTEX_WAIT_PRIVATE, 1, &moment);
  }
}

void Agent::become_user() {
  if (must_follow_.load() == 0) {
    return;
  }
  take_credentials();
  must_follow_.store(0);
  real_sys().futex(&must_follow_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr);
}

void Agent::take_credentials() {
  const DescriptorsHeld held;
  const auto become = [&] {
    const auto& [real_user, user, saved_user] = credentials_.users;
    const auto& [real_group, group, saved_group] = credentials_.groups;
    const auto& others = credentials_.other_groups;
    const bool has_groups = real().syscall(SYS_setgroups, others.size(), others.data()) == 0 &&
                            real().syscall(SYS_setresgid, real_group, group, saved_group) == 0;
    return real().syscall(SYS_setresuid, real_user, user, saved_user) == 0 && has_groups;
  };
  bool has_become = become();
  if (!has_become) {
    has_become = become();  // who gains the right to have other groups has it only then
  }
  if (!has_become) {
    process_->log.debug("a thread of the library keeps rights that the program had: {}",
                        error_text(errno));
  }
}

bool Agent::ask_for(Errand errand) {
  constexpr auto number = [](ErrandState state) { return static_cast<std::uint32_t>(state); };
  errand_.store(errand);
  errand_state_.store(number(ErrandState::asked));
  ring(real_sys(), wake_.get());
  const Nanoseconds deadline = after(real_sys(), patience);
  for (;;) {
    std::uint32_t state = errand_state_.load();
    if (state == number(ErrandState::done)) {
      return true;
    }
    // It may be waiting for the slow path, which is perhaps the caller's.
    if (state == number(ErrandState::asked) && now(real_sys()) >= deadline &&
        errand_state_.compare_exchange_strong(state, number(ErrandState::none))) {
      return false;
    }
    apart_.help();
    const timespec moment = to_timespec(millisecond);
    real_sys().futex(&errand_state_, FUTEX_WAIT_PRIVATE, state, &moment);
  }
}

void Agent::do_errand() {
  auto state = static_cast<std::uint32_t>(ErrandState::asked);
  if (!errand_state_.compare_exchange_strong(state,
                                             static_cast<std::uint32_t>(ErrandState::under_way))) {
    return;
  }
  try {
    switch (errand_.load()) {
      case Errand::prepare_rendezvous:
        process_->prepare_rendezvous(errand_user_);
        break;
      case Errand::say_goodbye:
        tell_predecessors();
        break;
    }
  } catch (const std::exception&) {
    process_->log.debug("no memory for what a thread has asked for");
  }
  errand_state_.store(static_cast<std::uint32_t>(ErrandState::done));
  real_sys().futex(&errand_state_, FUTEX_WAKE_PRIVATE, 1, nullptr);
}

// What one of us has settled is settled here too.
void Agent::settle() {
  if (!settled_) {
    adopt_settled(*process_);
    settled_ = true;
    ring_watch_.note_ownership();
  }
}

void Agent::tell_predecessors() {
  if (process_->page->current_phase() == GenerationPhase::active) {
    settle();
  }
  if (holder_) {
    take_arrivals();
    holder_->say_goodbye();
  }
  process_->say_goodbye();
}

void Agent::try_step() {
  try {
    step();
  } catch (const std::exception&) {
    // No memory just now. Who asked is not answered, and asks again.
    pause_for(real_sys(), millisecond);
  }
}

void Agent::step() {
  constexpr Nanoseconds own_turn = millisecond;
  become_user();
  do_errand();
  switch (process_->page->current_phase()) {
    case GenerationPhase::starting:
    case GenerationPhase::asking:
      start_up();
      return;
    case GenerationPhase::ended:
      end_generation();
      return;
    case GenerationPhase::active:
      break;
  }
  settle();
  if (waits_early()) {
    settle_said(*process_);  // its own claims
  }
  if (std::exchange(revivals_seen_, revivals()) != revivals()) {
    ring_watch_.note_ownership();
  }
  const Nanoseconds next_ring_look = ring_watch_.look_after_queues();
  drop_lifelines();
  if (!in_charge_ && generation_.try_to_lead()) {
    take_charge();
  }
  if (in_charge_) {
    take_arrivals();
    run_holder(next_ring_look);
    return;
  }
  if (!generation_.follow()) {
    sleep(after(real_sys(), millisecond));
    return;
  }
  watch_leader();
  if (leader_pid_ == real_sys().getpid()) {
    sleep(after(real_sys(), own_turn));  // who led has ended since we looked: it is up to us
    return;
  }
  const Nanoseconds next = std::min(generation_.look(), next_ring_look);
  sleep(std::min(next, after(real_sys(), look_interval())));
}

// Without pidfds nobody hears of the end of who leads, and the deputy is deputy no more.
Nanoseconds Agent::look_interval() const {
  constexpr Nanoseconds deputy_look = second;
  constexpr Nanoseconds rare_look = 30 * second;
  return generation_.is_deputy() || !leader_.is_open() ? deputy_look : rare_look;
}

// ---- While nothing is to be done --------------------------------------------------------

// Nothing that takes the program's descriptors. Uses none: this may be asked apart.
bool Agent::is_at_rest() {
  const Page& page = *process_->page;
  if (page.current_phase() != GenerationPhase::active || !settled_ || waits_early() ||
      errand_state_.load() == static_cast<std::uint32_t>(ErrandState::asked) ||
      revivals_seen_ != revivals() || ring_watch_.is_on() || !generation_.is_at_rest()) {
    return false;
  }
  if (in_charge_ ? !generation_.is_leader() || !holder_->is_at_rest()
                 : page.leader.load().process != leader_pid_ || !leader_.is_open() ||
                       !is_agent_alive(real_sys(), page.leader.load())) {
    return false;
  }
  const DescriptorsHeld held;
  return process_->lifelines.empty() && arrivals_.empty();
}

Nanoseconds Agent::until_rest(Nanoseconds until) {
  constexpr Nanoseconds quiet_time = 200 * millisecond;
  if (!may_part_ || apart_state() == ApartState::wanted) {
    return until;
  }
  if (!is_at_rest()) {
    rests_at_ = never;
  } else if (rests_at_ == never || (Apart::is_deaf() && now(real_sys()) >= rests_at_)) {
    rests_at_ = after(real_sys(), quiet_time);
  }
  return std::min(until, rests_at_);
}

bool Agent::has_rested() {
  return rests_at_ != never && now(real_sys()) >= rests_at_ && !Apart::is_deaf() && is_at_rest();
}

Apart::Watched Agent::watched() const {
  const Sys& sys = real_sys();
  return {.bells = sys.number(bells_.get()),
          .leader = !in_charge_ && leader_.is_open() ? sys.number(leader_.get()) : -1,
          .door = in_charge_ ? sys.number(process_->ties.door.get()) : -1,
          .proc = sys.number(process_->proc.get())};
}

// Parts with the program's table of descriptors, if it is time.
void Agent::rest() {
  constexpr Nanoseconds later = 30 * second;
  if (apart_state() == ApartState::held) {
    if (!is_at_rest()) {
      Apart::stay();
    } else if (apart_.part(watched())) {
      wait_apart();
    } else {
      may_part_ = false;
    }
  } else if (apart_state() == ApartState::together && has_rested() &&
             !apart_.ask_to_part(real_sys().number(process_->proc.get()))) {
    rests_at_ = after(real_sys(), later);
  }
}

// The helper does everything else from now on.
void Agent::wait_apart() {
  for (;;) {
    std::uint32_t followed = credentials_version_.load();
    while (is_at_rest() && !apart_.wait(in_charge_ ? never : after(real_sys(), look_interval()))) {
    }
    if (must_follow_.load() != 0) {
      followed = credentials_version_.load();
      become_user();
    }
    apart_.be_helped();
    if (credentials_version_.load() != followed) {
      take_credentials();  // the helper has, for itself
    }
    watch_apart();
  }
}

// The program's thread may move them, and have others at their numbers.
void Agent::watch_apart() noexcept {
  lock_own_descriptors();
  apart_.watch(watched());
  unlock_own_descriptors();
}

void Agent::help(void* self) {
  auto* agent = static_cast<Agent*>(self);
  ::prctl(PR_SET_NAME, "continuity");
  const pid_t own = agent->thread_.exchange(::gettid());
  agent->rests_at_ = never;
  do {
    agent->try_step();
  } while (!agent->has_rested());
  agent->thread_.store(own);
}

void* Agent::run(void* self) {
  auto* agent = static_cast<Agent*>(self);
  if (agent->is_cramped()) {
    agent->say_started(cramped);
    return nullptr;
  }
  ::prctl(PR_SET_NAME, "continuity");
  agent->thread_.store(::gettid());
  try {
    if (!agent->generation_.join()) {
      agent->process_->log.error("{} processes of this program wait for work already", max_members);
      agent->say_started(failed);
      return nullptr;
    }
    // Born deaf, if its generation is: before it waits for work.
    if (agent->process_->page->current_phase() == GenerationPhase::active) {
      // The process may have claims of its own from before. Who starts us is in the slow
      // path, and waits for us.
      adopt_settled_here(*agent->process_);
      agent->settled_ = true;
      while (!agent->generation_.follow()) {
        pause_for(real_sys(), millisecond);
      }
    }
  } catch (const std::exception&) {
    agent->say_started(failed);
    return nullptr;
  }
  agent->say_started(started);
  while (agent->process_->holds_agent.load() != 0) {
    real_sys().futex(&agent->process_->holds_agent, FUTEX_WAIT_PRIVATE, 1, nullptr);
  }
  const std::byte here{};
  agent->may_part_ = agent->may_part_ && agent->is_on_own_stack(&here);
  if (agent->may_part_) {
    agent->apart_.begin(agent->stack_, &Agent::help, agent, agent->wake_.get());
  }
  for (;;) {
    agent->try_step();
    if (agent->may_part_) {
      agent->rest();
    }
  }
}

}  // namespace continuity::shim
