// A program with listeners, around which a restart goes on: what the face of
// the library is in a real process.
#pragma once

#include "core/local_owner.hpp"
#include "sockets.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace continuity::test {

class FakeProgram : public Program {
 public:
  void lock_descriptors() override;
  void unlock_descriptors() override { --locked; }
  void note_retired(int fd, const Listener& listener, bool blocking, bool polled) override;
  void note_reviving(int fd) override;
  void note_revived(int fd) override;
  void note_settled() override { events.emplace_back("settled"); }
  [[nodiscard]] bool is_waited_for(int fd) const override { return waits_for == fd; }
  bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) override;

  struct Note {
    std::string what;
    int fd;
    bool blocking;
    bool polled;
    bool locked;
  };
  std::vector<Note> notes;
  std::vector<std::string> events;
  std::function<void()> on_lock;   // the program races with us just before
  std::function<void()> on_clear;  // everything is swapped, nothing is settled
  bool accepts_clear = true;
  int waits_for = -1;  // by a call
  int locked = 0;
};

// Descriptors that are not the program's: those that core opened, and those
// that a test has put aside, as a successor in another process would hold them.
bool is_ours(int fd);
class Aside {
 public:
  explicit Aside(int fd);  // makes a copy of it
  ~Aside();
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;
  [[nodiscard]] int get() const { return fd_.get(); }

 private:
  OwnedFd fd_;
};

// The owner of one process as it is, which remembers what it was told to do.
class FakeOwner : public LocalOwner {
 public:
  FakeOwner(const Sys& sys, Log& log, int proc, int directory, FakeProgram& program,
            std::vector<int> listeners)
      : LocalOwner(sys, log, proc, directory, program, is_ours), fds(std::move(listeners)) {}

  std::vector<Item> inventory() override;
  Status prepare(std::vector<Item> items) override;
  bool is_scattered() override { return scattered; }
  std::uint32_t listeners_made() override { return made; }
  std::vector<Item> late_listeners(bool& all) override;
  Status prepare_late(std::vector<Item> items) override;
  void abandon() override;
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) override;
  void sweep() override;
  void revive() override;
  void forget_listeners() override;
  unsigned connections() override { return live_connections.value_or(LocalOwner::connections()); }
  void close_listeners(std::span<const std::uint32_t> ids) override;
  void finish_idle() override { calls.emplace_back("finish"); }
  void send_signal(int signal) override { calls.push_back("signal " + std::to_string(signal)); }
  void stop(int signal) override { calls.push_back("stop " + std::to_string(signal)); }
  void stop_next(int signal) override { calls.push_back("stop next " + std::to_string(signal)); }
  void withdraw() override { calls.emplace_back("withdraw"); }
  bool is_outlived(pid_t /*process*/) override { return peers_are_outlived; }
  ProcessWatch* successor_watch() override {
    return watch ? &*watch : LocalOwner::successor_watch();
  }

  // How often it was told to do what begins like this.
  [[nodiscard]] int count(std::string_view what) const;

  std::vector<int> fds;
  std::vector<std::string> calls{};
  std::optional<unsigned> live_connections{};  // instead of those there are
  bool scattered = false;
  std::uint32_t made = 0;
  std::vector<int> late{};  // what only shows when it is asked for
  bool all_answer = true;
  std::function<void()> on_retire{};
  bool peers_are_outlived = false;
  std::optional<ProcessWatch> watch{};  // of somebody else than who speaks

 private:
  void note(const char* what, std::span<const std::uint32_t> ids);
};

}  // namespace continuity::test
