// A predecessor and its successors in one process, one thread and a time of
// their own.
//
// Whoever waits lets the others run: a wait of the successor's runs the
// predecessors' rounds, and when nobody has anything to do the clock moves on.
// Sixty seconds of waiting take no time, and every run is like the one before.
#pragma once

#include "core/holder.hpp"
#include "core/rendezvous.hpp"
#include "core/taker.hpp"
#include "fake_program.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace continuity::test {

class Predecessor;

class World {
 public:
  World();

  // The kernel as predecessors, as successors and as the log see it.
  FakeSys<10> holder_sys;
  FakeSys<11> taker_sys;
  FakeSys<12> log_sys;

  Options options;
  Log log;
  std::vector<std::string> lines;
  TempDirectory directory;
  OwnedFd proc;
  std::vector<int> killed;  // whom a predecessor sent SIGTERM

  [[nodiscard]] bool logged(std::string_view text) const;

  [[nodiscard]] Nanoseconds time() const { return time_; }
  // Lets everybody run until nobody has anything to do.
  void settle();
  // Lets time pass, and everybody run meanwhile.
  void pass(Nanoseconds duration);

  [[nodiscard]] Rendezvous open_rendezvous(const Sys& sys) const;
  [[nodiscard]] Taker make_taker(std::uint64_t generation, std::string identity = "server") {
    return {taker_sys, log, options, {.identity = std::move(identity), .generation = generation}};
  }

  std::vector<Predecessor*> predecessors;
  // Runs whenever somebody waits: a peer that a test plays itself.
  std::function<void()> on_wait;
  bool runs_at_yield = false;  // who yields lets the others run, as who waits

 private:
  int wait(pollfd* fds, nfds_t count, const timespec* timeout);
  void run_all();

  Nanoseconds time_ = 1000 * second;
};

// A channel to the one generation that is at the rendezvous. Throws if it is not alone.
Channel channel_to_only_one(World& world);

// A generation that listens, publishes itself and answers.
class Predecessor {
 public:
  explicit Predecessor(World& world, const std::vector<std::string>& addresses = {"127.0.0.1:0"},
                       std::uint64_t generation = 1, const std::string& identity = "server");
  // Holds these listeners, as one that has taken them over.
  Predecessor(World& world, std::vector<OwnedFd> listeners, std::uint64_t generation,
              const std::string& identity = "server");
  ~Predecessor();
  Predecessor(const Predecessor&) = delete;
  Predecessor& operator=(const Predecessor&) = delete;

  [[nodiscard]] int fd(std::size_t index = 0) const { return listeners_.at(index).get(); }
  // What a program would ask for that binds the same address.
  [[nodiscard]] Listener wanted(std::size_t index = 0) const;
  // Whether the listener is under its number, and a client is accepted from it.
  [[nodiscard]] bool accepts(std::size_t index = 0) const;

 private:
  World& world_;
  std::vector<OwnedFd> listeners_;
  std::vector<std::uint64_t> inodes_;
  std::vector<Address> addresses_;
  Rendezvous rendezvous_;
  OwnedFd wake_;
  OwnedFd door_;

 public:
  bool stopped = false;  // as by SIGSTOP
  HiddenFiles hidden;    // CONTINUITY_HIDE of the world's options
  FakeProgram program;
  FakeOwner owner;
  Holder holder;
};

}  // namespace continuity::test
