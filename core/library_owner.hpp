// A program that registers its listeners with us, as an owner of them. Nothing is wrapped
// here, so what the preload learns from calls is looked up instead: who is inside accept,
// in /proc.
#pragma once

#include "core/local_owner.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/rendezvous.hpp"
#include "core/taker.hpp"

#include <map>
#include <mutex>

namespace continuity {

class LibraryOwner : public Program, public LocalOwner {
 public:
  LibraryOwner(const Sys& sys, Log& log, int proc, Rendezvous& rendezvous, Taker::Self self,
               Progress& progress);

  // The descriptor stays the program's.
  void add(int fd, SocketFile file);

  // A descriptor that is no listener; the latest of a name. False: there are too many.
  bool add_named(const std::string& name, int fd);

  std::vector<Item> inventory() override;
  std::vector<Named> named() override;

  void meet(pid_t successor) override { progress_->note_successor(successor); }
  Status prepare(std::vector<Item> items) override;
  void abandon() override;
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) override;
  void sweep() override;
  void revive() override;
  // Probation is over. Once nothing is served here any more threads asleep in accept are
  // woken for good, and the program may leave.
  void forget_listeners() override;

  // The program leaves by itself when has_completed() tells it.
  void stop(int) override {}
  void withdraw() override { rendezvous_->withdraw(self_.identity, self_.generation); }

  void lock_descriptors() override {}
  void unlock_descriptors() override {}
  void note_retired(int, const Listener&, bool, bool) override {}
  void note_settled() override {}
  void note_reviving(int) override {}
  void note_revived(int fd) override;
  [[nodiscard]] bool gates_receives() const override { return false; }

  bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) override;

 private:
  struct Known {
    std::uint64_t inode;
    SocketFile file;
  };

  int wake_signal();
  bool is_perhaps_inside(pid_t thread, std::span<const int> fds);
  std::vector<pid_t> perhaps_inside(std::span<const int> fds);

  Log* log_;
  int proc_;
  Rendezvous* rendezvous_;
  Taker::Self self_;
  Progress* progress_;
  int wake_signal_ = 0;
  std::mutex mutex_;
  std::map<int, Known> registered_;
  // The program may close what it has named, and be given the number again.
  struct KnownFile {
    int fd;
    dev_t device;
    ino_t inode;
  };
  std::map<std::string, KnownFile> named_;
};

}  // namespace continuity
