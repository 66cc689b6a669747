#include "shim/process.hpp"

#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"

#include <cstdlib>
#include <errno.h>  // program_invocation_short_name
#include <fcntl.h>
#include <new>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
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
constinit pthread_mutex_t g_creation = PTHREAD_MUTEX_INITIALIZER;
constinit pthread_mutex_t g_descriptors = PTHREAD_MUTEX_INITIALIZER;

alignas(Process) constinit std::byte g_process_memory[sizeof(Process)]{};

constexpr std::size_t longest_identity = 64;

void block_signals(sigset_t& old_mask) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &old_mask);
}

std::string identity_of(const Options& options) {
  std::string identity = options.name.empty() ? program_invocation_short_name : options.name;
  identity.resize(std::min(identity.size(), longest_identity));
  for (char& c : identity) {
    if (c == '/') {
      c = '_';
    }
  }
  if (identity.empty() || identity.front() == '.') {
    identity.insert(identity.begin(), '_');
  }
  return identity;
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
  ::pthread_mutex_lock(&g_creation);
  Process* process = existing();
  if (process == nullptr && ::getauxval(AT_SECURE) == 0) {
    try {
      process = new (&g_process_memory) Process;
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
  ::pthread_mutex_unlock(&g_creation);
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  return process;
}

Process::Process() : pid_(::getpid()) {
  read_environment();
  identity = identity_of(options);
  generation = random_generation();
  open_proc();
}

bool Process::open_proc() {
  if (!proc.is_open()) {
    proc = OwnedFd(real_sys(),
                   real_sys().openat(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  }
  return proc.is_open();
}

void Process::read_environment() {
  auto read = read_options([](const char* name) -> const char* { return ::getenv(name); });
  options = std::move(read.options);
  if (options.disabled) {
    return;
  }
  log.open(real_sys(), options.log_level, options.log_file, ::getenv("JOURNAL_STREAM"));
  for (const OptionError& error : read.errors) {
    log.error("{}={} is not {}; the default is used", error.variable, error.value, error.expected);
  }
  if (options.ready == ReadyEvidence::notify) {
    log.error("CONTINUITY_READY=notify is not supported by this release; wait is used");
    options.ready = ReadyEvidence::wait;
  }
}

Rendezvous* Process::rendezvous() {
  const uid_t user = real_sys().geteuid();
  if (rendezvous_.count(user) == 0) {
    std::string problem;
    rendezvous_.emplace(user, Rendezvous::open(real_sys(), options.directory, user, problem));
    if (!rendezvous_.at(user)) {
      log.error("{}; until then this program cannot be restarted without loss", problem);
    }
  }
  auto& place = rendezvous_.at(user);
  return place ? &*place : nullptr;
}

void Process::prepare_rendezvous(uid_t user) {
  if (rendezvous_.count(user) != 0) {
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
  if (fork_sensitive_ == nullptr) {
    void* memory = ::mmap(nullptr, sizeof(ForkSensitive), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      return false;
    }
    ::madvise(memory, sizeof(ForkSensitive), MADV_WIPEONFORK);
    fork_sensitive_ = new (memory) ForkSensitive;
    fork_sensitive_->gate.store(static_cast<std::uint32_t>(Gate::unsettled));
    fork_sensitive_->same_process.store(1);
    g_gate.store(&fork_sensitive_->gate);
  }
  if (shared_ == nullptr) {
    void* memory = ::mmap(nullptr, sizeof(SharedRecord), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      return false;
    }
    shared_ = new (memory) SharedRecord{};
    shared_->binder.store(::getpid());
  }
  if (!atfork_registered_) {
    atfork_registered_ = ::pthread_atfork(nullptr, nullptr, &after_fork_in_child) == 0;
  }
  return true;
}

void Process::set_gate(Gate gate) {
  if (fork_sensitive_ != nullptr) {
    fork_sensitive_->gate.store(static_cast<std::uint32_t>(gate), std::memory_order_release);
  }
}

bool Process::is_this() const {
  return !bystander_ && pid_ == ::getpid();
}

ClaimedListener* Process::claim_of(int fd) {
  for (ClaimedListener& claim : claims) {
    for (const int number : claim.fds) {
      if (number == fd) {
        return &claim;
      }
    }
  }
  return nullptr;
}

// A child of a process that hands over already has no part in it; a child of
// one that is still starting up (a daemon) carries on in its parent's place.
void Process::settle_in_forked_child() noexcept {
  pid_ = ::getpid();
  ::pthread_mutex_init(&mutex_, nullptr);
  ::pthread_mutex_init(&g_descriptors, nullptr);
  forget_accept_slots();
  fork_sensitive_->same_process.store(1);
  if (agent == nullptr) {
    set_gate(Gate::unsettled);
    return;
  }
  step_aside();
}

void Process::step_aside() noexcept {
  bystander_ = true;
  close_own_descriptors();
  for (int fd = g_highest_fd.load(); fd >= 0; --fd) {
    set_fd_flags(fd, 0);
  }
  set_gate(Gate::open);
}

bool Process::leads() {
  const pid_t self = ::getpid();
  pid_t leader = 0;
  if (shared_ == nullptr || shared_->leader.compare_exchange_strong(leader, self) ||
      leader == self) {
    return true;
  }
  shared_->aside.fetch_add(1);
  // Not before the predecessor is deaf.
  while (shared_->settled.load() == 0 && real_sys().kill(leader, 0) == 0) {
    const timespec pause = to_timespec(millisecond);
    real_sys().ppoll(nullptr, 0, &pause);
  }
  log.debug("pid {} waits on these listeners too; this process steps aside", leader);
  step_aside();
  return false;
}

void Process::note_settled() {
  if (shared_ != nullptr) {
    shared_->settled.store(1);
  }
}

void Process::after_fork_in_child() noexcept {
  Process* process = existing();
  if (process != nullptr && process->fork_sensitive_->same_process.load() == 0) {
    process->settle_in_forked_child();
  }
}

// ---- Entry ------------------------------------------------------------------------

SlowPath::SlowPath(Process* process) noexcept : process_(process) {
  if (process_ == nullptr || process_->bystander_) {
    process_ = nullptr;
    return;
  }
  if (process_->fork_sensitive_ != nullptr) {
    if (process_->fork_sensitive_->same_process.load() == 0) {
      // A fork that skips the handlers: _Fork, clone.
      process_->settle_in_forked_child();
      if (process_->bystander_) {
        process_ = nullptr;
        return;
      }
    } else if (process_->pid_ != ::getpid()) {
      process_ = nullptr;  // vfork: this is the parent's memory
      return;
    }
  }
  block_signals(old_mask_);
  ::pthread_mutex_lock(&process_->mutex_);
}

void before_user_change(uid_t user) noexcept {
  if (user == 0 || user == static_cast<uid_t>(-1) || ::geteuid() != 0) {
    return;
  }
  try {
    const SlowPath process(Process::get());
    if (process) {
      process->prepare_rendezvous(user);
    }
  } catch (...) {
  }
}

SlowPath::~SlowPath() {
  if (process_ != nullptr) {
    ::pthread_mutex_unlock(&process_->mutex_);
    ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
  }
}

void lock_descriptors() noexcept {
  ::pthread_mutex_lock(&g_descriptors);
}
void unlock_descriptors() noexcept {
  ::pthread_mutex_unlock(&g_descriptors);
}

DescriptorsHeld::DescriptorsHeld() noexcept {
  block_signals(old_mask_);
  lock_descriptors();
}

DescriptorsHeld::~DescriptorsHeld() {
  unlock_descriptors();
  ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

namespace {

// Who ends by exit is not to be looked for any more. Who is killed leaves a
// socket that refuses, which the next look removes.
__attribute__((destructor)) void withdraw_at_exit() noexcept {
  // Without the lock: another thread may hold it for long, and nobody waits for
  // that at its end.
  Process* process = Process::existing();
  try {
    if (process != nullptr && process->published != nullptr && process->is_this()) {
      process->published->withdraw(process->identity, process->generation);
    }
  } catch (...) {
  }
}

}  // namespace

void end_successor(Process& process, const std::string& reason) {
  constexpr int told_to_end = 75;
  process.log.error("{}; this program ends, and nothing has changed", reason);
  ::_exit(told_to_end);
}

}  // namespace continuity::shim
