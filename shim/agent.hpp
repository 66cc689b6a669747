// The thread of ours that holds conversations, and what it knows of the
// program around it.
#pragma once

#include "core/generation.hpp"
#include "core/holder.hpp"
#include "core/local_owner.hpp"
#include "shim/apart.hpp"
#include "shim/process.hpp"
#include "shim/ring_issuer.hpp"
#include "shim/ring_watch.hpp"

#include <array>
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
  Status prepare_late(std::vector<Item> items) override;
  void abandon() override;
  void revive() override;
  void forget_listeners() override;
  void stop(int signal) override;
  void withdraw() override;
  void name_main_process(pid_t main) override;
  bool holds(std::span<const std::uint64_t> inodes) override;
  std::string_view start() override { return process_->start; }

  void lock_descriptors() override;
  void unlock_descriptors() override;
  void note_retired(int fd, const Listener& listener, bool blocking, bool polled) override;
  void note_reviving(int fd) override;
  void note_revived(int fd) override;
  void note_settled() override;
  [[nodiscard]] bool is_waited_for(int fd) const override;
  bool clear_sends(int fd, Nanoseconds deadline) override;
  bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) override;
  bool reach(int ring) override { return issuer_.reach(ring); }
  int call(int ring, unsigned operation, void* argument, unsigned count) override {
    return issuer_.call(ring, operation, argument, count);
  }

 private:
  void wake_pollers();
  void make_bed(const std::vector<Item>& items);

  Process* process_;
  ThreadIssuer issuer_;
  OwnedFd revived_;
  OwnedFd bed_;
};

class Agent {
 public:
  // Starts the thread, and waits until it has brought this process to where its
  // generation is. Null, and said in the log, if that cannot be: the program
  // runs on, but cannot be restarted.
  static Agent* start(Process& process);

  // Before the generation owns its listeners: from then on it must be found. The
  // caller is in the slow path. Waits for whoever leads, if that is another
  // process, but not for ever.
  void see_to_announcement();
  // The same where this process leads, or is about to; otherwise nothing. Its agent
  // could not: the slow path is the caller's. True: there was nothing else to do.
  bool announce_if_leading();

  // Process::prepare_rendezvous in the agent's thread, which may have rights that the
  // calling one has given up. The caller is in the slow path. False: it has no time.
  bool prepare_rendezvous(uid_t user);

  // Tells the predecessors that this process ends on purpose. The caller is not in the
  // slow path. False: it has no time.
  bool say_goodbye();

  // The program has become another user: so does the agent, if libc does not know it. The
  // caller is not in the slow path.
  void follow_user();

  // No other process of the generation has an agent.
  [[nodiscard]] bool is_last() const { return generation_.is_alone(); }

  // Who we took over from just now watches us from now on.
  void watch(std::vector<Channel> predecessors, Nanoseconds until);

  // The program is about to wait on this epoll, and the agent is apart or wants to be. The
  // caller is in the slow path.
  void join_wait(int epoll) { apart_.join_wait(epoll); }

  // This process has a connection to a predecessor: its end is to be noticed.
  void notice_lifelines() noexcept;

  // The program may wait for work by a ring: from now on the agent looks for that, until
  // the generation owns its listeners.
  void watch_rings() noexcept;

  // A descriptor of ours has another number: what sleeps in poll on the old one
  // would never hear of it.
  void notice_moved() noexcept;

  // Whether a successor holds copies of our listeners.
  [[nodiscard]] static bool has_granted() noexcept;

  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  ~Agent() = default;

 private:
  Agent(Process& process, OwnedFd wake, OwnedFd bells);
  enum class Errand : std::uint32_t { prepare_rendezvous, say_goodbye };
  enum class ErrandState : std::uint32_t { none, asked, under_way, done };
  bool ask_for(Errand errand);
  void do_errand();
  void tell_predecessors();
  void settle();
  enum class Stack { own, any };
  int start_thread(Stack stack);
  bool start_unlisted();
  void await_started();
  void become_user();
  void take_credentials();
  [[nodiscard]] bool is_cramped() const;
  [[nodiscard]] bool is_on_own_stack(const std::byte* here) const;
  static void* run(void* self);
  void say_started(std::uint32_t how);
  void try_step();
  void step();
  void start_up();
  void take_arrivals();
  void drop_lifelines();
  void make_holder();
  void take_charge();
  void run_holder(Nanoseconds until = never);
  void drain_bells();
  bool is_announced();  // from now on, if it can be
  bool announce();
  bool publish(Rendezvous& place);
  void end_generation();
  void sleep(Nanoseconds most);
  void watch_leader();
  [[nodiscard]] Nanoseconds look_interval() const;
  [[nodiscard]] bool is_at_rest();
  [[nodiscard]] bool has_rested();
  Nanoseconds until_rest(Nanoseconds until);
  void rest();
  [[noreturn]] void wait_apart();
  void watch_apart() noexcept;
  [[nodiscard]] Apart::Watched watched() const;
  static void help(void* self);

  static constexpr std::uint32_t started = 1;
  static constexpr std::uint32_t failed = 2;
  static constexpr std::uint32_t cramped = 3;  // its stack is too small

  std::atomic<std::uint32_t> must_follow_{0};  // a futex
  // Under DescriptorsHeld: what the program has become.
  struct Credentials {
    std::array<uid_t, 3> users;
    std::array<gid_t, 3> groups;
    std::vector<gid_t> other_groups;
  };
  Credentials credentials_{};
  std::atomic<std::uint32_t> credentials_version_{0};
  std::atomic<std::uint32_t> errand_state_{0};  // an ErrandState; a futex
  std::atomic<Errand> errand_{};
  uid_t errand_user_ = 0;
  std::atomic<pid_t> thread_{0};
  std::atomic<std::uint32_t> started_{0};
  std::span<std::byte> stack_;  // empty: none of ours
  Process* process_;
  OwnedFd wake_;   // this process's own
  OwnedFd bells_;  // an epoll: tells once of each ring of the bell, each wake, each lifeline's end
  OwnedFd leader_;
  pid_t leader_pid_ = 0;
  bool settled_ = false;
  bool unlisted_ = false;  // libc does not know of the thread
  bool may_part_ = false;
  Nanoseconds rests_at_ = never;  // if nothing happens until then
  Apart apart_;
  std::uint32_t revivals_seen_ = 0;
  std::vector<Channel> arrivals_;  // under DescriptorsHeld
  Nanoseconds arrivals_until_ = 0;
  ProcessOwner owner_;
  RingWatch ring_watch_;
  Generation generation_;
  std::optional<Holder> holder_;  // while this process leads
  bool in_charge_ = false;        // of what the generation owns
};

// Lets the agent have a barrier executed in all threads of this process. False:
// the kernel, or a seccomp filter, does not have it.
bool register_barrier(const Sys& sys) noexcept;

// Wakes threads asleep in accept on what is, or was, a stand-in under this number.
void wake_sleepers(int fd) noexcept;

// The descriptor that is readable once what was retired last has been given
// back; -1 if there is none.
int revival_number() noexcept;
// Where threads sleep that would receive from a retired datagram listener; -1: none.
int bed_number() noexcept;
// How often listeners have been given back.
std::uint32_t revivals() noexcept;

// In a forked child: numbers of its parent's do not move here.
void forget_moving() noexcept;
// Counts retirements, so that a thread can tell a stale readiness.
std::uint32_t retire_epoch() noexcept;

}  // namespace continuity::shim
