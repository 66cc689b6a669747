#include "core/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <string.h>  // strerrordesc_np is glibc's
#include <unistd.h>
#include <utility>

namespace continuity {

void Log::open(const Sys& sys, LogLevel level, std::string file, const char* journal) {
  sys_ = &sys;
  level_ = level;
  file_ = std::move(file);
  has_standard_error_ = sys.fstat(STDERR_FILENO, &standard_error_) == 0 &&
                        (!S_ISSOCK(standard_error_.st_mode) ||
                         (journal != nullptr && journal == compose("{}:{}", standard_error_.st_dev,
                                                                   standard_error_.st_ino)));
}

int Log::target() {
  if (!file_.empty()) {
    int fd = file_fd_.load();
    if (fd < 0) {
      const int opened = sys_->openat(AT_FDCWD, file_.c_str(),
                                      O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
      if (opened < 0 || file_fd_.compare_exchange_strong(fd, opened)) {
        fd = opened;
      } else {
        sys_->close(opened);
      }
    }
    if (fd >= 0) {
      return fd;
    }
  }
  struct stat current {};
  if (!has_standard_error_ || sys_->fstat(STDERR_FILENO, &current) != 0 ||
      current.st_dev != standard_error_.st_dev || current.st_ino != standard_error_.st_ino) {
    return -1;
  }
  return STDERR_FILENO;
}

void Log::write(LogLevel level, fmt::string_view text, fmt::format_args arguments) {
  if (sys_ == nullptr || level > level_) {
    return;
  }
  const ErrnoGuard guard;
  const int fd = target();
  if (fd < 0) {
    return;
  }
  std::array<char, 1024> line{};
  const std::size_t room = line.size() - 1;
  const pid_t pid = sys_->getpid();
  char* end =
      fmt::vformat_to_n(line.data(), room, "continuity[{}]: ", fmt::make_format_args(pid)).out;
  const auto left = static_cast<std::size_t>(line.data() + room - end);
  char* const message = end;
  end = fmt::vformat_to_n(end, left, text, arguments).out;
  // Names and sentences of peers are in it: they begin no line, and move no cursor.
  const auto is_control = [](unsigned char c) { return c < ' ' || c == 0x7f; };
  std::replace_if(message, end, is_control, '?');
  *end++ = '\n';
  sys_->write(fd, line.data(), static_cast<std::size_t>(end - line.data()));
}

std::string compose_arguments(fmt::string_view text, fmt::format_args arguments) {
  return fmt::vformat(text, arguments);
}

std::string in_milliseconds(std::int64_t nanoseconds) {
  const std::int64_t microseconds = std::max<std::int64_t>(nanoseconds, 0) / 1000;
  return compose("{}.{:03}", microseconds / 1000, microseconds % 1000);
}

std::string in_seconds(std::int64_t nanoseconds) {
  const std::int64_t tenths = std::max<std::int64_t>(nanoseconds, 0) / 100'000'000;
  return compose("{}.{}", tenths / 10, tenths % 10);
}

const char* error_text(int code) {
  const char* text = ::strerrordesc_np(code);
  return text != nullptr ? text : "unknown error";
}

}  // namespace continuity
