#include "cli/supervisor.hpp"

#include "cli/output.hpp"
#include "core/channel.hpp"
#include "core/notice.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// The preload's, if that is in this process.
extern "C" __attribute__((weak, visibility("default"))) int continuity_stand_aside() noexcept;

namespace continuity::cli {
namespace {

constexpr Nanoseconds first_look = 10 * millisecond;
constexpr Nanoseconds later_look = 50 * millisecond;
// Signals and notices wait while somebody is silent.
constexpr Nanoseconds look_time = 200 * millisecond;
constexpr Nanoseconds first_while = second;       // after that, the later interval
constexpr Nanoseconds request_time = 2 * second;  // who wants a restart says so
// How long a listener that the server has closed stays open here.
constexpr Nanoseconds keeping_interval = second;
// Who has failed in its probation is followed by its predecessor within this time.
constexpr Nanoseconds revival_time = 2 * second;
// One that has lived so long has not failed at its start.
constexpr Nanoseconds good_life = 60 * second;
constexpr Nanoseconds longest_pause = 30 * second;
// What a run that was told to end has left, before it is killed.
constexpr Nanoseconds last_words = 5 * second;
constexpr std::array forwarded{SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM, SIGCONT, SIGTSTP};
constexpr std::array stopping{SIGTERM, SIGINT, SIGQUIT};

sigset_t watched_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : {SIGCHLD, SIGHUP}) {
    ::sigaddset(&set, signal);
  }
  for (const int signal : forwarded) {
    ::sigaddset(&set, signal);
  }
  for (const int signal : stopping) {
    ::sigaddset(&set, signal);
  }
  return set;
}

Nanoseconds microseconds(Nanoseconds time) {
  return time / microsecond;
}

// A stopped one may not, and one that starts does not yet. Of an earlier release nobody knows
// more than that it is there.
bool can_be_restarted(const Server& server) {
  return server.serves() && server.answer != Server::Answer::silent &&
         (server.answer == Server::Answer::earlier ||
          server.report.phase != ReportedPhase::starting);
}

const char* variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets any
  return value != nullptr ? value : "";
}

}  // namespace

Address control_address(const Sys& sys, pid_t supervisor) {
  struct stat space {};
  sys.fstatat(AT_FDCWD, "/proc/self/ns/pid", &space, 0);
  return *parse_address(compose("unix:@continuity-supervise-{}-{}", space.st_ino, supervisor));
}

Supervisor::Supervisor(const Sys& sys, SupervisorChoices choices)
    : sys_(&sys),
      choices_(std::move(choices)),
      options_(own_options()),
      proc_(open_proc(sys)),
      processes_(sys, proc_.get()),
      manager_(sys, variable("NOTIFY_SOCKET")),
      notices_(sys),
      keeper_(sys) {
  log_.open(sys, options_.log_level, options_.log_file, std::getenv("JOURNAL_STREAM"));  // NOLINT
  // What it has not been told is what the processes it supervises go by.
  choices_.start_timeout =
      choices_.start_timeout != 0 ? choices_.start_timeout : options_.ready_timeout + 10 * second;
  choices_.stop_timeout =
      choices_.stop_timeout != 0 ? choices_.stop_timeout : options_.stop_timeout;
}

bool Supervisor::prepare() {
  if (continuity_stand_aside != nullptr) {
    continuity_stand_aside();  // our own sockets are nobody's business
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // daemons come back to us
  const sigset_t watched = watched_signals();
  ::sigprocmask(SIG_BLOCK, &watched, &command_.mask);
  signals_ = OwnedFd(*sys_, ::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  std::string problem;
  rendezvous_ = Rendezvous::open(*sys_, options_.directory, sys_->geteuid(), problem);
  if (!signals_.is_open() || !rendezvous_) {
    complain(Exit::system, rendezvous_ ? "signalfd: no descriptor" : problem);
    return false;
  }
  arrivals_.emplace(*sys_, rendezvous_->path());
  auto given = take_listen_fds(*sys_);
  command_.arguments = choices_.command;
  command_.environment = {
      preload_variable(),
      notices_.address().empty() ? "NOTIFY_SOCKET" : "NOTIFY_SOCKET=" + notices_.address(),
      "WATCHDOG_PID"};  // it is meant for whoever serves
  if (choices_.keeps && !given.empty()) {
    keeper_.hold(std::move(given));
    has_stored_ = true;
    identity_ = identity_of(
        options_, choices_.command.front().substr(choices_.command.front().find_last_of('/') + 1));
    keeper_.offer(identity_);
    log_.info("{} listeners are kept from before; the server takes them over", keeper_.count());
  }
  const Address name = control_address(*sys_, sys_->getpid());
  control_ =
      OwnedFd(*sys_, sys_->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (sys_->bind(control_.get(), name.get(), name.length) != 0 ||
      sys_->listen(control_.get(), 8) != 0) {
    log_.warn("the name {} is taken: continuity reload does not reach us, SIGHUP does",
              name.abstract_name());
    control_.reset();
  }
  return true;
}

int Supervisor::run() {
  if (!prepare()) {
    return static_cast<int>(Exit::system);
  }
  begin_run();
  while (!ended_) {
    wait_for_something();
  }
  return last_status_;
}

void Supervisor::wait_for_something() {
  std::array<pollfd, 5> fds{
      {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
       {.fd = notices_.fd(), .events = POLLIN, .revents = 0},
       {.fd = request_.is_open() ? -1 : control_.get(), .events = POLLIN, .revents = 0},
       {.fd = request_.get(), .events = POLLIN, .revents = 0},
       {.fd = arrivals_->fd(), .events = POLLIN, .revents = 0}}};
  const Nanoseconds until = std::min({next_look_, deadline_, request_deadline_});
  const timespec timeout = to_timespec(until == never ? never : until - now(*sys_));
  if (sys_->ppoll(fds.data(), fds.size(), until == never ? nullptr : &timeout) < 0) {
    return;
  }
  // What the server says before it ends is heard before its end.
  if (fds[1].revents != 0) {
    on_notices();
  }
  if (fds[4].revents != 0) {
    on_arrivals();
  }
  if (fds[0].revents != 0) {
    on_signals();
  }
  if (fds[2].revents != 0) {
    on_control();
  }
  if (fds[3].revents != 0) {
    on_request();
  } else if (now(*sys_) >= request_deadline_) {
    request_.reset();
  }
  request_deadline_ = request_.is_open() ? request_deadline_ : never;
  if (!ended_ && now(*sys_) >= std::min(next_look_, deadline_)) {
    next_look_ = never;
    on_time();
  }
}

void Supervisor::on_time() {
  switch (phase_) {
    case Phase::starting:
      look_at_start();
      break;
    case Phase::restarting:
      look_at_restart();
      break;
    case Phase::serving: {
      if (std::exchange(wants_restart_, false)) {
        request_restart({});
        break;
      }
      keeper_.look_whether_taken();
      auto all = look();
      if (Server* const seen = find_new(all); seen != nullptr && now_ && now_->generation == 0) {
        note_serving(*now_, *seen);
      }
      keep(now_ ? find(all, now_->generation) : nullptr);
      break;
    }
    case Phase::pausing:
      begin_run();
      break;
    case Phase::stopping:
      kill_all();
      break;
  }
}

// ---- What we are told ------------------------------------------------------------------

void Supervisor::on_signals() {
  signalfd_siginfo info{};
  while (!ended_ && sys_->read(signals_.get(), &info, sizeof info) == sizeof info) {
    on_signal(static_cast<int>(info.ssi_signo));
  }
}

void Supervisor::on_signal(int signal) {
  if (signal == SIGCHLD) {
    reap();
  } else if (signal == SIGHUP) {
    on_hangup();
  } else if (std::find(stopping.begin(), stopping.end(), signal) != stopping.end()) {
    begin_to_stop(signal);
  } else if (now_ || next_) {
    sys_->kill(now_ ? now_->main : next_->main, signal);
  }
}

// A run that finishes what it has in hand has nothing to say about the service.
void Supervisor::on_notices() {
  while (auto notice = notices_.receive()) {
    const pid_t child = child_above(notice->sender);
    const bool outdated =
        std::any_of(old_.begin(), old_.end(), [&](const Run& run) { return run.main == child; });
    if (notice->lines.empty() || child == 0 || outdated) {
      continue;
    }
    server_is_ready_ = server_is_ready_ || read_notice(notice->lines).is_ready;
    std::vector<int> fds;
    for (const OwnedFd& fd : notice->fds) {
      fds.push_back(fd.get());
    }
    manager_.say(lines_to_pass_on(notice->lines), fds);
    if (phase_ == Phase::starting) {
      schedule(0);
    }
  }
}

// Anybody of this user may have come; a look tells. If that comes too late, because who has come
// has failed at once, it has served all the same.
void Supervisor::on_arrivals() {
  for (const std::uint64_t generation : arrivals_->take()) {
    has_arrived_ = has_arrived_ || !known_.contains(generation);
  }
  if (phase_ == Phase::starting || phase_ == Phase::restarting) {
    schedule(0);
  }
}

// Who sends a signal hears of no refusal: what it was sent for has changed, and the run that
// starts may have read it before.
void Supervisor::on_hangup() {
  if (phase_ == Phase::starting || phase_ == Phase::restarting) {
    log_.info("SIGHUP: restarted when the run that starts has come to serve");
    wants_restart_ = true;
  } else if (phase_ != Phase::pausing) {  // which a run that reads everything anew ends
    request_restart({});
  }
}

// Everybody can come to a name in the abstract namespace, say nothing there, and come again:
// whoever has a right to ask must not wait for him, nor the log grow with him.
void Supervisor::on_control() {
  request_ =
      OwnedFd(*sys_, sys_->accept4(control_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!request_.is_open()) {
    return;
  }
  request_deadline_ = after(*sys_, request_time);
  const auto peer =
      Channel(*sys_, OwnedFd(*sys_, sys_->fcntl(request_.get(), F_DUPFD_CLOEXEC, 0))).peer();
  if (peer && (peer->uid == sys_->geteuid() || peer->uid == 0)) {
    return;
  }
  request_.reset();
  if (now(*sys_) >= next_stranger_) {
    log_.warn("user {} wants a restart; ignored", peer ? peer->uid : 0);
    next_stranger_ = after(*sys_, second);
  }
}

void Supervisor::on_request() {
  OwnedFd asker = std::move(request_);
  std::array<char, 64> text{};
  const ssize_t size = sys_->read(asker.get(), text.data(), text.size());
  if (size > 0 && std::string_view(text.data(), static_cast<std::size_t>(size)) == "restart") {
    request_restart(std::move(asker));
  }
}

void Supervisor::answer(OwnedFd& asker, const Answer& answer) {
  if (!asker.is_open()) {
    return;
  }
  const std::string text = compose("{} {}", static_cast<int>(answer.exit), answer.sentence);
  iovec body{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};  // NOLINT
  msghdr message{};
  message.msg_iov = &body;
  message.msg_iovlen = 1;
  sys_->sendmsg(asker.get(), &message, MSG_NOSIGNAL);
  asker.reset();
}

// ---- Runs ------------------------------------------------------------------------------

// The first, one that is to follow another, or one after a failure.
void Supervisor::begin_run() {
  known_.clear();
  arrivals_->take();
  // Ourselves as well, if we offer what the run before has left.
  for (const Server& one : find_servers(*rendezvous_, look_time)) {
    known_.insert(one.generation);
  }
  began_ = now(*sys_);
  took_over_ = false;
  server_is_ready_ = false;
  has_arrived_ = false;
  const auto started = start_server(command_);
  if (!started) {
    const std::string why = compose("{}: {}: {}", choices_.command.front(), started.error().step,
                                    error_text(started.error().code));
    if (phase_ == Phase::restarting) {
      finish_restart({Exit::failed, why});
    } else {
      complain(Exit::failed, why);
      last_status_ = started.error().code == ENOENT ? 127 : 126;
      end(last_status_);
    }
    return;
  }
  next_ = Run{.started = *started, .main = *started};
  if (phase_ != Phase::restarting) {
    phase_ = Phase::starting;
    deadline_ = never;
  }
  log_.info("pid {} is started: {}", *started, choices_.command.front());
  schedule(first_look);
}

void Supervisor::request_restart(OwnedFd asker) {
  if (phase_ != Phase::serving) {
    const char* const why = phase_ == Phase::restarting ? "another restart is under way"
                            : phase_ == Phase::stopping ? "the server is being stopped"
                                                        : "the server does not serve yet";
    log_.warn("no restart: {}", why);
    answer(asker, {Exit::failed, why});
    return;
  }
  asker_ = std::move(asker);
  phase_ = Phase::restarting;
  manager_.say(
      compose("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Restarting\n", microseconds(now(*sys_))));
  begin_run();
  if (phase_ == Phase::restarting) {
    deadline_ = after(*sys_, choices_.start_timeout);
    manager_.say(compose("EXTEND_TIMEOUT_USEC={}\n",
                         microseconds(choices_.start_timeout + options_.probation + 10 * second)));
  }
}

void Supervisor::finish_restart(const Answer& told) {
  if (told.exit == Exit::done) {
    log_.info("the restart has succeeded: {}", told.sentence);
  } else {
    log_.error("the restart has failed: {}", told.sentence);
  }
  come_to_serve();
  manager_.say(compose("READY=1\nSTATUS={}: {}\n",
                       told.exit == Exit::done ? "Serving" : "Serving as before a failed restart",
                       told.sentence));
  answer(asker_, told);
}

// It is of no use any more; who serves goes on.
void Supervisor::fail_restart(const std::string& why) {
  if (next_) {
    sys_->kill(next_->main, SIGTERM);
    old_.push_back(*std::exchange(next_, std::nullopt));
  }
  finish_restart({took_over_ ? Exit::rolled_back : Exit::failed, why});
}

void Supervisor::come_to_serve() {
  phase_ = Phase::serving;
  began_ = now(*sys_);
  deadline_ = never;
  schedule(0);
}

// Until the first run waits for work, or says that it is ready.
void Supervisor::look_at_start() {
  auto all = look();
  Server* const serving = find_new(all);
  if (serving == nullptr && !server_is_ready_) {
    schedule(now(*sys_) - began_ < first_while ? first_look : later_look);
    return;
  }
  if (serving != nullptr) {
    note_serving(*next_, *serving);
    log_.info("pid {} serves", next_->main);
  } else {
    log_.warn(
        "the server says that it is ready, and is not seen at the rendezvous: it cannot be "
        "restarted without loss");
  }
  now_ = std::exchange(next_, std::nullopt);
  come_to_serve();
  if (!announced_) {
    manager_.say("READY=1\nSTATUS=Serving\n");
    announced_ = true;
  }
}

// Of whom nothing was taken over nobody else says that it is to end.
void Supervisor::stop_if_it_serves(const Run& run, std::vector<Server>& all) {
  const Server* const seen = find(all, run.generation);
  if (seen == nullptr || seen->answer != Server::Answer::report) {
    return;
  }
  const int signal = options_.stop_signal != 0 ? options_.stop_signal : SIGTERM;
  log_.warn("pid {} serves other addresses than its successor; ending it ({})", run.main,
            signal_name(signal));
  sys_->kill(run.main, signal);
}

void Supervisor::look_at_restart() {
  auto all = look();
  Server* const serving = find_new(all);
  if (serving != nullptr) {
    if (!took_over_) {
      took_over_ = true;
      deadline_ = never;
      note_serving(*next_, *serving);
      log_.info("pid {} serves, on probation", next_->main);
    }
    if (serving->report.state != HolderState::on_probation) {
      const pid_t successor = next_->main;
      if (now_) {
        stop_if_it_serves(*now_, all);
        old_.push_back(*now_);
      }
      now_ = std::exchange(next_, std::nullopt);
      finish_restart({Exit::done, compose("pid {} serves, {} s after it was started", successor,
                                          in_seconds(now(*sys_) - began_))});
      return;
    }
  } else if (took_over_ && now_ && find(all, now_->generation) != nullptr) {
    fail_restart(compose("pid {} has failed after it had taken over; pid {} serves again",
                         next_ ? next_->main : 0, now_->main));
    return;
  } else if (now(*sys_) >= deadline_) {
    fail_restart(compose("pid {} has not taken over within {} s", next_->main,
                         in_seconds(choices_.start_timeout)));
    return;
  }
  schedule(now(*sys_) - began_ < first_while ? first_look : later_look);
}

void Supervisor::note_serving(Run& run, const Server& seen) {
  run.generation = seen.generation;
  identity_ = seen.answer == Server::Answer::report ? seen.report.identity : seen.name;
  if (const pid_t main = child_above(seen.pid); main != 0) {
    run.main = main;
  }
}

// As long as the manager has copies nobody else can bind these addresses.
void Supervisor::forget_stored() {
  if (std::exchange(has_stored_, false)) {
    manager_.say("FDSTOREREMOVE=1\nFDNAME=continuity\n");
  }
}

// Copies of what is served now, also with the manager, where they outlive us.
void Supervisor::keep(Server* serving) {
  schedule(keeping_interval);
  if (!choices_.keeps) {
    return;
  }
  if (keeper_.offers()) {
    keeper_.look_whether_taken();
    return;
  }
  if (serving == nullptr || serving->answer != Server::Answer::report) {
    return;
  }
  if (!keeper_.follow(*serving) || !manager_.is_there() || *variable("FDSTORE") == '0') {
    return;
  }
  forget_stored();
  const auto fds = keeper_.descriptors();
  constexpr std::size_t most = 253;  // of one message
  for (std::size_t at = 0; at < fds.size(); at += most) {
    manager_.say("FDSTORE=1\nFDNAME=continuity\n",
                 {fds.begin() + static_cast<std::ptrdiff_t>(at),
                  fds.begin() + static_cast<std::ptrdiff_t>(std::min(at + most, fds.size()))});
  }
  has_stored_ = !fds.empty();
}

// ---- Ends ------------------------------------------------------------------------------

void Supervisor::reap() {
  int status = 0;
  for (pid_t pid = 0; !ended_ && (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    on_end(pid, status);
  }
}

void Supervisor::on_end(pid_t pid, int status) {
  std::erase_if(old_, [&](const Run& run) { return run.main == pid; });
  if (phase_ == Phase::stopping) {
    if ((now_ && now_->main == pid) || (next_ && next_->main == pid && !now_)) {
      last_status_ = exit_status_of(status);
    }
    if (children().empty()) {
      end(last_status_);
    }
    return;
  }
  if (now_ && now_->main == pid) {
    if (phase_ == Phase::serving) {
      on_end_of_server(status);
    } else {
      now_.reset();  // its successor takes over from the dead
      last_status_ = exit_status_of(status);
    }
    return;
  }
  if (next_ && (next_->main == pid || next_->started == pid)) {
    on_end_of_next(pid, status);
  }
}

// The run that was to serve, or had begun to.
void Supervisor::on_end_of_next(pid_t pid, int status) {
  if (exit_status_of(status) == 0 && !took_over_ && has_unknown_children()) {
    return;  // the parent of a daemon
  }
  const std::string how = compose("pid {} {}", pid, how_it_ended(status));
  on_arrivals();
  if (phase_ == Phase::starting) {
    if (has_arrived_) {
      now_ = std::exchange(next_, std::nullopt);
      on_end_of_server(status);
      return;
    }
    next_.reset();
    last_status_ = exit_status_of(status);
    // One that could not even start once is for somebody to look at.
    if (failures_ == 0) {
      log_.error("{} before it served", how);
      end(last_status_);
    } else {
      start_again(how + " before it served", false);
    }
    return;
  }
  if (!took_over_ && !has_arrived_) {
    next_.reset();
    if (now_) {
      finish_restart({Exit::failed, how + " before it was ready"});
    } else {
      finish_restart({Exit::failed, how + " before it was ready, and nobody serves any more"});
      start_again(how, false);
    }
    return;
  }
  on_end_in_probation(how, status);
}

// Its predecessor serves again, or it was stopped on purpose.
void Supervisor::on_end_in_probation(const std::string& how, int status) {
  const Nanoseconds until = after(*sys_, revival_time);
  next_.reset();
  do {
    auto all = look();
    if (now_ && find(all, now_->generation) != nullptr) {
      finish_restart({Exit::rolled_back,
                      compose("{} after it had taken over; pid {} serves again", how, now_->main)});
      return;
    }
    pause_for(*sys_, first_look);
  } while (!from_wait_status(status).is_on_purpose() && now(*sys_) < until);
  if (now_) {
    old_.push_back(*now_);
  }
  finish_restart({Exit::failed, how + " after it had taken over"});
  on_end_of_server(status);
}

void Supervisor::on_end_of_server(int status) {
  const std::string how = compose("pid {} {}", now_ ? now_->main : 0, how_it_ended(status));
  const bool lived_well = now(*sys_) - began_ >= good_life;
  now_.reset();
  last_status_ = exit_status_of(status);
  if (from_wait_status(status).is_on_purpose()) {
    log_.info("{}", how);
    begin_to_stop(0);
    return;
  }
  failures_ = lived_well ? 0 : failures_;
  start_again(how, true);
}

// At once the first time, and later after pauses that grow. What clients do meanwhile
// waits in the queues of the listeners, if we have them.
void Supervisor::start_again(const std::string& why, bool has_served) {
  if (failures_ >= choices_.again) {
    log_.error("{}; it is not started again ({} times in a row)", why, failures_);
    begin_to_stop(0);
    return;
  }
  const Nanoseconds pause =
      failures_ == 0 ? 0 : std::min(longest_pause, second << std::min(failures_ - 1, 5U));
  ++failures_;
  // A run that does not come to serve although it could have the listeners may be one that
  // cannot take them over, as another user.
  constexpr unsigned tries_with_listeners = 2;
  if (!has_served && failures_ > tries_with_listeners && keeper_.offers()) {
    keeper_.let_go();
    forget_stored();
  }
  const bool kept = keeper_.count() > 0 && keeper_.offer(identity_);
  log_.error("{}; it is started again in {} s{}", why, in_seconds(pause),
             kept ? "; its listeners are kept open meanwhile" : "");
  manager_.say(compose("STATUS=Starting again: {}\n", why));
  phase_ = Phase::pausing;
  wants_restart_ = false;  // the next run reads everything anew
  deadline_ = never;
  schedule(pause);
}

// 0: it has ended by itself, and what is left is waited for.
void Supervisor::begin_to_stop(int signal) {
  manager_.say(compose("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n",
                       microseconds(choices_.stop_timeout + last_words + 5 * second)));
  keeper_.let_go();
  phase_ = Phase::stopping;
  next_look_ = never;
  deadline_ = std::min(deadline_, after(*sys_, choices_.stop_timeout));
  answer(asker_, {Exit::failed, "the server is being stopped"});
  // First those that could come back: who drains, and what a failed run has left behind.
  auto others = children();
  for (const auto& run : {now_, next_}) {
    if (run) {
      others.erase(run->main);
    }
  }
  if (signal != 0) {
    for (const pid_t process : others) {
      sys_->kill(process, signal);
    }
    for (const auto& run : {now_, next_}) {
      if (run) {
        sys_->kill(run->main, signal);
      }
    }
  }
  if (children().empty()) {
    end(last_status_);
  }
}

void Supervisor::kill_all() {
  if (!killed_) {
    log_.warn("still here {} s after they were told to stop; ending with SIGKILL",
              in_seconds(choices_.stop_timeout));
  }
  killed_ = true;
  const auto parents = processes_.parents();
  for (const auto& [process, parent] : parents) {
    if (process != sys_->getpid() && processes_.is_below(process, {sys_->getpid()})) {
      sys_->kill(process, SIGKILL);
    }
  }
  deadline_ = after(*sys_, second);  // who was forked meanwhile
}

void Supervisor::end(int status) {
  last_status_ = status;
  ended_ = true;
}

// ---- Who is there ----------------------------------------------------------------------

// Generations of processes that we have started.
std::vector<Server> Supervisor::look() {
  auto all = find_servers(*rendezvous_, look_time);
  std::erase_if(all, [&](const Server& one) {
    return one.pid == sys_->getpid() || child_above(one.pid) == 0;
  });
  return all;
}

Server* Supervisor::find(std::vector<Server>& all, std::uint64_t generation) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const Server& one) {
    return one.generation == generation && can_be_restarted(one);
  });
  return found != all.end() ? &*found : nullptr;
}

Server* Supervisor::find_new(std::vector<Server>& all) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const Server& one) {
    return can_be_restarted(one) && !known_.contains(one.generation);
  });
  return found != all.end() ? &*found : nullptr;
}

// Our child that `process` is, or is below of; 0: none.
pid_t Supervisor::child_above(pid_t process) const {
  const pid_t self = sys_->getpid();
  constexpr int deepest = 64;
  for (int depth = 0; process > 1 && depth < deepest; ++depth) {
    const pid_t parent = processes_.parent_of(process);
    if (parent == self) {
      return process;
    }
    process = parent;
  }
  return 0;
}

std::set<pid_t> Supervisor::children() const {
  std::set<pid_t> found;
  for (const auto& [process, parent] : processes_.parents()) {
    if (parent == sys_->getpid()) {
      found.insert(process);
    }
  }
  return found;
}

bool Supervisor::has_unknown_children() const {
  auto all = children();
  for (const Run& run : old_) {
    all.erase(run.main);
  }
  if (now_) {
    all.erase(now_->main);
  }
  return !all.empty();
}

}  // namespace continuity::cli
