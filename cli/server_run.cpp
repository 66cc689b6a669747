#include "cli/server_run.hpp"

#include "cli/launch.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/owned_fd.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

std::vector<std::string> environment_of(const ServerCommand& command) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    result.emplace_back(*entry);
  }
  for (const std::string& variable : command.environment) {
    if (variable.find('=') != std::string::npos) {
      set_variable(result, variable);
    } else {
      remove_variable(result, variable);
    }
  }
  return result;
}

std::string library() {
  std::string name = "libcontinuity.so";
  std::error_code none;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", none).parent_path();
  for (const auto& place : {here, here / "../lib"}) {
    if (!here.empty() && std::filesystem::exists(place / name, none)) {
      return std::filesystem::canonical(place / name, none);
    }
  }
  return name;
}

}  // namespace

std::string preload_variable() {
  const char* const value = std::getenv("LD_PRELOAD");  // NOLINT(concurrency-mt-unsafe)
  const std::string others = value != nullptr ? value : "";
  const bool is_there = others.find("libcontinuity.so") != std::string::npos;
  return "LD_PRELOAD=" + (is_there         ? others
                          : others.empty() ? library()
                                           : library() + ":" + others);
}

std::vector<char*> as_pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) {
    pointers.push_back(const_cast<char*>(text.c_str()));  // NOLINT: execve does not write
  }
  pointers.push_back(nullptr);
  return pointers;
}

Result<pid_t> start_process(const std::function<void()>& become) {
  const Sys& sys = libc_sys();
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
    return last_error("make a pipe");
  }
  const OwnedFd answer(sys, pipe[0]);
  OwnedFd report(sys, pipe[1]);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return last_error("fork");
  }
  if (pid == 0) {
    become();
    const int code = errno;
    static_cast<void>(::write(report.get(), &code, sizeof code));
    ::_exit(127);
  }
  report.reset();
  int code = 0;
  ssize_t size = -1;
  // The end of the pipe comes with a successful exec.
  while ((size = sys.read(answer.get(), &code, sizeof code)) < 0 && errno == EINTR) {
  }
  if (size == sizeof code) {
    ::waitpid(pid, nullptr, 0);
    return Error{"execute it", code};
  }
  return pid;
}

Result<pid_t> start_server(const ServerCommand& command) {
  const auto environment = environment_of(command);
  const auto arguments = as_pointers(command.arguments);
  const auto variables = as_pointers(environment);
  // We have no handlers: what is blocked or ignored is what we were given.
  return start_process([&] {
    ::setsid();
    ::sigprocmask(SIG_SETMASK, &command.mask, nullptr);
    ::execvpe(arguments.front(), arguments.data(), variables.data());
  });
}

int exit_status_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

std::string how_it_ended(int wait_status) {
  return WIFSIGNALED(wait_status) ? compose("was killed by {}", signal_name(WTERMSIG(wait_status)))
                                  : compose("exited with status {}", WEXITSTATUS(wait_status));
}

}  // namespace continuity::cli
