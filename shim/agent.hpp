// The thread of ours that holds conversations, and what it knows of the
// program around it.
#pragma once

#include <pthread.h>

#include <memory>
#include <vector>

#include "core/holder.hpp"
#include "core/retirement.hpp"
#include "shim/process.hpp"

namespace continuity::shim {

// This process as an owner of listeners: a generation of one.
class ProcessOwner : public Owner, public Program {
 public:
  explicit ProcessOwner(Process& process);

  std::vector<Item> inventory() override;
  Status prepare(std::vector<Item> items) override;
  void abandon() override;
  int descriptor(std::uint32_t id) override;
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) override;
  void sweep() override;
  void revive() override;
  void forget_listeners() override;
  unsigned connections() override;
  void close_listeners(std::span<const std::uint32_t> ids) override;
  void send_signal(int signal) override;
  void withdraw() override;

  void lock_descriptors() override;
  void unlock_descriptors() override;
  void note_retired(int fd, const Listener& listener, bool blocking, bool polled) override;
  void note_revived(int fd) override;
  void note_settled() override;
  bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) override;

 private:
  void wake(AcceptSlot& slot);
  bool is_really_inside(pid_t thread);

  Process* process_;
  Retirement retirement_;
  Descriptors::Connections last_seen_;
};

class Agent {
 public:
  // Publishes this process and starts the thread. Null, and said in the log,
  // if that cannot be: the program runs on, but cannot be restarted.
  static Agent* start(Process& process, std::vector<Channel> predecessors,
                      Nanoseconds probation_ends);

  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

 private:
  Agent(Process& process, OwnedFd door, OwnedFd wake);
  static void* run(void* self);

  OwnedFd door_;
  OwnedFd wake_;
  ProcessOwner owner_;
  Holder holder_;
};

// Blocks until the last stand-in is in place, if numbers are moving just now.
void wait_until_settled() noexcept;
// Counts retirements, so that a thread can tell a stale readiness.
std::uint32_t retire_epoch() noexcept;

}  // namespace continuity::shim
