#include "core/upgrader.hpp"

#include "core/processes.hpp"
#include "core/wake.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <errno.h>  // program_invocation_short_name
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/random.h>

// The preload library's, or that of the archive with the wrapped calls, if one of them is in
// this process.
extern "C" __attribute__((weak, visibility("default"))) int continuity_stand_aside() noexcept;

namespace continuity {
namespace {

std::uint64_t random_number() {
  std::uint64_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != sizeof number) {
  }
  return number;
}

// The wrapped calls know what the program binds. Only one of us can hand it on.
bool others_stand_aside() {
  return continuity_stand_aside == nullptr || continuity_stand_aside() == 0;
}

constexpr int as_it_is = -1;  // a backlog

Problem no_address(const std::string& text) {
  return {EINVAL, compose("\"{}\" is not an address: host:port, [v6]:port, *:port, unix:/path, "
                          "unix:@name, udp:host:port, unix-dgram:/path or unix-seqpacket:/path",
                          text)};
}

Problem problem_at(const std::string& text, const Error& error) {
  return {error.code, compose("{}: {}: {}", text, error.step, error_text(error.code))};
}

}  // namespace

Upgrader::Upgrader(const Environment& environment)
    : sys_(libc_sys()), process_(sys_.getpid()), progress_(sys_) {
  auto read = read_options(environment);
  options_ = std::move(read.options);
  // Like everybody's, this is a race with a setenv of another thread.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  log_.open(sys_, options_.log_level, options_.log_file, ::getenv("JOURNAL_STREAM"));
  for (const OptionError& error : read.errors) {
    log_.error("{}={} is not {}; the default is used", error.variable, error.value, error.expected);
  }
  // The program leaves by itself: nothing is sent, and nothing may be said to be.
  options_.stop_signal = 0;
  self_ = {identity_of(options_, program_invocation_short_name), random_number(), true};
  proc_ = open_proc(sys_);
  command_ = own_command_line(sys_, proc_.get());
  if (options_.disabled) {
    problem_ = "CONTINUITY_DISABLE is set";
    return;
  }
  if (!others_stand_aside()) {
    problem_ = "this program runs under the preload library, and has bound a socket already";
    log_.warn("{}; that serves it", problem_);
    return;
  }
  rendezvous_ = Rendezvous::open(sys_, options_.directory, sys_.geteuid(), problem_);
  if (rendezvous_) {
    taker_.emplace(sys_, log_, options_, self_);
    owner_.emplace(sys_, log_, proc_.get(), *rendezvous_, self_, progress_);
  }
}

// A forked process has copies of the channels and the door, and not the thread.
Upgrader::~Upgrader() {
  if (thread_running_ && !is_forked()) {
    ending_.store(true);
    ring(sys_, wake_.get());
    ::pthread_join(thread_, nullptr);
    holder_->say_goodbye();
    rendezvous_->withdraw(self_.identity, self_.generation);
  }
}

// ---- Listeners -----------------------------------------------------------------------

Upgrader::Answer<int> Upgrader::get_listener(const std::string& text) {
  const std::lock_guard lock(mutex_);
  const auto name = parse_listener_name(text);
  return name ? get(text, *name, as_it_is) : no_address(text);
}

Upgrader::Answer<int> Upgrader::listen(const std::string& text, int backlog) {
  const std::lock_guard lock(mutex_);
  const auto name = parse_listener_name(text);
  if (!name) {
    return no_address(text);
  }
  auto got = get(text, *name, backlog < 0 ? SOMAXCONN : backlog);
  const auto* problem = std::get_if<Problem>(&got);
  const bool nobody_has_it =
      problem != nullptr &&
      (problem->code == ENOENT || problem->code == ENOTSUP || problem->code == EALREADY);
  return nobody_has_it ? make(text, *name, backlog) : got;
}

// Once this process is ready it owns at once what it gets.
Upgrader::Answer<int> Upgrader::get(const std::string& text, const ListenerName& name,
                                    int backlog) {
  if (!rendezvous_) {
    return Problem{ENOTSUP, problem_};
  }
  if (!refusal_.empty()) {
    return Problem{EALREADY, compose("this process was not to be ready: {}", refusal_)};
  }
  if (const auto state = progress_.outcome().state;
      state == Progress::State::taken_over || state == Progress::State::completed) {
    return Problem{EALREADY,
                   "a successor has taken over from this process, which gets nothing more"};
  }
  forget_closed();
  auto answer = claim(text, name, backlog);
  const int* fd = std::get_if<int>(&answer);
  if (!ready_ || fd == nullptr) {
    return answer;
  }
  Taker::Outcome outcome;
  if (std::string refusal = take_over(outcome); !refusal.empty()) {
    sys_.close(*fd);
    return Problem{ESTALE, std::move(refusal)};
  }
  watch(std::move(outcome));
  return answer;
}

Upgrader::Answer<int> Upgrader::claim(const std::string& text, const ListenerName& name,
                                      int backlog) {
  const Problem nobody{ENOENT, {}};
  const OwnedFd probe(sys_, sys_.socket(name.address.family(), name.type | SOCK_CLOEXEC, 0));
  auto wanted = describe_socket(sys_, probe.get(), &name.address);
  if (!wanted) {
    return problem_at(text, wanted.error());
  }
  if (!name.address.unix_path().empty()) {
    const auto file = find_socket_file(sys_, name.address.unix_path());
    if (!file) {
      return nobody;
    }
    wanted->file = *file;
  }
  auto claim = claim_as_held(*wanted);
  if (claim.found == Taker::Found::refused) {
    return Problem{
        EADDRINUSE,
        compose("{} is held by another generation that does not hand it over now", text)};
  }
  if (claim.found == Taker::Found::nothing) {
    return bind_beside(text, name, *wanted, backlog);
  }
  if (claim.found != Taker::Found::claimed) {
    return nobody;
  }
  const int fd = claim.fd.release();
  got_.push_back({fd, socket_inode(sys_, fd), std::move(claim.listener), backlog});
  return fd;
}

// Whether [v6] has IPv4 peers as well is not said by its name: as the predecessor has it.
Taker::Claim Upgrader::claim_as_held(Listener wanted) {
  auto claim = taker_->claim(*rendezvous_, wanted);
  if (claim.found == Taker::Found::nothing && wanted.address.family() == AF_INET6 &&
      !is_free(sys_, wanted)) {
    wanted.v6only = !wanted.v6only;
    claim = taker_->claim(*rendezvous_, wanted);
  }
  return claim;
}

// Another address in the way, which the predecessor has: the program gets a socket of its
// own beside that, which listens at the take-over.
Upgrader::Answer<int> Upgrader::bind_beside(const std::string& text, const ListenerName& name,
                                            const Listener& wanted, int backlog) {
  const Problem nobody{ENOENT, {}};
  if (name.address.is_unix() || name.type != SOCK_STREAM || name.address.port() == 0 ||
      is_free(sys_, wanted) || conflicts_with_own(wanted)) {
    return nobody;
  }
  auto made = make_socket(sys_, name);
  if (!made) {
    return problem_at(text, made.error());
  }
  Got own{made->get(), socket_inode(sys_, made->get()), wanted,
          backlog == as_it_is ? SOMAXCONN : backlog};
  switch (taker_->bind_beside(*rendezvous_, wanted, own.fd, own.beside)) {
    case Taker::Found::claimed:
      break;
    case Taker::Found::refused:
      return Problem{EADDRINUSE, compose("{} overlaps with what another generation holds, and does "
                                         "not hand over now",
                                         text)};
    default:
      return nobody;
  }
  got_.push_back(std::move(own));
  return made->release();
}

// The program's own sockets conflict with each other as they would without us.
bool Upgrader::conflicts_with_own(const Listener& wanted) {
  const auto conflicts = [&](const Listener& one) {
    return matches(one, wanted) || overlap(one, wanted) != Overlap::none;
  };
  const auto items = owner_->inventory();
  return std::any_of(items.begin(), items.end(),
                     [&](const auto& item) { return conflicts(item.listener); }) ||
         std::any_of(got_.begin(), got_.end(),
                     [&](const Got& one) { return conflicts(one.listener); });
}

// What the program has closed before it was its own stays the predecessor's. Under another
// number it may have it still.
void Upgrader::forget_closed() {
  std::erase_if(got_, [&](Got& one) {
    if (socket_inode(sys_, one.fd) == one.inode) {
      return false;
    }
    const auto copies = still_open(one.inode);
    if (!copies.empty()) {
      one.fd = copies.front();
      return false;
    }
    if (one.beside.empty()) {
      taker_->release(one.listener);
    } else {
      taker_->release_beside(one.beside);
    }
    return true;
  });
}

// The program's numbers of it.
std::vector<int> Upgrader::still_open(std::uint64_t inode) {
  Descriptors descriptors(sys_, proc_.get());
  const auto holdings = descriptors.find({&inode, 1}, [](int) { return false; });
  std::vector<int> ours;
  taker_->append_descriptors(ours);
  std::vector<int> numbers;
  if (holdings) {
    for (const Copy& copy : holdings->copies) {
      if (std::find(ours.begin(), ours.end(), copy.fd) == ours.end()) {
        numbers.push_back(copy.fd);
      }
    }
  }
  return numbers;
}

Upgrader::Answer<int> Upgrader::make(const std::string& text, const ListenerName& name,
                                     int backlog) {
  auto made = make_listener(sys_, name, backlog);
  if (!made) {
    return problem_at(text, made.error());
  }
  if (owner_) {
    const auto file = find_socket_file(sys_, name.address.unix_path());
    owner_->add(made->get(), file.value_or(SocketFile{}));
  }
  return made->release();
}

Upgrader::Told Upgrader::register_listener(int fd) {
  const std::lock_guard lock(mutex_);
  if (!rendezvous_) {
    return Problem{ENOTSUP, problem_};
  }
  const auto listener = describe_socket(sys_, fd);
  if (!listener || !receives_work(sys_, fd)) {
    return Problem{EINVAL, compose("descriptor {} is not a listening socket", fd)};
  }
  const auto file = find_socket_file(sys_, listener->address.unix_path());
  owner_->add(fd, file.value_or(SocketFile{}));
  return Done{};
}

// ---- Other descriptors -----------------------------------------------------------------

namespace {

std::optional<Problem> what_is_wrong_with(const std::string& name) {
  if (!name.empty() && name.size() <= max_descriptor_name) {
    return std::nullopt;
  }
  return Problem{EINVAL, compose("a name has 1 to {} bytes", max_descriptor_name)};
}

}  // namespace

Upgrader::Answer<int> Upgrader::get_descriptor(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (auto problem = what_is_wrong_with(name); problem) {
    return *std::move(problem);
  }
  if (!rendezvous_) {
    return Problem{ENOTSUP, problem_};
  }
  if (ready_) {
    return Problem{EALREADY, "get_descriptor comes before ready"};
  }
  OwnedFd fd = taker_->claim_named(*rendezvous_, name);
  if (!fd.is_open()) {
    return Problem{ENOENT, {}};
  }
  owner_->add_named(name, fd.get());
  return fd.release();
}

Upgrader::Told Upgrader::register_descriptor(const std::string& name, int fd) {
  const std::lock_guard lock(mutex_);
  if (auto problem = what_is_wrong_with(name); problem) {
    return *std::move(problem);
  }
  if (!rendezvous_) {
    return Problem{ENOTSUP, problem_};
  }
  if (sys_.fcntl(fd, F_GETFD, 0) < 0) {
    return Problem{EBADF, compose("descriptor {} is not open", fd)};
  }
  if (!owner_->add_named(name, fd)) {
    return Problem{ENOSPC, compose("no more than {} descriptors have names", max_named)};
  }
  return Done{};
}

// ---- Ready, and afterwards -----------------------------------------------------------

Upgrader::Told Upgrader::ready() {
  const std::lock_guard lock(mutex_);
  if (!ready_) {
    ready_ = true;
    become_owner();
  }
  started_.store(true, std::memory_order_release);
  if (!refusal_.empty()) {
    return Problem{ESTALE, refusal_};
  }
  return Done{};
}

bool Upgrader::has_completed() {
  if (!started_.load(std::memory_order_acquire) && !is_forked()) {
    ready();
  }
  return progress_.has_completed();
}

// Those that may listen before the predecessor is asked, or the others. What failed.
std::optional<std::string> Upgrader::listen_beside(bool early) {
  for (const Got& one : got_) {
    if (!one.beside.empty() && Taker::may_listen_early(one.beside) == early &&
        sys_.listen(one.fd, one.backlog) != 0) {
      return compose("cannot listen at {} beside {}: {}", to_string(one.listener.address),
                     to_string(one.beside.front().listener.address), error_text(errno));
    }
  }
  return std::nullopt;
}

// Becomes the owner of all that was got and is not owned yet. Else why not: who has handed
// over sees the channel close, and takes everything back.
std::string Upgrader::take_over(Taker::Outcome& outcome) {
  forget_closed();
  // When the predecessor lets go of its own, whoever comes must find somebody here.
  if (auto problem = listen_beside(true); problem) {
    taker_->release_channels();
    return *std::move(problem);
  }
  outcome = taker_->become_owner(*rendezvous_, Taker::Share::all, Evidence::said);
  if (!outcome.owner) {
    return outcome.reason;
  }
  if (auto problem = listen_beside(false); problem) {
    outcome.predecessors.clear();
    return *std::move(problem);
  }
  for (const Got& one : got_) {
    if (one.beside.empty() && one.backlog != as_it_is && is_listening(sys_, one.fd)) {
      sys_.listen(one.fd, one.backlog);
    }
    owner_->add(one.fd, one.listener.file);
  }
  got_.clear();
  return {};
}

void Upgrader::become_owner() {
  if (!rendezvous_) {
    return;  // serves, but nobody can follow
  }
  // Before the predecessor is asked: who finds that it has handed over looks for us.
  wake_ = OwnedFd(sys_, sys_.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  auto door = rendezvous_->publish(self_.identity, self_.generation);
  const Nanoseconds began = now(sys_);
  Taker::Outcome outcome;
  if (refusal_ = take_over(outcome); !refusal_.empty()) {
    rendezvous_->withdraw(self_.identity, self_.generation);
    progress_.give_up();
    return;
  }
  if (!outcome.outlived.empty()) {
    progress_.note_predecessor(outcome.outlived.front(), now(sys_) - began);
  }
  const Journal journal = outcome.journal;
  watch(std::move(outcome));
  if (!wake_.is_open() || !door) {
    rendezvous_->withdraw(self_.identity, self_.generation);
    log_.error(
        "the rendezvous socket cannot be made; this program cannot be restarted without loss");
    return;
  }
  door_ = std::move(*door);
  owner_->journal() = journal;
  holder_.emplace(sys_, log_, options_, *owner_,
                  Holder::Self{.identity = self_.identity, .generation = self_.generation},
                  door_.get(), wake_.get());
  take_arrivals();
  start_thread();
}

// As long as nobody watches them their channels are open: a predecessor that sees one close
// takes everything back.
void Upgrader::watch(Taker::Outcome outcome) {
  const std::lock_guard lock(arriving_);
  for (Channel& channel : outcome.predecessors) {
    arrivals_.push_back(std::move(channel));
  }
  arrivals_until_ = std::max(arrivals_until_, outcome.probation_ends);
  if (thread_running_) {
    ring(sys_, wake_.get());
  }
}

void Upgrader::take_arrivals() {
  const std::lock_guard lock(arriving_);
  for (Channel& channel : arrivals_) {
    holder_->watch_predecessor(std::move(channel), arrivals_until_);
  }
  arrivals_.clear();
}

void Upgrader::start_thread() {
  sigset_t all;
  sigset_t old_mask;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &old_mask);
  thread_running_ = ::pthread_create(&thread_, nullptr, &Upgrader::run, this) == 0;
  ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
  if (!thread_running_) {
    log_.error("no thread can be started; this program cannot be restarted without loss");
    rendezvous_->withdraw(self_.identity, self_.generation);
  }
}

void* Upgrader::run(void* self) {
  auto* upgrader = static_cast<Upgrader*>(self);
  while (!upgrader->ending_.load()) {
    try {
      upgrader->take_arrivals();
      upgrader->holder_->run_once();
    } catch (const std::exception&) {  // no memory just now: who asked asks again
    }
  }
  return nullptr;
}

// ---- From inside ---------------------------------------------------------------------

std::optional<Problem> Upgrader::what_forbids_upgrade() {
  if (!thread_running_.load()) {
    return Problem{ENOTSUP,
                   problem_.empty() ? "nobody can follow a process that is not ready" : problem_};
  }
  switch (progress_.outcome().state) {
    case Progress::State::completed:
      return Problem{EALREADY, "a successor has taken over already"};
    case Progress::State::starting:
    case Progress::State::taken_over:
      return Problem{
          EBUSY, compose("pid {} is about to take over already", progress_.outcome().successor)};
    default:
      return std::nullopt;
  }
}

Upgrader::Answer<int> Upgrader::upgrade(std::vector<std::string> arguments, Nanoseconds wait) {
  const std::unique_lock one(upgrading_, std::try_to_lock);
  if (!one) {
    return Problem{EBUSY, "another thread waits for a new run already"};
  }
  if (auto problem = what_forbids_upgrade(); problem) {
    return *std::move(problem);
  }
  CommandLine command = command_;
  if (!arguments.empty()) {
    command.program = arguments.front();
    command.arguments = std::move(arguments);
  }
  const OwnedFd watch = progress_.watch();
  const std::uint64_t changes = progress_.outcome().changes;
  auto successor = NewRun::start(sys_, command);
  if (!successor) {
    return problem_at(command.program, successor.error());
  }
  auto answer = await_outcome(*successor, changes, watch, after(sys_, wait));
  successor->reap();
  return answer;
}

Upgrader::Answer<int> Upgrader::await_outcome(NewRun& successor, std::uint64_t changes,
                                              const OwnedFd& watch, Nanoseconds deadline) {
  const Nanoseconds ready_deadline = after(sys_, options_.ready_timeout);
  for (;;) {
    const Progress::Outcome outcome = progress_.outcome();
    const bool has_begun = outcome.changes != changes;
    if (has_begun && outcome.state == Progress::State::completed) {
      return successor.pid();
    }
    if (has_begun && outcome.state == Progress::State::rolled_back) {
      return Problem{ECHILD, compose("pid {} ended {} s after it took over; serving again",
                                     outcome.successor, in_seconds(outcome.life_time))};
    }
    if (has_begun && outcome.state == Progress::State::failed) {
      return Problem{ECHILD, compose("pid {} was not to be ready; serving on", outcome.successor)};
    }
    if (!has_begun && successor.has_failed()) {
      return Problem{ECHILD, compose("the new run, pid {}, {} before it took over; serving on",
                                     successor.pid(), successor.how_it_ended())};
    }
    const Nanoseconds time = now(sys_);
    if (time >= deadline) {
      return successor.pid();
    }
    if (!has_begun && time >= ready_deadline) {
      sys_.kill(successor.pid(), SIGTERM);
      return Problem{ETIMEDOUT, compose("the new run, pid {}, took nothing over within {} s; it "
                                        "is told to end; serving on",
                                        successor.pid(), in_seconds(options_.ready_timeout))};
    }
    std::array<pollfd, 2> events{{{.fd = watch.get(), .events = POLLIN, .revents = 0},
                                  {.fd = successor.end(), .events = POLLIN, .revents = 0}}};
    const Nanoseconds next = has_begun ? deadline : std::min(deadline, ready_deadline);
    const timespec timeout = to_timespec(next - time);
    sys_.ppoll(events.data(), events.size(), next == never ? nullptr : &timeout);
    std::uint64_t count = 0;
    sys_.read(watch.get(), &count, sizeof count);
    successor.reap();
  }
}

}  // namespace continuity
