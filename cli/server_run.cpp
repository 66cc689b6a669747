#include "cli/server_run.hpp"

#include "cli/launch.hpp"
#include "core/log.hpp"
#include "core/options.hpp"

#include <algorithm>
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

std::vector<char*> as_pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) {
    pointers.push_back(const_cast<char*>(text.c_str()));  // NOLINT: execve does not write
  }
  pointers.push_back(nullptr);
  return pointers;
}

// In the child. Ours have no handlers: what is blocked or ignored is what we were given.
[[noreturn]] void become(const std::vector<char*>& arguments, const std::vector<char*>& variables,
                         const sigset_t& mask, int answer) {
  ::setsid();
  ::sigprocmask(SIG_SETMASK, &mask, nullptr);
  ::execvpe(arguments.front(), arguments.data(), variables.data());
  const int code = errno;
  [[maybe_unused]] const ssize_t told = ::write(answer, &code, sizeof code);
  ::_exit(127);
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

Result<pid_t> start_server(const ServerCommand& command) {
  const auto environment = environment_of(command);
  const auto arguments = as_pointers(command.arguments);
  const auto variables = as_pointers(environment);
  std::array<int, 2> answer{};
  if (::pipe2(answer.data(), O_CLOEXEC) != 0) {
    return last_error("pipe");
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    become(arguments, variables, command.mask, answer[1]);
  }
  const int code = errno;
  ::close(answer[1]);
  int refusal = 0;
  if (pid > 0) {
    // The end of the pipe comes with a successful exec.
    while (::read(answer[0], &refusal, sizeof refusal) < 0 && errno == EINTR) {
    }
  }
  ::close(answer[0]);
  if (pid < 0) {
    return Error{"fork", code};
  }
  if (refusal != 0) {
    ::waitpid(pid, nullptr, 0);
    return Error{"execute", refusal};
  }
  return pid;
}

int exit_status_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

bool was_asked_to_end(int wait_status) {
  constexpr std::array asked{0, 128 + SIGHUP, 128 + SIGINT, 128 + SIGQUIT, 128 + SIGTERM};
  return std::find(asked.begin(), asked.end(), exit_status_of(wait_status)) != asked.end();
}

std::string how_it_ended(int wait_status) {
  return WIFSIGNALED(wait_status) ? compose("was killed by {}", signal_name(WTERMSIG(wait_status)))
                                  : compose("exited with status {}", WEXITSTATUS(wait_status));
}

}  // namespace continuity::cli
