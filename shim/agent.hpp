// The thread of ours that holds conversations, and what it knows of the
// program around it.
#pragma once

#include "core/holder.hpp"
#include "core/local_owner.hpp"
#include "shim/process.hpp"

#include <atomic>
#include <memory>
#include <pthread.h>
#include <vector>

namespace continuity::shim {

// An unmodified program as an owner of listeners.
class ProcessOwner : public Program, public LocalOwner {
 public:
  explicit ProcessOwner(Process& process);

  std::vector<Item> inventory() override;
  Status prepare(std::vector<Item> items) override;
  void abandon() override;
  void revive() override;
  void forget_listeners() override;
  void stop(int signal) override;
  void withdraw() override;

  void lock_descriptors() override;
  void unlock_descriptors() override;
  void note_retired(int fd, const Listener& listener, bool blocking, bool polled) override;
  void note_reviving(int fd) override;
  void note_revived(int fd) override;
  void note_settled() override;
  bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) override;

 private:
  [[nodiscard]] bool is_alone() const;
  void wake_pollers();

  Process* process_;
  OwnedFd revived_;
};

class Agent {
 public:
  // Publishes this process and starts the thread. Null, and said in the log,
  // if that cannot be: the program runs on, but cannot be restarted.
  static Agent* start(Process& process, std::vector<Channel> predecessors,
                      Nanoseconds probation_ends);

  // Who we took over from just now watches us from now on.
  void watch(std::vector<Channel> predecessors, Nanoseconds until);

  // A descriptor of ours has another number: what sleeps in poll on the old one
  // would never hear of it.
  void notice_moved() noexcept;

  // Whether a successor holds copies of our listeners.
  [[nodiscard]] static bool has_granted() noexcept;

  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

 private:
  Agent(Process& process, OwnedFd door, OwnedFd wake);
  static void* run(void* self);

  std::atomic<pid_t> thread_{0};
  void take_arrivals();

  OwnedFd door_;
  OwnedFd wake_;
  std::vector<Channel> arrivals_;  // under DescriptorsHeld
  Nanoseconds arrivals_until_ = 0;
  ProcessOwner owner_;
  Holder holder_;
};

// Wakes threads asleep in accept on what is, or was, a stand-in under this number.
void wake_sleepers(int fd) noexcept;

// The descriptor that is readable once what was retired last has been given
// back; -1 if there is none.
int revival_number() noexcept;
// How often listeners have been given back.
std::uint32_t revivals() noexcept;

// Blocks until the last stand-in is in place, if numbers are moving just now.
void wait_until_settled() noexcept;
// Counts retirements, so that a thread can tell a stale readiness.
std::uint32_t retire_epoch() noexcept;

}  // namespace continuity::shim
