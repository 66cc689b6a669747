// The log: one line an event, one write a line, no allocation.
#pragma once

#include "core/result.hpp"
#include "core/sys.hpp"

#include <fmt/core.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace continuity {

enum class LogLevel : std::uint8_t { error, warn, info, debug };

// Writes to a file, or to standard error as long as descriptor 2 is the file
// that it was when the log was made: a daemon that closes it may be given a
// client's socket under that number. Never writes to a socket but the journal's:
// for a server started by inetd, standard error is the client. Safe to use from
// any thread.
class Log {
 public:
  Log() = default;
  // `file` empty: standard error. The file is opened at the first line.
  // `journal` is what systemd says of the journal's socket in JOURNAL_STREAM,
  // "device:inode"; null if it does not.
  void open(const Sys& sys, LogLevel level, std::string file, const char* journal = nullptr);

  template <typename... Arguments>
  void error(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    write(LogLevel::error, text, fmt::make_format_args(arguments...));
  }
  template <typename... Arguments>
  void warn(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    write(LogLevel::warn, text, fmt::make_format_args(arguments...));
  }
  template <typename... Arguments>
  void info(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    write(LogLevel::info, text, fmt::make_format_args(arguments...));
  }
  template <typename... Arguments>
  void debug(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    write(LogLevel::debug, text, fmt::make_format_args(arguments...));
  }

  // The file it is written to, if that is open.
  [[nodiscard]] int descriptor() const { return file_fd_.load(); }

 private:
  void write(LogLevel level, fmt::string_view text, fmt::format_args arguments);
  [[nodiscard]] int target();

  const Sys* sys_ = nullptr;
  LogLevel level_ = LogLevel::info;
  std::string file_;
  std::atomic<int> file_fd_{-1};
  struct stat standard_error_ {};
  bool has_standard_error_ = false;
};

// A sentence as a string. All of fmt is instantiated in log.cpp and nowhere
// else: each file that formats by itself would add 40 KB to every server.
std::string compose_arguments(fmt::string_view text, fmt::format_args arguments);
template <typename... Arguments>
std::string compose(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
  return compose_arguments(text, fmt::make_format_args(arguments...));
}

// "0.412" of 412,000 ns: milliseconds to three places.
std::string in_milliseconds(std::int64_t nanoseconds);
// "1.2": seconds to one place.
std::string in_seconds(std::int64_t nanoseconds);

// The words for an errno, without an allocation.
const char* error_text(int code);

}  // namespace continuity
