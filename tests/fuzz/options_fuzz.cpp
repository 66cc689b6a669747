// The environment: lines NAME=value, of which an option has the last.
#include "core/hidden_files.hpp"
#include "core/options.hpp"
#include "core/proc_text.hpp"
#include "fuzz.hpp"

#include <map>

namespace continuity::fuzz {
namespace {

void check(const Options& options) {
  for (const Nanoseconds duration :
       {options.ready_timeout, options.unclaimed, options.probation, options.stop_timeout}) {
    require(duration >= 0 && duration <= never / 4, "durations can be added to a time");
  }
  require(options.drain_timeout >= 0, "no duration is negative");
  for (const int signal : {options.stop_signal, options.success_signal}) {
    require(signal >= 0 && signal <= SIGRTMAX, "a signal is one");
    static_cast<void>(signal_name(signal));
  }
  require(options.retire_signal >= automatic_signal && options.retire_signal <= SIGRTMAX,
          "a signal is one, or automatic");
  require(options.name.size() <= 64 && options.name.find('/') == std::string::npos &&
              !options.name.starts_with('.'),
          "a name can be that of a file");
  require(options.directory.empty() || options.directory.front() == '/', "a directory is absolute");
  require(options.hide.empty() || are_hidable(options.hide), "what is to be hidden can be");
}

}  // namespace

void run(Bytes input) {
  std::map<std::string, std::string, std::less<>> variables;
  for_each_line(as_text(input), [&](std::string_view line) {
    line = line.substr(0, line.find('\0'));  // where a variable ends
    const std::size_t equals = std::min(line.find('='), line.size());
    variables["CONTINUITY_" + std::string(line.substr(0, equals))] =
        line.substr(std::min(equals + 1, line.size()));
  });
  const auto read = read_options([&](const char* name) -> const char* {
    const auto found = variables.find(std::string_view(name));
    return found == variables.end() ? nullptr : found->second.c_str();
  });
  require(read.errors.size() <= variables.size(), "only what is there is complained of");
  check(read.options);
}

}  // namespace continuity::fuzz
