// A child process of a test: what it says is read line by line with a deadline,
// how it ended is told, and it never outlives the test.
#pragma once

#include "support/waiting.hpp"

#include <string>
#include <sys/types.h>
#include <vector>

namespace continuity::test {

// "NAME=value"; comes on top of the test's own environment, of which nothing
// that concerns the library is passed on.
using Environment = std::vector<std::string>;

// Sockets that the process is started with, as systemd gives them (3 and on, LISTEN_FDS)
// or as inetd does ("wait": the first one is its standard input).
struct Given {
  std::vector<int> sockets{};
  bool by_inetd = false;
};

class Process {
 public:
  Process() = default;  // none yet
  static Process start(const std::vector<std::string>& command, const Environment& environment = {},
                       const Given& given = {});
  ~Process();
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }

  // The next line of standard output. Throws, with everything the process has
  // said, if none comes.
  std::string next_line();
  // The first line of standard error that contains `text`, come or still to come.
  std::string await_log(const std::string& text);
  // How many lines of standard error so far contain `text`.
  std::size_t logged(const std::string& text);
  const std::vector<std::string>& log();

  void send(const std::string& text) const;  // to standard input
  void signal(int number) const;
  [[nodiscard]] bool is_running() const;
  // Stopped by a signal, and not told to go on yet.
  [[nodiscard]] bool is_stopped() const;
  // The exit status, or 128 + the signal that ended it. Throws if it goes on.
  int wait_exit();
  // A daemon: the process that was started has ended well, and its orphan
  // `pid` is looked after from now on.
  void follow(pid_t pid);

 private:
  struct Stream {
    int fd = -1;
    std::string partial{};
    std::vector<std::string> lines{};
  };

  void release() noexcept;
  static bool read(Stream& stream, Clock::time_point deadline);
  static void read_all(Stream& stream);
  [[noreturn]] void give_up(const std::string& waited_for);

  pid_t pid_ = -1;
  int input_ = -1;
  Stream output_{};
  Stream log_{};
  std::size_t lines_told_ = 0;
  bool reaped_ = false;
  int status_ = 0;
};

}  // namespace continuity::test
