#include "support/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace continuity::test {
namespace {

using Pipe = std::array<int, 2>;

Pipe make_pipe() {
  Pipe ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error("no pipe");
  }
  return ends;
}

std::vector<char*> as_pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) {
    pointers.push_back(const_cast<char*>(text.c_str()));  // NOLINT: execve does not write
  }
  pointers.push_back(nullptr);
  return pointers;
}

std::string name_of(const std::string& variable) {
  return variable.substr(0, variable.find('=') + 1);
}

// Of several values of one variable the last counts.
std::vector<std::string> child_environment(const Environment& additions) {
  std::vector<std::string> result;
  const auto set = [&](const std::string& variable) {
    std::erase_if(result, [&](const auto& one) { return name_of(one) == name_of(variable); });
    result.push_back(variable);
  };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (text.rfind("CONTINUITY_", 0) != 0 && text.rfind("LD_PRELOAD=", 0) != 0) {
      set(text);
    }
  }
  for (const std::string& variable : additions) {
    set(variable);
  }
  return result;
}

const std::string listen_pid = "LISTEN_PID=";
constexpr std::size_t digits_of_pid = 10;

// In the child: who it is is known there alone, and nothing may be allocated.
void write_own_pid(const std::vector<char*>& environment) {
  for (char* variable : environment) {
    if (variable != nullptr && std::strncmp(variable, listen_pid.c_str(), listen_pid.size()) == 0) {
      *std::to_chars(variable + listen_pid.size(), variable + listen_pid.size() + digits_of_pid,
                     ::getpid())
           .ptr = 0;
    }
  }
}

// None may be where another is to be.
void put_in_place(const Given& given) {
  constexpr int first_given = 3;
  constexpr int out_of_the_way = 100;
  std::array<int, 8> copies{};
  const std::size_t count = std::min(given.sockets.size(), copies.size());
  for (std::size_t i = 0; i < count; ++i) {
    copies.at(i) = ::fcntl(given.sockets[i], F_DUPFD_CLOEXEC, out_of_the_way);
  }
  for (std::size_t i = 0; i < count; ++i) {
    ::dup2(copies.at(i), given.by_inetd ? STDIN_FILENO : first_given + static_cast<int>(i));
  }
}

[[noreturn]] void become(const std::vector<char*>& command, const std::vector<char*>& environment,
                         const std::array<int, 3>& standard, const Given& given, pid_t parent) {
  // A test that is killed takes its children with it.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) {
    ::_exit(127);
  }
  for (int number = 0; number < 3; ++number) {
    ::dup2(standard.at(static_cast<std::size_t>(number)), number);
  }
  put_in_place(given);
  write_own_pid(environment);
  ::execvpe(command.front(), command.data(), environment.data());
  ::_exit(127);
}

bool contains(const std::string& line, const std::string& text) {
  return line.find(text) != std::string::npos;
}

int poll_time(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::max<long>(left, 0));
}

}  // namespace

Process Process::start(const std::vector<std::string>& command, const Environment& environment,
                       const Given& given) {
  std::vector<std::string> variables = child_environment(environment);
  if (!given.sockets.empty() && !given.by_inetd) {
    variables.push_back("LISTEN_FDS=" + std::to_string(given.sockets.size()));
    variables.push_back(listen_pid + std::string(digits_of_pid, ' '));
  }
  const auto arguments = as_pointers(command);
  const auto pointers = as_pointers(variables);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);             // daemons come back to us
  static_cast<void>(::signal(SIGPIPE, SIG_IGN));  // a child that has ended shows otherwise

  const Pipe input = make_pipe();
  const Pipe output = make_pipe();
  const Pipe log = make_pipe();
  const pid_t parent = ::getpid();
  Process process;
  process.pid_ = ::fork();
  if (process.pid_ == 0) {
    become(arguments, pointers, {input[0], output[1], log[1]}, given, parent);
  }
  ::close(input[0]);
  ::close(output[1]);
  ::close(log[1]);
  process.input_ = input[1];
  process.output_.fd = output[0];
  process.log_.fd = log[0];
  if (process.pid_ < 0) {
    throw std::runtime_error("no process for " + command.front());
  }
  return process;
}

void Process::release() noexcept {
  if (pid_ > 0 && !reaped_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {input_, output_.fd, log_.fd}) {
    if (fd >= 0) {
      ::close(fd);
    }
  }
  pid_ = input_ = output_.fd = log_.fd = -1;
}

Process::~Process() {
  release();
}

Process::Process(Process&& other) noexcept {
  *this = std::move(other);
}

Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    release();
    pid_ = std::exchange(other.pid_, -1);
    input_ = std::exchange(other.input_, -1);
    output_ = std::exchange(other.output_, Stream{});
    log_ = std::exchange(other.log_, Stream{});
    lines_told_ = other.lines_told_;
    reaped_ = other.reaped_;
    status_ = other.status_;
  }
  return *this;
}

// One read. False: nothing more comes, or nothing in time.
bool Process::read(Stream& stream, Clock::time_point deadline) {
  pollfd ready{.fd = stream.fd, .events = POLLIN, .revents = 0};
  if (stream.fd < 0 || ::poll(&ready, 1, poll_time(deadline)) != 1) {
    return false;
  }
  std::array<char, 4096> buffer{};
  const ssize_t size = ::read(stream.fd, buffer.data(), buffer.size());
  if (size <= 0) {
    ::close(std::exchange(stream.fd, -1));
    return false;
  }
  stream.partial.append(buffer.data(), static_cast<std::size_t>(size));
  for (std::size_t end = 0; (end = stream.partial.find('\n')) != std::string::npos;) {
    stream.lines.push_back(stream.partial.substr(0, end));
    stream.partial.erase(0, end + 1);
  }
  return true;
}

void Process::read_all(Stream& stream) {
  while (read(stream, Clock::now())) {
  }
}

void Process::give_up(const std::string& waited_for) {
  read_all(output_);
  read_all(log_);
  std::string text = "pid " + std::to_string(pid_) + (is_running() ? " runs, " : " has ended, ") +
                     "but there was no " + waited_for + ". It said:";
  for (const Stream* stream : {&output_, &log_}) {
    for (const std::string& line : stream->lines) {
      text += "\n  " + line;
    }
  }
  throw std::runtime_error(text);
}

std::string Process::next_line() {
  const auto deadline = Clock::now() + patience;
  while (output_.lines.size() <= lines_told_) {
    if (!read(output_, deadline) && (output_.fd < 0 || Clock::now() >= deadline)) {
      give_up("next line");
    }
  }
  return output_.lines[lines_told_++];
}

std::string Process::await_log(const std::string& text) {
  const auto deadline = Clock::now() + patience;
  for (std::size_t next = 0;;) {
    for (; next < log_.lines.size(); ++next) {
      if (contains(log_.lines[next], text)) {
        return log_.lines[next];
      }
    }
    if (!read(log_, deadline) && (log_.fd < 0 || Clock::now() >= deadline)) {
      give_up("line with '" + text + "'");
    }
  }
}

const std::vector<std::string>& Process::log() {
  read_all(log_);
  return log_.lines;
}

std::size_t Process::logged(const std::string& text) {
  const auto& lines = log();
  return static_cast<std::size_t>(std::count_if(
      lines.begin(), lines.end(), [&](const auto& line) { return contains(line, text); }));
}

void Process::send(const std::string& text) const {
  if (::write(input_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("pid " + std::to_string(pid_) + " does not listen");
  }
}

void Process::signal(int number) const {
  if (!reaped_) {
    ::kill(pid_, number);
  }
}

bool Process::is_running() const {
  siginfo_t info{};
  return !reaped_ &&
         ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == 0;
}

bool Process::is_stopped() const {
  siginfo_t info{};
  return !reaped_ &&
         ::waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == pid_;
}

int Process::wait_exit() {
  if (!reaped_) {
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
    pollfd ended{.fd = pidfd, .events = POLLIN, .revents = 0};
    const int found = ::poll(&ended, 1, poll_time(Clock::now() + patience));
    ::close(pidfd);
    if (found != 1) {
      give_up("end");
    }
    ::waitpid(pid_, &status_, 0);
    reaped_ = true;
  }
  return WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_);
}

void Process::follow(pid_t pid) {
  if (wait_exit() != 0) {
    give_up("daemon");
  }
  pid_ = pid;
  reaped_ = false;
}

}  // namespace continuity::test
