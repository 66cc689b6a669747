#include "cli/launch.hpp"

#include "cli/output.hpp"
#include "cli/server_run.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

std::string read_of(pid_t process, const char* file) {
  return read_proc(libc_sys(), open_proc(libc_sys()).get(), compose("{}/{}", process, file));
}

// The predecessor's own descriptor, if it is a file. Its very own where the kernel lets us have
// that, since two that do not append would write over each other.
OwnedFd file_of(pid_t process, int number) {
  const std::string path = compose("/proc/{}/fd/{}", process, number);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_nlink == 0) {
    return {};
  }
  const OwnedFd pidfd(libc_sys(), libc_sys().pidfd_open(process, 0));
  const long own = ::syscall(SYS_pidfd_getfd, pidfd.get(), number, 0);
  return {libc_sys(),
          own >= 0 ? static_cast<int>(own) : ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC)};
}

void become(const Start& start, const Output& output, const std::vector<char*>& arguments,
            const std::vector<char*>& environment) {
  for (int number = 1; number < NSIG; ++number) {
    ::signal(number, SIG_DFL);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setsid();
  ::umask(start.mask);
  for (const Start::Limit& limit : start.limits) {
    // A hard one that has been lowered here stays so, unless we are root.
    const rlimit wanted{.rlim_cur = limit.soft, .rlim_max = limit.hard};
    ::setrlimit(static_cast<__rlimit_resource>(limit.resource), &wanted);
  }
  const int nothing = ::open("/dev/null", O_RDONLY);
  const bool ready = ::chdir(start.directory.c_str()) == 0 && ::dup2(nothing, STDIN_FILENO) >= 0 &&
                     ::dup2(output.standard_output(), STDOUT_FILENO) >= 0 &&
                     ::dup2(output.standard_error(), STDERR_FILENO) >= 0;
  if (!ready) {
    return;
  }
  if (nothing > STDERR_FILENO) {
    ::close(nothing);
  }
  ::execve(start.program.c_str(), arguments.data(), environment.data());
}

std::string name_of_net(const std::string& process) {
  return read_link(libc_sys(), open_proc(libc_sys()).get(), process + "/ns/net");
}

}  // namespace

// ---- Output ---------------------------------------------------------------------------

std::optional<Output> Output::make(const std::string& name, pid_t predecessor) {
  Output output;
  output.out_ = file_of(predecessor, STDOUT_FILENO);
  output.error_ = file_of(predecessor, STDERR_FILENO);
  if (output.out_.is_open() && output.error_.is_open()) {
    struct stat status {};
    output.read_from_ = compose("/proc/self/fd/{}", output.error_.get());
    output.begin_ = ::fstat(output.error_.get(), &status) == 0 ? status.st_size : 0;
    return output;
  }
  // NOLINTNEXTLINE(concurrency-mt-unsafe): one thread
  const char* chosen = std::getenv("TMPDIR");
  std::string path = compose("{}/continuity-{}-XXXXXX",
                             chosen != nullptr && *chosen == '/' ? chosen : "/tmp", name);
  OwnedFd file(libc_sys(), ::mkostemp(path.data(), O_APPEND | O_CLOEXEC));
  if (!file.is_open()) {
    complain(Exit::system, compose("{}: {}", path, error_text(errno)));
    return std::nullopt;
  }
  output.out_ = OwnedFd(libc_sys(), ::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  output.error_ = std::move(file);
  output.path_ = output.read_from_ = path;
  return output;
}

std::string Output::last_lines() const {
  constexpr off_t most = 4096;
  constexpr int most_lines = 10;
  const OwnedFd file(libc_sys(), ::open(read_from_.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!file.is_open() || ::fstat(file.get(), &status) != 0) {
    return {};
  }
  const off_t from = std::max(begin_, status.st_size - most);
  std::string text(static_cast<std::size_t>(std::max<off_t>(status.st_size - from, 0)), '\0');
  const ssize_t size = ::pread(file.get(), text.data(), text.size(), from);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  std::size_t at = text.size();
  for (int lines = 0; at > 0; --at) {
    if (text[at - 1] == '\n' && at != text.size() && ++lines == most_lines) {
      break;
    }
  }
  return text.substr(at);
}

void Output::remove() {
  if (!path_.empty()) {
    ::unlink(path_.c_str());
  }
}

void show_last_lines(const Output& output) {
  const std::string lines = output.last_lines();
  if (!lines.empty()) {
    std::fputs("its last lines:\n", stderr);
    std::fputs(lines.c_str(), stderr);
    std::fputs(lines.back() == '\n' ? "" : "\n", stderr);
  }
}

// ---- Run -------------------------------------------------------------------------------

Result<Run> Run::start(const Start& start, const Output& output) {
  // What it leaves behind as a daemon is to come to us.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const auto arguments = as_pointers(start.arguments);
  const auto environment = as_pointers(start.environment);
  const auto pid = start_process([&] { become(start, output, arguments, environment); });
  if (!pid) {
    return pid.error();
  }
  return Run(*pid);
}

bool Run::is_running() {
  for (;;) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, WNOHANG);
    if (ended == 0) {
      return true;
    }
    if (ended < 0) {
      return errno != ECHILD;
    }
    if (ended == pid_) {
      how_it_ended_ = cli::how_it_ended(status);
    }
  }
}

bool Run::has(pid_t process) {
  if (process <= 0 || known_.contains(process)) {
    return process > 0;
  }
  const OwnedFd proc = open_proc(libc_sys());
  if (Processes(libc_sys(), proc.get()).is_below(process, {::getpid()})) {
    known_.insert(process);
    return true;
  }
  return false;
}

void Run::end() {
  constexpr Nanoseconds patience = 5 * second;
  const auto tell = [](int signal) {
    const OwnedFd proc = open_proc(libc_sys());
    const Processes processes(libc_sys(), proc.get());
    const pid_t self = ::getpid();
    for (const auto& [process, parent] : processes.parents()) {
      if (process != self && processes.is_below(process, {self})) {
        ::kill(process, signal);
      }
    }
  };
  tell(SIGTERM);
  const Nanoseconds deadline = after(libc_sys(), patience);
  while (is_running() && now(libc_sys()) < deadline) {
    pause_for(libc_sys(), 5 * millisecond);
  }
  while (is_running()) {
    tell(SIGKILL);
    pause_for(libc_sys(), 5 * millisecond);
  }
}

// ---- What must be the same -----------------------------------------------------------------

std::string unit_of(std::string_view cgroup) {
  std::string unit;
  for_each_line(cgroup, [&](std::string_view line) {
    // "0::/path", or, of version 1, "1:name=systemd:/path"
    const auto first = line.find(':');
    const auto second_colon = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second_colon == std::string_view::npos) {
      return;
    }
    const auto controllers = line.substr(first + 1, second_colon - first - 1);
    const auto path = line.substr(second_colon + 1);
    const auto last = path.substr(std::min(path.rfind('/') + 1, path.size()));
    if ((controllers.empty() || controllers == "name=systemd") && last.ends_with(".service")) {
      unit = last;
    }
  });
  return unit;
}

std::string why_not_from_here(pid_t server, const Start& start) {
  if (start.user != ::geteuid()) {
    return compose("it was started by user {}, and this is user {}: run this as that user",
                   start.user, ::geteuid());
  }
  const std::string net = name_of_net(std::to_string(server));
  if (!net.empty() && net != name_of_net("self")) {
    return compose(
        "pid {} is in another network namespace: run this there, "
        "nsenter --target {} --net --mount continuity ...",
        server, server);
  }
  const std::string unit = unit_of(read_of(server, "cgroup"));
  if (!unit.empty() && unit != unit_of(read_of(::getpid(), "cgroup"))) {
    return compose(
        "pid {} belongs to {}, and what is started from here would not: give the unit "
        "ExecReload=continuity upgrade NAME, and run systemctl reload {}",
        server, unit, unit);
  }
  return {};
}

void remove_variable(std::vector<std::string>& environment, std::string_view name) {
  std::erase_if(environment, [&](const std::string& one) {
    return std::string_view(one).substr(0, one.find('=')) == name;
  });
}

void set_variable(std::vector<std::string>& environment, const std::string& variable) {
  remove_variable(environment, variable.substr(0, variable.find('=')));
  environment.push_back(variable);
}

}  // namespace continuity::cli
