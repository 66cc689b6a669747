// A forked child of a test, which holds what it has inherited until it is killed.
#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace continuity::test {

class Child {
 public:
  // Runs `body` in it, and waits until that has been done.
  explicit Child(const std::function<void()>& body = [] {}) {
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0) {
      return;
    }
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (const int fatal : {SIGTERM, SIGINT, SIGSEGV, SIGABRT}) {
        static_cast<void>(::signal(fatal, SIG_DFL));  // Catch would report it as a failure
      }
      body();
      if (::write(pipe[1], "", 1) == 1) {
        for (;;) {
          ::pause();
        }
      }
      ::_exit(1);
    }
    char byte = 0;
    ::close(pipe[1]);
    is_ready_ = ::read(pipe[0], &byte, 1) == 1;
    ::close(pipe[0]);
  }
  ~Child() {
    kill();
    reap();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] bool is_ready() const { return is_ready_; }
  // Until it has ended; it is not waited for.
  void kill(int signal = SIGKILL) const {
    siginfo_t info{};
    if (pid_ > 0) {
      ::kill(pid_, signal);
      ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
    }
  }
  void reap() {
    if (pid_ > 0) {
      ::waitpid(pid_, nullptr, 0);
    }
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  bool is_ready_ = false;
};

}  // namespace continuity::test
