#include "family_tree.hpp"

#include "support/client.hpp"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::test {
namespace {

pid_t parent_of(pid_t process) {
  const std::string stat = read_file("/proc/" + std::to_string(process) + "/stat");
  const auto bracket = stat.rfind(')');  // the name may contain anything
  return bracket == std::string::npos || stat.size() < bracket + 5
             ? 0
             : static_cast<pid_t>(std::stol(stat.substr(bracket + 4)));
}

bool descends_from(pid_t process, pid_t elder) {
  while (process > 1 && process != elder) {
    process = parent_of(process);
  }
  return process == elder;
}

// Of a process that has ended and was not waited for, this cannot be read.
bool is_server_of_ours(pid_t process) {
  std::error_code gone;
  const auto program =
      std::filesystem::read_symlink("/proc/" + std::to_string(process) + "/exe", gone);
  return program == TINY_SERVER || program == DATAGRAM_SERVER || program == RING_DATAGRAM_SERVER;
}

}  // namespace

FamilyPlace::~FamilyPlace() {
  wait_until([] {
    const auto left = server_processes();
    for (const pid_t process : left) {
      ::kill(process, SIGKILL);
      ::waitpid(process, nullptr, WNOHANG);
    }
    return left.empty();
  });
}

std::set<pid_t> server_processes() {
  return family_of(::getpid());
}

std::set<pid_t> family_of(pid_t elder) {
  std::set<pid_t> family;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      continue;
    }
    const auto process = static_cast<pid_t>(std::stol(name));
    if (is_server_of_ours(process) && descends_from(process, elder)) {
      family.insert(process);
    }
  }
  return family;
}

bool have_ended(const std::set<pid_t>& processes) {
  return wait_until([&] {
    const auto left = server_processes();
    return std::none_of(processes.begin(), processes.end(),
                        [&](pid_t process) { return left.contains(process); });
  });
}

bool none_is_left_but(pid_t elder) {
  return wait_until([&] {
    // Where there is a process for each connection, some are gone at each look.
    const auto all = server_processes();
    const auto family = family_of(elder);
    const auto still = server_processes();
    return std::none_of(all.begin(), all.end(), [&](pid_t process) {
      return !family.contains(process) && still.contains(process);
    });
  });
}

bool comes_to_accept(pid_t process) {
  return wait_until([&] {
    std::error_code gone;
    const std::filesystem::directory_iterator tasks("/proc/" + std::to_string(process) + "/task",
                                                    gone);
    return std::any_of(begin(tasks), end(tasks), [](const auto& task) {
      return read_file(task.path() / "syscall").rfind(std::to_string(SYS_accept) + " ", 0) == 0;
    });
  });
}

bool comes_to_stop(pid_t process) {
  const std::string stat = "/proc/" + std::to_string(process) + "/stat";
  return wait_until([&] { return read_file(stat).find(") T ") != std::string::npos; });
}

std::set<pid_t> who_answers(const std::string& address, std::size_t count) {
  std::set<pid_t> pids;
  wait_until([&] {
    pids.insert(static_cast<pid_t>(number_in(answer_from(address), "pid")));
    return pids.size() >= count;
  });
  return pids;
}

}  // namespace continuity::test
