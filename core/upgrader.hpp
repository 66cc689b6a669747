// The library: a predecessor and a successor in one object, for programs that ask.
// continuity.h is its face.
#pragma once

#include "core/holder.hpp"
#include "core/library_owner.hpp"
#include "core/new_run.hpp"
#include "core/own_listener.hpp"
#include "core/progress.hpp"
#include "core/taker.hpp"

#include <atomic>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <string>
#include <vector>

namespace continuity {

// Why a call failed, of the thread that made it.
struct Problem {
  int code;              // errno
  std::string sentence;  // empty: there is nothing to say
};

class Upgrader {
 public:
  template <typename T>
  using Answer = std::variant<T, Problem>;
  using Told = Answer<Done>;

  explicit Upgrader(const Environment& environment);
  ~Upgrader();
  Upgrader(const Upgrader&) = delete;
  Upgrader& operator=(const Upgrader&) = delete;

  // Descriptors are the caller's.
  Answer<int> get_listener(const std::string& text);
  Answer<int> listen(const std::string& text, int backlog);
  Told register_listener(int fd);
  Answer<int> get_descriptor(const std::string& name);
  Told register_descriptor(const std::string& name, int fd);
  Told ready();
  bool has_completed();
  // Nothing but has_completed() answers in what has been forked from the process that asks.
  [[nodiscard]] bool is_forked() const { return sys_.getpid() != process_; }
  // Starts a new run of this program, or of another by these arguments, and waits for the
  // outcome, but not longer. Its pid.
  Answer<int> upgrade(std::vector<std::string> arguments, Nanoseconds wait);
  Progress& progress() { return progress_; }

 private:
  // What the program has been given before it owns it: a listener of the predecessor's, or
  // a socket of its own beside one.
  struct Got {
    int fd;
    std::uint64_t inode;
    Listener listener;
    int backlog;                          // to be set at the take-over; -1: left as it is
    std::vector<Taker::Beside> beside{};  // not empty: listens at the take-over
  };
  Answer<int> get(const std::string& text, const ListenerName& name, int backlog);
  Answer<int> claim(const std::string& text, const ListenerName& name, int backlog);
  Taker::Claim claim_as_held(Listener wanted);
  Answer<int> bind_beside(const std::string& text, const ListenerName& name, const Listener& wanted,
                          int backlog);
  Answer<int> make(const std::string& text, const ListenerName& name, int backlog);
  bool conflicts_with_own(const Listener& wanted);
  void forget_closed();
  std::vector<int> still_open(std::uint64_t inode);
  std::optional<std::string> listen_beside(bool early);
  // Empty: it owns all that it has got.
  std::string take_over(Taker::Outcome& outcome);
  void become_owner();
  void watch(Taker::Outcome outcome);
  void take_arrivals();
  void start_thread();
  static void* run(void* self);
  std::optional<Problem> what_forbids_upgrade();
  Answer<int> await_outcome(NewRun& successor, std::uint64_t changes, const OwnedFd& watch,
                            Nanoseconds deadline);

  const Sys& sys_;
  const pid_t process_;
  Options options_;
  Log log_;
  Taker::Self self_;
  OwnedFd proc_;
  std::string problem_;
  std::optional<Rendezvous> rendezvous_;
  Progress progress_;
  CommandLine command_;
  std::atomic<bool> started_{false};
  std::atomic<bool> ending_{false};
  std::optional<Taker> taker_;
  std::optional<LibraryOwner> owner_;
  OwnedFd wake_;
  OwnedFd door_;
  std::optional<Holder> holder_;
  // Of what follows; and of what a program's threads do with the above.
  std::mutex mutex_;
  std::vector<Got> got_;
  bool ready_ = false;
  std::string refusal_;
  pthread_t thread_{};
  std::atomic<bool> thread_running_{false};
  std::mutex upgrading_;  // one at a time
  std::mutex arriving_;   // of what follows: predecessors, for the thread to watch
  std::vector<Channel> arrivals_;
  Nanoseconds arrivals_until_ = 0;
};

}  // namespace continuity
