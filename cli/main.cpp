// The command `continuity`: which command is meant, and with which status it ends.
#include "cli/command.hpp"
#include "cli/output.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace continuity::cli {
namespace {

constexpr std::array commands{add_list,  add_status, add_upgrade, add_reload,   add_stop,
                              add_check, add_doctor, add_trace,   add_supervise};

Exit run(int argc, char** argv) {
  CLI::App application("Sees and restarts servers that run under libcontinuity.so.", "continuity");
  application.set_version_flag("--version", "continuity " CONTINUITY_VERSION);
  application.require_subcommand(1);
  application.get_formatter()->column_width(24);
  Exit exit = Exit::done;
  for (const AddCommand add : commands) {
    add(application, exit);
  }
  std::vector<std::string> arguments(argv + 1, argv + argc);
  // To CLI11 what follows "--" is like what stands before it, and doctor wants to know.
  const auto mark = std::find(arguments.begin(), arguments.end(), "--");
  if (mark != arguments.end() && arguments.front() == "doctor") {
    arguments.insert(mark, "--command");
  }
  // Of a command that it does not know it says that one is missing.
  if (!arguments.empty() && arguments.front().rfind('-', 0) != 0) {
    std::string there;
    bool known = false;
    for (const CLI::App* command : application.get_subcommands([](CLI::App*) { return true; })) {
      known = known || command->get_name() == arguments.front();
      there += (there.empty() ? "" : ", ") + command->get_name();
    }
    if (!known) {
      return complain(Exit::usage, "there is no command " + visible(arguments.front()) +
                                       "; there is " + there + "; see continuity --help");
    }
  }
  std::reverse(arguments.begin(), arguments.end());  // as it wants them
  try {
    application.parse(std::move(arguments));
  } catch (const CLI::Success& asked) {
    application.exit(asked);  // what --help and --version say
  } catch (const CLI::ParseError& wrong) {
    std::string sentence = wrong.what();
    sentence = sentence.substr(0, sentence.find('\n'));
    return complain(Exit::usage, sentence + "; see continuity --help");
  }
  return exit;
}

}  // namespace
}  // namespace continuity::cli

int main(int argc, char** argv) {
  using continuity::cli::Exit;
  try {
    return static_cast<int>(continuity::cli::run(argc, argv));
  } catch (const std::exception& failure) {
    return static_cast<int>(continuity::cli::complain(Exit::system, failure.what()));
  }
}
