#include "core/options.hpp"

#include "core/hidden_files.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <string.h>  // sigabbrev_np is glibc's

namespace continuity {
namespace {

constexpr std::size_t longest_identity = 64;

template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

struct Unit {
  std::string_view name;
  Nanoseconds length;
};

constexpr std::array<Unit, 4> units{
    {{"ms", millisecond}, {"s", second}, {"m", 60 * second}, {"h", 3600 * second}}};

// How one variable is read into one option.
struct Reader {
  const char* variable;
  const char* expected;
  bool (*read)(std::string_view text, Options& options);
};

bool read_switch(std::string_view text, bool& value) {
  if (text != "0" && text != "1") {
    return false;
  }
  value = text == "1";
  return true;
}

bool read_name(std::string_view text, Options& options) {
  if (text.empty() || text.size() > longest_identity || text.front() == '.' ||
      text.find('/') != std::string_view::npos) {
    return false;
  }
  options.name = text;
  return true;
}

bool read_directory(std::string_view text, Options& options) {
  if (text.empty() || text.front() != '/') {
    return false;
  }
  options.directory = text;
  return true;
}

bool read_ready(std::string_view text, Options& options) {
  if (text == "wait") {
    options.ready = ReadyEvidence::wait;
  } else if (text == "notify") {
    options.ready = ReadyEvidence::notify;
  } else if (text == "listen") {
    options.ready = ReadyEvidence::listen;
  } else {
    return false;
  }
  return true;
}

bool read_busy(std::string_view text, Options& options) {
  if (text != "fail" && text != "wait") {
    return false;
  }
  options.busy = text == "wait" ? WhenBusy::wait : WhenBusy::fail;
  return true;
}

bool read_log(std::string_view text, Options& options) {
  static constexpr auto names = std::to_array<std::string_view>({"error", "warn", "info", "debug"});
  for (std::size_t level = 0; level < names.size(); ++level) {
    if (text == names.at(level)) {
      options.log_level = static_cast<LogLevel>(level);
      return true;
    }
  }
  return false;
}

template <Nanoseconds Options::*member>
bool read_duration(std::string_view text, Options& options) {
  return parse_duration(text, options.*member);
}

template <int Options::*member>
bool read_signal(std::string_view text, Options& options) {
  return parse_signal(text, options.*member);
}

bool read_retire_signal(std::string_view text, Options& options) {
  if (text == "auto") {
    options.retire_signal = automatic_signal;
    return true;
  }
  return parse_signal(text, options.retire_signal);
}

template <bool Options::*member>
bool read_bool(std::string_view text, Options& options) {
  return read_switch(text, options.*member);
}

bool read_hide(std::string_view text, Options& options) {
  if (!text.empty() && !are_hidable(text)) {
    return false;
  }
  options.hide = text;
  return true;
}

// Whatever it says, this is a rehearsal: one that cannot tell of itself must not take over.
bool read_rehearsal(std::string_view text, Options& options) {
  options.rehearsal = text;
  return text.empty() || (text.front() == '@' && text.size() > 1);
}

template <std::string Options::*member>
bool read_text(std::string_view text, Options& options) {
  options.*member = text;
  return true;
}

constexpr const char* a_duration = "a duration such as 500ms, 5s, 2m or 1h";
constexpr const char* a_signal = "a signal such as TERM, SIGUSR1 or 15, or none";
constexpr const char* a_signal_or_auto = "a signal such as TERM, SIGUSR1 or 15, none, or auto";
constexpr const char* a_switch = "0 or 1";

constexpr auto readers = std::to_array<Reader>({
    {"CONTINUITY_NAME", "a name of at most 64 characters without '/', not beginning with '.'",
     read_name},
    {"CONTINUITY_DIR", "an absolute path", read_directory},
    {"CONTINUITY_READY", "wait, notify or listen", read_ready},
    {"CONTINUITY_READY_TIMEOUT", a_duration, read_duration<&Options::ready_timeout>},
    {"CONTINUITY_UNCLAIMED", a_duration, read_duration<&Options::unclaimed>},
    {"CONTINUITY_PROBATION", a_duration, read_duration<&Options::probation>},
    {"CONTINUITY_BUSY", "fail or wait", read_busy},
    {"CONTINUITY_RETIRE_SIGNAL", a_signal_or_auto, read_retire_signal},
    {"CONTINUITY_STOP_SIGNAL", a_signal, read_signal<&Options::stop_signal>},
    {"CONTINUITY_STOP_TIMEOUT", a_duration, read_duration<&Options::stop_timeout>},
    {"CONTINUITY_SUCCESS_SIGNAL", a_signal, read_signal<&Options::success_signal>},
    {"CONTINUITY_DRAIN_TIMEOUT", a_duration, read_duration<&Options::drain_timeout>},
    {"CONTINUITY_HIDE", "absolute paths of files, separated by ':'", read_hide},
    {"CONTINUITY_NEW", a_switch, read_bool<&Options::fresh>},
    {"CONTINUITY_REHEARSAL", "a name in the abstract namespace: @name", read_rehearsal},
    {"CONTINUITY_LOG", "error, warn, info or debug", read_log},
    {"CONTINUITY_LOG_FILE", "a path", read_text<&Options::log_file>},
    {"CONTINUITY_DISABLE", a_switch, read_bool<&Options::disabled>},
});

bool parse_realtime_signal(std::string_view text, int& signal) {
  constexpr std::string_view prefix = "RTMIN";
  int offset = 0;
  if (text.substr(0, prefix.size()) != prefix) {
    return false;
  }
  text.remove_prefix(prefix.size());
  if (!text.empty() && (text.front() != '+' || !parse_number(text.substr(1), offset))) {
    return false;
  }
  if (offset < 0 || offset > SIGRTMAX - SIGRTMIN) {
    return false;
  }
  signal = SIGRTMIN + offset;
  return true;
}

}  // namespace

OptionsRead read_options(const Environment& environment) {
  OptionsRead result;
  for (const Reader& reader : readers) {
    const char* value = environment(reader.variable);
    if (value != nullptr && !reader.read(value, result.options)) {
      result.errors.push_back({reader.variable, value, reader.expected});
    }
  }
  return result;
}

std::string identity_of(const Options& options, const std::string& program) {
  std::string identity = options.name.empty() ? program : options.name;
  identity.resize(std::min(identity.size(), longest_identity));
  std::replace(identity.begin(), identity.end(), '/', '_');
  if (identity.empty() || identity.front() == '.') {
    identity.insert(identity.begin(), '_');
  }
  return identity;
}

bool parse_duration(std::string_view text, Nanoseconds& duration) {
  const auto digits = text.find_first_not_of("0123456789");
  Nanoseconds count = 0;
  if (digits == 0 || digits == std::string_view::npos ||
      !parse_number(text.substr(0, digits), count)) {
    return false;
  }
  for (const Unit& unit : units) {
    if (text.substr(digits) == unit.name) {
      if (count > std::numeric_limits<Nanoseconds>::max() / 4 / unit.length) {
        return false;
      }
      duration = count * unit.length;
      return true;
    }
  }
  return false;
}

bool parse_signal(std::string_view text, int& signal) {
  if (text == "none") {
    signal = 0;
    return true;
  }
  int number = 0;
  if (parse_number(text, number)) {
    if (number < 1 || number > SIGRTMAX) {
      return false;
    }
    signal = number;
    return true;
  }
  if (text.substr(0, 3) == "SIG") {
    text.remove_prefix(3);
  }
  for (int candidate = 1; candidate < SIGRTMIN; ++candidate) {
    const char* name = ::sigabbrev_np(candidate);
    if (name != nullptr && text == name) {
      signal = candidate;
      return true;
    }
  }
  return parse_realtime_signal(text, signal);
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal);
}

}  // namespace continuity
