// The CONTINUITY_* environment: every option, its default, and how its value
// is read. A value that cannot be read is reported and the default stays.
#pragma once

#include "core/clock.hpp"
#include "core/log.hpp"

#include <csignal>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace continuity {

enum class ReadyEvidence { wait, notify, listen };
enum class WhenBusy { fail, wait };

// What the server is known to want; see graceful_signal.hpp.
constexpr int automatic_signal = -1;

struct Options {
  std::string name;  // empty: the base name of argv[0]
  std::string directory;
  ReadyEvidence ready = ReadyEvidence::wait;
  Nanoseconds ready_timeout = 60 * second;
  Nanoseconds unclaimed = 10 * second;
  Nanoseconds probation = 5 * second;
  WhenBusy busy = WhenBusy::fail;
  int retire_signal = 0;  // or automatic_signal
  int stop_signal = SIGTERM;
  Nanoseconds stop_timeout = 30 * second;
  int success_signal = 0;
  Nanoseconds drain_timeout = never;
  std::string hide;       // paths separated by ':'
  std::string rehearsal;  // where to say what would be taken over; empty: it is taken over
  LogLevel log_level = LogLevel::info;
  bool fresh = false;  // CONTINUITY_NEW: no sibling of whoever started it
  std::string log_file;
  bool disabled = false;
};

// What getenv does. May be called at any time, from any thread that may call
// getenv.
using Environment = std::function<const char*(const char* name)>;

struct OptionError {
  std::string variable;
  std::string value;
  const char* expected;
};

struct OptionsRead {
  Options options;
  std::vector<OptionError> errors;
};

OptionsRead read_options(const Environment& environment);

// Who takes over from whom: the name that was chosen, or else the program's, as it may
// stand in the name of a file.
std::string identity_of(const Options& options, const std::string& program);

// "500ms", "5s", "2m", "1h". No fractions, no sign.
bool parse_duration(std::string_view text, Nanoseconds& duration);

// "TERM", "SIGTERM", "15", "RTMIN+3"; "none" is 0.
bool parse_signal(std::string_view text, int& signal);

// "SIGTERM" for SIGTERM.
std::string signal_name(int signal);

}  // namespace continuity
