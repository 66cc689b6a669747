// How far the restart of this process has come, for a program that asks: told by the
// agent, read by any thread, and announced on a descriptor of the program's.
#pragma once

#include "core/clock.hpp"
#include "core/owned_fd.hpp"

#include <atomic>
#include <cstdint>
#include <mutex>

namespace continuity {

class Progress {
 public:
  enum class State : std::uint8_t {
    serving,
    starting,
    taken_over,
    completed,
    rolled_back,
    failed,
  };
  struct Outcome {
    State state = State::serving;
    pid_t successor = 0;
    Nanoseconds start_time = 0;
    Nanoseconds switch_time = 0;
    Nanoseconds life_time = 0;
    std::uint64_t changes = 0;
    pid_t predecessor = 0;
    Nanoseconds takeover_time = 0;
  };

  explicit Progress(const Sys& sys);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // As the agent sees it. What does not follow from the state before changes nothing.
  void note_successor(pid_t successor);
  void begin();
  void take_over(Nanoseconds began);
  void announce();  // that: outside the time in which nobody accepts
  void complete();
  void roll_back();
  void fail();
  // What this process's own start has been.
  void note_predecessor(pid_t predecessor, Nanoseconds took);

  // Told in what this process has forked as well.
  [[nodiscard]] bool has_completed() const { return completed_->load(); }
  // Nobody is to take over from this process any more, nor has it anything.
  void give_up() { completed_->store(true); }

  [[nodiscard]] Outcome outcome();
  // Readable from a change on until it is acknowledged. -1: none can be made.
  int event();
  void acknowledge();
  // The same for a thread of ours that waits.
  OwnedFd watch();

 private:
  void enter(State state);
  void ring_events();

  const Sys* sys_;
  std::mutex mutex_;
  Outcome outcome_;
  Nanoseconds since_ = 0;                   // the claim, and later the take-over
  std::atomic<bool> own_completed_{false};  // where no memory can be shared
  std::atomic<bool>* completed_ = &own_completed_;
  OwnedFd event_;
  OwnedFd watch_;
};

}  // namespace continuity
