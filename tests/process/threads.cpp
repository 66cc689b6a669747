#include "threads.hpp"

#include <filesystem>
#include <fstream>
#include <sys/stat.h>

namespace continuity::test {

std::string threads_below(pid_t process) {
  return "/proc/" + std::to_string(process) + "/task";
}

std::set<std::string> names_in(const std::string& directory) {
  std::set<std::string> names;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator(directory, gone)) {
    names.insert(entry.path().filename());
  }
  return names;
}

std::size_t threads_of(pid_t process) {
  return names_in(threads_below(process)).size();
}

std::set<std::string> identities_of(pid_t process) {
  std::set<std::string> found;
  for (const std::string& thread : names_in(threads_below(process))) {
    std::ifstream status(threads_below(process) + "/" + thread + "/status");
    std::string identity;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Uid:") || line.starts_with("Gid:") || line.starts_with("Groups:")) {
        identity += line + '\n';
      }
    }
    found.insert(identity);
  }
  return found;
}

Process start_alone(const std::string& program, const Arguments& arguments,
                    const std::string& preloaded, const TempDir& directory) {
  ::chmod(directory.path().c_str(), 0711);
  Arguments command{program};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Process::start(command, {"LD_PRELOAD=" + preloaded, "CONTINUITY_DIR=" + directory.path()});
}

}  // namespace continuity::test
