#include "shim/process.hpp"

#include "core/joining.hpp"
#include "core/processes.hpp"
#include "shim/agent.hpp"
#include "shim/hiding.hpp"
#include "shim/hooks.hpp"
#include "shim/lock.hpp"
#include "shim/memory.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"
#include "shim/start.hpp"
#include "shim/wrapped.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <errno.h>  // program_invocation_short_name
#include <fcntl.h>
#include <linux/futex.h>
#include <new>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

// The default handler prints the exception's name, for which it brings 100 KB
// of demangler. Ours says nothing into the program's output.
namespace __gnu_cxx {
void __verbose_terminate_handler() {
  std::abort();
}
}  // namespace __gnu_cxx

namespace continuity::shim {
namespace {

constinit std::atomic<Process*> g_process{nullptr};
constinit std::atomic<bool> g_nothing_to_do{false};
constinit std::atomic<bool> g_forks_noticed{false};
// Drawn before the first fork: what is forked from this program is one generation,
// whoever of it binds.
constinit std::atomic<std::uint64_t> g_family{0};
constinit Lock g_creation;

constexpr std::size_t page_size = 4096;

// By a child that settles: in one page, since each that is written to is copied.
struct alignas(page_size) State {
  alignas(Process) std::byte process[sizeof(Process)];
  std::atomic<bool> is_forked{false};
};

}  // namespace

// As zeroes they are free, all of them: so a child finds them, whoever had them. What is
// written to at each fork is here, where nothing is copied for it.
struct Locks {
  Lock process;
  Lock descriptors;
  Lock own_descriptors;
  Lock memory;
  std::atomic<pthread_t> memory_keeper;  // forks
};

// Wiped in a forked child, once there may be listeners. The slots, as zeroes, are
// nobody's: those that nobody uses are never touched. The agent's stack is nobody's, too,
// where there is no agent, and so no fork copies it.
struct alignas(page_size) Wiped {
  std::atomic<std::uint32_t> gate;
  std::atomic<std::uint32_t> apart;
  std::atomic<ForkState> state;
  Locks locks;
  bool stack_is_taken;
  std::array<AcceptSlot, accept_slots> slots;
  std::array<std::byte, agent_stack_size> stack;
};

namespace {

// In a section of its own, which comes first in the library's memory (CMakeLists.txt).
struct OwnPages {
  Wiped wiped;
  State state;
};
[[gnu::section(".bss.own_pages")]] constinit OwnPages g_own_pages{};
constinit Wiped& g_wiped = g_own_pages.wiped;
constinit State& g_state = g_own_pages.state;
constinit Locks& g_locks = g_wiped.locks;

// In a forked child, where they were not wiped.
void free_locks() {
  for (Lock* lock :
       {&g_locks.process, &g_locks.descriptors, &g_locks.own_descriptors, &g_locks.memory}) {
    lock->free();
  }
  if (g_locks.memory_keeper.load() != 0) {
    g_locks.memory_keeper.store(0);
  }
}

// As ErrnoGuard, but written to only where it has changed: its page would be copied for it.
class ForkErrno {
 public:
  ForkErrno() noexcept : saved_(errno) {}
  ~ForkErrno() {
    if (errno != saved_) {
      errno = saved_;
    }
  }
  ForkErrno(const ForkErrno&) = delete;
  ForkErrno& operator=(const ForkErrno&) = delete;

 private:
  int saved_;
};

// No memory: null.
Wiped* arm_wiped() {
  void* memory = &g_wiped;
  if (::sysconf(_SC_PAGESIZE) != page_size) {
    memory =
        ::mmap(nullptr, sizeof(Wiped), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      return nullptr;
    }
  }
  return ::madvise(memory, sizeof(Wiped), MADV_WIPEONFORK) == 0 ? static_cast<Wiped*>(memory)
                                                                : nullptr;
}

constexpr std::size_t longest_identity = 64;

void block_signals(sigset_t& old_mask) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &old_mask);
}

// As it was at the start: servers write their state over the memory that it is in
// ("php-fpm: master process").
constinit std::array<char, longest_identity + 1> g_program_name{};

__attribute__((constructor)) void remember_name() noexcept {
  ::strncpy(g_program_name.data(), program_invocation_short_name, longest_identity);
}

const char* program_name() {
  return g_program_name.front() == 0 ? program_invocation_short_name : g_program_name.data();
}

std::uint64_t random_generation() {
  std::uint64_t generation = 0;
  if (::getrandom(&generation, sizeof generation, GRND_NONBLOCK) != sizeof generation) {
    timespec time{};
    ::clock_gettime(CLOCK_REALTIME, &time);
    generation = static_cast<std::uint64_t>(time.tv_nsec) << 32U ^
                 static_cast<std::uint64_t>(time.tv_sec) << 8U ^
                 static_cast<std::uint64_t>(::getpid());
  }
  return generation;
}

}  // namespace

Process* Process::existing() noexcept {
  return g_process.load(std::memory_order_acquire);
}

Process* Process::get() noexcept {
  if (Process* process = existing()) {
    return process;
  }
  if (g_nothing_to_do.load(std::memory_order_relaxed)) {
    return nullptr;
  }
  const ErrnoGuard guard;
  sigset_t old_mask;
  block_signals(old_mask);
  g_creation.lock();
  Process* process = existing();
  if (process == nullptr && ::getauxval(AT_SECURE) == 0) {
    try {
      process = new (&g_state.process) Process;
      if (process->options.disabled) {
        process = nullptr;
      }
    } catch (...) {
      process = nullptr;
    }
  }
  if (process == nullptr) {
    g_nothing_to_do.store(true);
  }
  g_process.store(process, std::memory_order_release);
  g_creation.unlock();
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  return process;
}

// What has begun to serve goes on: listeners that it knows cannot change hands within a process.
bool Process::stand_aside() noexcept {
  sigset_t old_mask;
  block_signals(old_mask);
  g_creation.lock();
  const Process* process = existing();
  const bool may = process == nullptr || (!process->has_bound && !process->hidden);
  if (may) {
    g_nothing_to_do.store(true);
    g_process.store(nullptr, std::memory_order_release);
  }
  g_creation.unlock();
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  return may;
}

Process::Process() : pid_(::getpid()) {
  read_environment();
  identity = identity_of(options, program_name());
  if (g_family.load() == 0) {
    g_family.store(random_generation());
  }
  generation = g_family.load();
  open_proc();
  if (!options.disabled && !options.hide.empty()) {
    hidden.emplace(real_sys(), options.hide);
  }
}

Taker& Process::own_taker() {
  if (!taker) {
    taker.emplace(real_sys(), log, options,
                  Taker::Self{.identity = identity, .generation = generation, .gives_back = true});
  }
  return *taker;
}

bool Process::open_proc() {
  if (!proc.is_open()) {
    proc = continuity::open_proc(real_sys());
  }
  return proc.is_open();
}

void Process::read_environment() {
  // At the first bind, before the program has many threads that could call setenv.
  // NOLINTBEGIN(concurrency-mt-unsafe)
  auto read = read_options([](const char* name) -> const char* { return ::getenv(name); });
  options = std::move(read.options);
  if (options.disabled) {
    return;
  }
  log.open(real_sys(), options.log_level, options.log_file, ::getenv("JOURNAL_STREAM"));
  // NOLINTEND(concurrency-mt-unsafe)
  for (const OptionError& error : read.errors) {
    log.error("{}={} is not {}; the default is used", error.variable, error.value, error.expected);
  }
}

Rendezvous* Process::rendezvous() {
  const uid_t user = real_sys().geteuid();
  const auto is_open = [](const auto& one) { return one.second.has_value(); };
  if (!rendezvous_.contains(user)) {
    std::string problem;
    auto place = Rendezvous::open(real_sys(), options.directory, user, problem);
    if (!place && std::none_of(rendezvous_.begin(), rendezvous_.end(), is_open)) {
      log.error("{}; until then this program cannot be restarted without loss", problem);
    } else if (!place) {
      log.debug("for user {}: {}", user, problem);
    }
    rendezvous_.emplace(user, std::move(place));
  }
  auto& place = rendezvous_.at(user);
  if (place) {
    return &*place;
  }
  // A worker in a root directory of its own, as a user that it has become there:
  // it stays in the place of the process that has forked it.
  const auto other = std::find_if(rendezvous_.begin(), rendezvous_.end(), is_open);
  return other == rendezvous_.end() ? nullptr : &*other->second;
}

void Process::prepare_rendezvous(uid_t user) {
  if (rendezvous_.contains(user)) {
    return;
  }
  std::string problem;
  auto place = Rendezvous::open(real_sys(), options.directory, user, problem);
  if (place) {
    rendezvous_.emplace(user, std::move(place));
  } else {
    log.debug("for user {}: {}", user, problem);  // it may find a place by itself
  }
}

void Process::say_goodbye() {
  const DescriptorsHeld held;
  for (Channel& lifeline : lifelines) {
    static_cast<void>(lifeline.send({.type = MessageType::goodbye}, 0));
  }
}

StandIns& Process::stand_ins() {
  if (!stand_ins_) {
    stand_ins_.emplace(real_sys(), rendezvous()->directory());
  }
  return *stand_ins_;
}

bool Process::start_watching() {
  if (!open_proc()) {
    return false;
  }
  if (wiped_ == nullptr) {
    Wiped* wiped = arm_wiped();
    if (wiped == nullptr) {
      return false;
    }
    wiped_ = wiped;
    wiped_->gate.store(static_cast<std::uint32_t>(Gate::unsettled));
    wiped_->state.store(ForkState::settled);
    g_gate.store(&wiped->gate);
    g_apart_state.store(&wiped->apart);
    g_accept_slots.store(wiped->slots.data());
    // Of a process with several threads the kernel makes its first registration
    // wait for milliseconds. The take-over has no time for that.
    register_barrier(real_sys());
  }
  if (page == nullptr && !open_page()) {
    return false;
  }
  notice_forks();
  return true;
}

std::span<std::byte> Process::take_agent_stack() {
  if (wiped_ == nullptr || std::exchange(wiped_->stack_is_taken, true)) {
    return {};
  }
  return wiped_->stack;
}

void Process::notice_forks() noexcept {
  if (!g_forks_noticed.exchange(true) &&
      ::pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child) != 0) {
    g_forks_noticed.store(false);
  }
}

// A file, and not just memory: a process that has executed another program can
// be given it.
bool Process::open_page() {
  page_memory_ = OwnedFd(real_sys(), real_sys().memfd_create("continuity", MFD_CLOEXEC));
  const int number = page_memory_.is_open() ? real_sys().number(page_memory_.get()) : -1;
  if (number < 0 || real().ftruncate(number, off_t{sizeof(Page)}) != 0) {
    return false;
  }
  if (!map_page()) {
    return false;
  }
  page->generation.store(generation);
  page->main.store(::getpid());
  record_start();
  return true;
}

// What is forked from this process inherits it.
void Process::record_start() {
  if (!start.empty()) {
    return;
  }
  Start how = how_started(real_sys(), proc.get());
  start = write_start(how);
  if (start.size() > max_start) {
    how.environment.clear();  // rather than half of it
    start = write_start(how);
  }
}

bool Process::map_page() {
  const int number = real_sys().number(page_memory_.get());
  struct stat status {};
  // One of another release may be smaller, and to touch what is not there kills.
  if (::fstat(number, &status) != 0 || status.st_size != sizeof(Page)) {
    return false;
  }
  void* memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, number, 0);
  if (memory == MAP_FAILED) {
    return false;
  }
  page = static_cast<Page*>(memory);  // zeros are its beginning
  return true;
}

bool Process::may_join() const {
  return agent == nullptr && !ties.door.is_open() && (!has_bound || g_state.is_forked.load());
}

bool Process::join_generation() {
  std::vector<std::uint64_t> inodes;
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if (!has_bound && is_listener(fd)) {
      inodes.push_back(socket_inode(real_sys(), fd));
    }
  }
  Rendezvous* place = rendezvous();
  if (place == nullptr) {
    return true;
  }
  Joined joined =
      join(real_sys(), log, *place, Processes(real_sys(), proc.get()), inodes, options.fresh);
  if (joined.how == Joined::How::outlived) {
    return false;
  }
  if (joined.how == Joined::How::welcome) {
    Page* own = page;
    OwnedFd own_memory = std::exchange(page_memory_, std::move(joined.ties[0]));
    if (map_page()) {
      ::munmap(own, sizeof(Page));
      generation = joined.generation;
      ties = {.bell = std::move(joined.ties[1]),
              .offers = std::move(joined.ties[2]),
              .offering = std::move(joined.ties[3]),
              .door = std::move(joined.ties[4])};
      if (has_bound) {
        page->private_listeners.fetch_add(1);
        note_listener_made(real_sys(), *page, bell());
      }
      log.debug("belongs to the generation of pid {}", page->leader.load().process);
    } else {
      page_memory_ = std::move(own_memory);
    }
  }
  return true;
}

bool Process::tie() {
  if (ties.door.is_open()) {
    return true;
  }
  const Sys& sys = real_sys();
  Rendezvous* place = rendezvous();
  if (place == nullptr || !start_watching()) {
    return false;
  }
  std::array<int, 2> pair{-1, -1};
  OwnedFd bell(sys, sys.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell.is_open() ||
      sys.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.data()) != 0) {
    log.error("tie the processes of this program together: {}", error_text(errno));
    return false;
  }
  OwnedFd offers(sys, pair[0]);
  OwnedFd offering(sys, pair[1]);
  auto door = place->make_door(generation);
  if (!door) {
    log.error("{}: {}", door.error().step, error_text(door.error().code));
    return false;
  }
  ties = {.bell = std::move(bell),
          .offers = std::move(offers),
          .offering = std::move(offering),
          .door = std::move(*door)};
  return true;
}

bool Process::holds_listeners() {
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & (fd_flag::listener | fd_flag::bound)) != 0) {
      return true;
    }
  }
  return false;
}

void Process::set_gate(Gate gate) {
  if (wiped_ != nullptr) {
    const Gate open = has_bell() ? Gate::with_bell : Gate::open;
    wiped_->gate.store(static_cast<std::uint32_t>(gate == Gate::open ? open : gate));
    if (gate == Gate::unsettled) {
      leave_short_ways();
    }
  }
}

bool Process::is_this() const {
  return !bystander_ && pid_ == ::getpid();
}

void Process::release_beside(const ClaimedListener& claim) {
  if (taker) {
    taker->release_beside(claim.beside);
  }
}

// The last first: a program most often asks for what it has just bound.
ClaimedListener* Process::claim_of(int fd) {
  const auto claim = std::find_if(claims.rbegin(), claims.rend(), [&](const ClaimedListener& one) {
    return std::find(one.fds.begin(), one.fds.end(), fd) != one.fds.end();
  });
  return claim == claims.rend() ? nullptr : &*claim;
}

// Forked with our handlers around it, a child has its parent's state, whole, and
// can take part. A fork that skips them (clone by number) may have come at any
// moment: of a process that hands over it has no part; of one that is still
// starting up it carries on in its parent's place.
void Process::settle_in_forked_child(bool noticed) noexcept {
  pid_ = ::getpid();
  holds_agent.store(0);
  if (noticed) {
    g_state.is_forked.store(true);
  } else {
    free_locks();
  }
  forget_accept_slots();
  forget_moving();
  if (agent == nullptr) {
    set_gate(Gate::unsettled);
    return;
  }
  if (!noticed) {
    step_aside();
    return;
  }
  agent = nullptr;  // its thread is not here; its memory is left alone
  published = nullptr;
  close_own_descriptors(inherited());
  set_gate(Gate::unsettled);
}

bool Process::settle_if_forked() noexcept {
  if (wiped_ == nullptr) {
    return true;
  }
  ForkState state = wiped_->state.load();
  while (state != ForkState::settled) {
    if (state == ForkState::settling) {
      pause_for(real_sys(), 20 * microsecond);  // the child's own threads
    } else if (wiped_->state.compare_exchange_strong(state, ForkState::settling)) {
      try {
        settle_in_forked_child(state == ForkState::noticed);
      } catch (...) {
        bystander_ = true;
      }
      wiped_->state.store(ForkState::settled);
      return true;
    }
    state = wiped_->state.load();
  }
  return pid_ == ::getpid();
}

void Process::step_aside() noexcept {
  bystander_ = true;
  close_own_descriptors({});
  for (int fd = g_highest_fd.load(); fd >= 0; --fd) {
    set_fd_flags(fd, 0);
  }
  set_gate(Gate::open);
}

// The descriptors of ours that a forked child goes on using.
std::vector<int> Process::inherited() const {
  std::vector<int> kept{proc.get(),        page_memory_.get(),  ties.bell.get(),
                        ties.offers.get(), ties.offering.get(), ties.door.get(),
                        log.descriptor(),  early_bed.get()};
  for (const auto& [user, place] : rendezvous_) {
    if (place) {
      place->append_descriptors(kept);
    }
  }
  if (taker) {
    taker->append_descriptors(kept);
  }
  if (hidden) {
    hidden->append_descriptors(kept);
  }
  for (const ClaimedListener& claim : claims) {
    kept.push_back(claim.model.get());
  }
  for (const Channel& lifeline : lifelines) {
    kept.push_back(lifeline.fd());
  }
  if (stand_ins_) {
    stand_ins_->append_descriptors(kept);
  }
  return kept;
}

void Process::expect_others() {
  if (tie() && agent == nullptr && is_on_top()) {
    agent = Agent::start(*this);
  }
  if (page != nullptr && page->current_phase() != GenerationPhase::active) {
    if (taker) {
      taker->note_forked();
    }
    for (ClaimedListener& claim : claims) {
      if (!std::exchange(claim.shared, true)) {
        claim.maker = ::getpid();
        page->shared_claims.fetch_add(1);
      }
    }
  }
}

// What parent and child will share must exist, and our state must be whole.
//
// The process at the top of a tree has an agent, though it may wait for nothing
// itself: it leads. It has it before the child can look for a leader, and take
// itself for one: a child that has left root may not signal its parent.
void Process::before_fork() noexcept {
  Process* process = existing();
  const ForkErrno guard;
  if (g_family.load() == 0) {
    g_family.store(random_generation());
  }
  note_fork_while_hiding();
  const pthread_t self = ::pthread_self();
  if (process != nullptr && !process->prepare_fork()) {
    pthread_t was_self = self;
    process->forker_.compare_exchange_strong(was_self, 0);
  }
  // Nobody else can be inside; and one page less is copied in each fork of a program
  // that neither listens nor has threads.
  if (__libc_single_threaded == 0) {
    lock_memory();
    g_locks.memory_keeper.store(self);
  }
}

// False: there is nothing to prepare, and no lock held.
bool Process::prepare_fork() noexcept {
  if (bystander_ || !holds_listeners()) {
    return false;
  }
  sigset_t mask;
  block_signals(mask);
  if (!settle_if_forked() || bystander_) {
    ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    return false;
  }
  g_locks.process.lock();
  if (const pthread_t self = ::pthread_self(); forker_.load() != self) {
    forker_.store(self);
  }
  if (std::memcmp(&fork_mask_, &mask, sizeof mask) != 0) {
    fork_mask_ = mask;
  }
  if (agent == nullptr) {
    holds_agent.store(1);
  }
  try {
    expect_others();
  } catch (...) {  // no memory: parent and child do not know of each other
  }
  lock_settled_descriptors();
  lock_own_descriptors();
  return true;
}

// Also in the child: there it is the same thread.
bool Process::has_prepared_fork() const noexcept {
  return forker_.load() == ::pthread_self();
}

// The kernel copies descriptors first and memory afterwards. A listener that moved
// in between would be the child's under a number that says "retired": it would
// accept there unseen.
void Process::lock_settled_descriptors() noexcept {
  for (;;) {
    wait_until_settled();
    lock_descriptors();
    if (!are_numbers_moving()) {
      return;
    }
    unlock_descriptors();
  }
}

// Whether it leads if it can: the one that made the listeners, or, once that has
// gone, what it left behind as a daemon.
bool Process::is_on_top() const {
  const pid_t self = ::getpid();
  pid_t main = page->main.load();
  if (main != self && !is_running(real_sys(), main)) {
    page->main.compare_exchange_strong(main, self);
  }
  return page->main.load() == self || ::getsid(0) == self;
}

void Process::after_fork_in_parent() noexcept {
  if (g_locks.memory_keeper.load() == ::pthread_self()) {
    g_locks.memory_keeper.store(0);
    unlock_memory();
  }
  Process* process = existing();
  if (process == nullptr || !process->has_prepared_fork() || !process->is_this()) {
    return;
  }
  const ForkErrno guard;
  const sigset_t mask = process->fork_mask_;
  if (process->holds_agent.load() != 0) {
    process->holds_agent.store(0);
    real_sys().futex(&process->holds_agent, FUTEX_WAKE_PRIVATE, 1, nullptr);
  }
  unlock_own_descriptors();
  unlock_descriptors();
  g_locks.process.unlock();
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

void Process::after_fork_in_child() noexcept {
  free_locks();
  Process* process = existing();
  if (process == nullptr || process->wiped_ == nullptr) {
    g_state.is_forked.store(true);
    if (process != nullptr) {
      process->pid_ = ::getpid();
    }
    return;
  }
  ForkState state = ForkState::wiped;
  if (!process->has_prepared_fork() ||
      !process->wiped_->state.compare_exchange_strong(state, ForkState::noticed)) {
    g_state.is_forked.store(true);
    return;
  }
  const sigset_t mask = process->fork_mask_;
  // Most children execute another program or end, and many more are made than ever
  // wait for work: what is written to here is copied, page by page. But who has an
  // end of a conversation keeps it open, and a successor waits for the end of that.
  if (Agent::has_granted()) {
    process->settle_if_forked();
  }
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
}

SlowPath::SlowPath(Process* process) noexcept : process_(process) {
  if (process_ == nullptr || process_->bystander_) {
    process_ = nullptr;
    return;
  }
  block_signals(old_mask_);
  if (!process_->settle_if_forked() || process_->bystander_) {
    process_ = nullptr;
    ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
    return;
  }
  g_locks.process.lock();
}

void before_spawn() noexcept {
  Process* existing = Process::existing();
  if (existing == nullptr || !Process::holds_listeners()) {
    return;
  }
  try {
    const SlowPath process(existing);
    if (process) {
      process->expect_others();
    }
  } catch (...) {
  }
}

void before_passing(const msghdr* message) noexcept {
  // Not CMSG_NXTHDR, which takes a message that it may write to.
  const auto* bytes = static_cast<const std::byte*>(message->msg_control);
  std::size_t at = 0;
  while (at + sizeof(cmsghdr) <= message->msg_controllen) {
    cmsghdr header;
    std::memcpy(&header, bytes + at, sizeof header);
    if (header.cmsg_len < sizeof header || header.cmsg_len > message->msg_controllen - at) {
      return;
    }
    const bool passes = header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS;
    for (std::size_t i = CMSG_LEN(0); passes && i + sizeof(int) <= header.cmsg_len;
         i += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, bytes + at + i, sizeof fd);
      if (is_listener(fd)) {
        before_spawn();
        return;
      }
    }
    at += CMSG_ALIGN(header.cmsg_len);
  }
}

void before_user_change(uid_t user) noexcept {
  if (user == 0 || user == static_cast<uid_t>(-1) || ::geteuid() != 0) {
    return;
  }
  try {
    const SlowPath process(Process::get());
    if (process && (process->agent == nullptr || !process->agent->prepare_rendezvous(user))) {
      process->prepare_rendezvous(user);
    }
  } catch (...) {
  }
}

void after_user_change() noexcept {
  Process* existing = Process::existing();
  if (existing == nullptr) {
    return;
  }
  const ErrnoGuard guard;
  try {
    Agent* agent = nullptr;
    {
      const SlowPath process(existing);
      agent = process && process->is_this() ? process->agent : nullptr;
    }
    if (agent != nullptr) {
      agent->follow_user();  // it may be waiting for the slow path
    }
  } catch (...) {
  }
}

// Capabilities are a thread's own: the agent keeps what the program's gives up
// (dnsmasq, all but CAP_SETUID), until all of them become another user.
void before_capability_change() noexcept {
  if (::geteuid() != 0) {
    return;
  }
  try {
    const SlowPath process(Process::existing());
    if (process && process->agent == nullptr && Process::holds_listeners()) {
      process->agent = Agent::start(*process);
    }
  } catch (...) {
  }
}

SlowPath::~SlowPath() {
  if (process_ != nullptr) {
    g_locks.process.unlock();
    ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  }
}

void lock_descriptors() noexcept {
  g_locks.descriptors.lock();
}
void unlock_descriptors() noexcept {
  g_locks.descriptors.unlock();
}

void lock_own_descriptors() noexcept {
  g_locks.own_descriptors.lock();
}
void unlock_own_descriptors() noexcept {
  g_locks.own_descriptors.unlock();
}

// Who forks has it already, if another's handler binds or waits before the fork.
void lock_memory() noexcept {
  if (g_locks.memory_keeper.load() != ::pthread_self()) {
    g_locks.memory.lock();
  }
}
void unlock_memory() noexcept {
  if (g_locks.memory_keeper.load() != ::pthread_self()) {
    g_locks.memory.unlock();
  }
}

DescriptorsHeld::DescriptorsHeld() noexcept {
  block_signals(old_mask_);
  if (Process* process = Process::existing()) {
    process->settle_if_forked();
  }
  lock_descriptors();
}

DescriptorsHeld::~DescriptorsHeld() {
  unlock_descriptors();
  ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

namespace {

// Before Linux 6.15 nobody can ask how a process has ended whose parent has waited for it.
void part_from_predecessors(int status, void* /*unused*/) noexcept {
  Process* process = Process::existing();
  const ProcessEnd end{.how = ProcessEnd::How::exited, .value = status & 0xFF};
  if (process == nullptr || process->page == nullptr || !process->is_this() ||
      !end.is_on_purpose() || process->page->main.load() != ::getpid() ||
      now(real_sys()) >= process->page->probation_ends.load()) {
    return;
  }
  try {
    if (process->agent == nullptr) {
      process->say_goodbye();
    } else if (!process->agent->say_goodbye()) {
      process->log.debug("no time to say that this process ends on purpose");
    }
  } catch (...) {
  }
}

__attribute__((constructor)) void notice_exit() noexcept {
  ::on_exit(&part_from_predecessors, nullptr);
}

// Who ends by exit is not to be looked for any more. Who is killed leaves a
// socket that refuses, which the next look removes.
__attribute__((destructor)) void withdraw_at_exit() noexcept {
  // Without the lock: another thread may hold it for long, and nobody waits for
  // that at its end.
  Process* process = Process::existing();
  try {
    if (process != nullptr && process->published != nullptr && process->is_this() &&
        process->agent->is_last()) {
      process->published->withdraw(process->identity, process->generation);
    }
  } catch (...) {
  }
}

}  // namespace

void end_outlived(Process& process) {
  process.log.warn("this process has handed over what it would bind; it ends");
  ::_exit(0);
}

void end_successor(Process& process, const std::string& reason) {
  constexpr int told_to_end = 75;
  abandon_hiding(process);
  process.log.error("{}; this program ends, and nothing has changed", reason);
  ::_exit(told_to_end);
}

}  // namespace continuity::shim

// The library for programs that ask, in the same process: it wins.
CONTINUITY_EXPORT int continuity_stand_aside() noexcept {
  return continuity::shim::Process::stand_aside() ? 0 : -1;
}
