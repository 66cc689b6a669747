// The agent, while nothing is to be done, with a table of descriptors of its own.
//
// Where two threads share a table the kernel counts who uses each file, in every call on a
// descriptor: 25 to 30 ns each. A program that has one thread is not to pay that for ours. So
// the agent parts with the table, keeps copies of the few descriptors that it is told something
// by, and waits. What is to be done then takes the program's table, which only a thread can give
// to another: the program's makes the helper, which works in the agent's place until nothing is
// to be done, while the agent does nothing at all. The helper borrows what makes the agent a
// thread for libc, and has most of its stack.
//
// The program's thread comes to that in its next wait: it is woken by a bell of ours among the
// descriptors of its own epoll, and is not told of it. A signal would end what it is in the
// middle of, or leave it half done, and is sent only where it does not come for a while.
//
// Only where the program has one thread: where it has more they share their table anyway.
#pragma once

#include "core/clock.hpp"
#include "core/owned_fd.hpp"
#include "shim/watch.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <sys/epoll.h>

namespace continuity::shim {

class Apart {
 public:
  // What the agent is told something by: numbers in the program's table; -1: none.
  struct Watched {
    int bells = -1;
    int leader = -1;
    int door = -1;
    int proc = -1;
  };

  Apart() = default;
  // Before the agent's thread is made, in the program's. `proc` is /proc, as the kernel numbers
  // it. False: not on this machine, or somebody wants to know of our threads.
  bool prepare(int proc) noexcept;

  // ---- The agent's thread ---------------------------------------------------------

  // Its stack, and what the helper is to run.
  // `wake` wakes the agent.
  void begin(std::span<std::byte> stack, void (*work)(void*), void* argument, int wake) noexcept;
  // The program's next wait is to be that in which we part. False: that cannot be now.
  bool ask_to_part(int proc) noexcept;
  // Not in this one after all.
  static void stay() noexcept;
  // Parts, while the program's thread waits for that. From then on this thread has no
  // descriptors but copies. False: they could not be made, and it is as before.
  bool part(const Watched& watched) noexcept;
  // Has been told of something: what is to be watched is another one.
  void watch(const Watched& watched) noexcept;
  // Whether anything has happened by then.
  bool wait(Nanoseconds until) noexcept;
  // Has the program's thread make the helper, and comes back when that has ended.
  void be_helped() noexcept;

  // ---- The program's threads ------------------------------------------------------

  // In a wait on this epoll: is told of there from now on, and waits for the agent to part
  // if it wants to. The caller is in the slow path.
  void join_wait(int epoll);
  // Makes the helper, if the agent waits for one. Async-signal-safe.
  void help() noexcept;
  // Before a wait in which the bell is not heard: makes it in any case, to stay until the
  // program waits by an epoll again.
  void help_meanwhile() noexcept;
  // In such a wait, or since.
  [[nodiscard]] static bool is_deaf() noexcept;

 private:
  [[nodiscard]] bool may_part(int proc) const noexcept;
  bool make_helper(ApartState from) noexcept;
  static int begin_helper(void* self);
  void ring_bell() const noexcept;
  struct Look {
    long call = 0;  // the number of the one that it is in, or as find_call says
    std::uint64_t sleeps = 0;
    bool may_be_signalled = false;
  };
  [[nodiscard]] Look look() const noexcept;
  void signal_if_late(Nanoseconds waited, Look& before) const noexcept;

  std::span<std::byte> stack_;  // the helper's
  void (*work_)(void*) = nullptr;
  void* argument_ = nullptr;
  void* thread_memory_ = nullptr;
  pid_t process_ = 0;
  int wake_ = -1;
  unsigned filters_ = 0;                  // of system calls, when the agent was made
  OwnedFd bell_;                          // in the program's epoll
  std::atomic<std::uint32_t> go_{0};      // a futex: the agent does nothing from now on
  std::atomic<std::uint32_t> ended_{0};   // a futex: the helper's work has
  std::atomic<std::uint32_t> helper_{0};  // a futex: its thread, until that has ended
  // In the agent's own table.
  Watched copies_;
  int own_bell_ = -1;
  bool watches_all_ = false;
};

}  // namespace continuity::shim
