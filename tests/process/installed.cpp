#include "installed.hpp"

#include "support/waiting.hpp"

#include <stdexcept>

namespace continuity::test {

void run_to_end(const std::vector<std::string>& command, const Environment& environment) {
  Process process = Process::start(command, environment);
  wait_until([&] { return !process.is_running(); }, 10 * patience);
  if (process.wait_exit() != 0) {
    std::string text;
    for (const std::string& line : process.log()) {
      text += "\n" + line;
    }
    throw std::runtime_error(command.front() + " failed:" + text);
  }
}

Prefix::Prefix() {
  run_to_end({CMAKE_PROGRAM, "--install", BUILD_TREE, "--prefix", directory.path()});
}

void Prefix::run_shell(const std::string& command) const {
  run_to_end({"sh", "-e", "-c", command},
             {"PKG_CONFIG_PATH=" + directory / "lib/pkgconfig", "CC=" C_COMPILER,
              "CXX=" CXX_COMPILER, "PREFIX=" + directory.path()});
}

}  // namespace continuity::test
