// What this process is: its options, its name, its part in a restart.
//
// Rules: everything here is cold. It may allocate and take the lock, with all
// signals blocked: a handler of the program's that runs on a thread of ours
// may call any wrapper. Never destroyed: threads outlive static destructors.
#pragma once

#include "core/hidden_files.hpp"
#include "core/listener.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/page.hpp"
#include "core/rendezvous.hpp"
#include "core/socket_options.hpp"
#include "core/stand_in.hpp"
#include "core/taker.hpp"
#include "shim/watch.hpp"

#include <csignal>
#include <list>
#include <map>
#include <optional>
#include <pthread.h>
#include <span>
#include <string>
#include <vector>

namespace continuity::shim {

class Agent;

// A listener of a predecessor's under the program's own number. Or a socket of the
// program's own, which must not listen yet: beside some of the predecessor's, which
// overlap with it, or one member more than the predecessor's group has.
struct ClaimedListener {
  Listener listener;
  std::vector<Taker::Beside> beside{};
  bool native = false;   // the program's own socket
  bool again = false;    // the predecessor's, under another number of the program's already
  bool grouped = false;  // SO_REUSEPORT as the program has it
  std::vector<int> fds;  // the program's numbers, most often one
  OwnedFd model;         // what the program bound: takes what must wait
  bool alike = false;    // the listener had the model's options before READY
  std::vector<RecordedOption> recorded;
  int backlog = -1;     // of the program's listen; -1: not called
  bool shared = false;  // with processes forked since: one of them asks for all
  pid_t maker = 0;      // who claimed what is shared
};

// What an epoll is to watch once it is the program's own (early_waits.hpp).
struct EarlyWatch {
  int epoll;
  int fd;
  epoll_event event;
};

// What a process knows of its having been forked.
enum class ForkState : std::uint32_t {
  wiped,     // it is a child, and has not noticed: a fork past the handlers
  settled,   // everything of ours is this process's own
  noticed,   // it is a child; what is ours is the parent's until it is needed
  settling,  // a thread is at it
};

// What a forked child finds wiped.
struct Wiped;

// No mapping of its own, since a fork copies each mapping, and the page table of what lies
// apart. So there is no guard below it: the largest frame has 33 KB, and in a restart the
// agent has been seen to use 16.
constexpr std::size_t agent_stack_size = std::size_t{256} * 1024;

// What processes forked from each other inherit, besides the page. Made before
// the first fork of a process that has listeners.
struct Ties {
  OwnedFd bell;        // an eventfd: the page has changed
  OwnedFd offers;      // where the leader takes listeners that only others have
  OwnedFd offering;    // its other end
  OwnedFd door;        // the rendezvous socket: refuses once all of them are dead
  OwnedFd old_door{};  // of the user we were: the agent may be listening there still
};

class Process {
 public:
  // Null when the library is to do nothing here: disabled, setuid, no memory.
  static Process* get() noexcept;
  // The same, but never makes one.
  static Process* existing() noexcept;

  Options options;
  Log log;
  std::string identity;
  std::uint64_t generation = 0;
  OwnedFd proc;  // /proc, opened before anybody can chroot

  std::optional<HiddenFiles> hidden;  // if CONTINUITY_HIDE names any

  std::optional<Taker> taker;
  Taker& own_taker();  // made if there is none
  std::list<ClaimedListener> claims;
  std::vector<EarlyWatch> early_watches;
  OwnedFd early_bed;  // where threads sleep meanwhile
  // These under DescriptorsHeld: the agent uses them too.
  std::map<std::uint64_t, SocketFile> socket_files;  // by socket inode
  std::map<int, Address> retired_names;              // by descriptor number
  std::vector<SocketFile> handed_over;               // of what has been retired
  std::vector<Address> handed_over_addresses;
  bool has_handed_over = false;
  Agent* agent = nullptr;
  // While the program forks, an agent that was started for it does nothing: libc
  // looks whether there are threads before it calls us, and if there were none it
  // does not wait for who is inside malloc (glibc 2.36, posix/fork.c).
  std::atomic<std::uint32_t> holds_agent{0};
  Rendezvous* published = nullptr;  // where the agent answers

  Page* page = nullptr;  // shared by the generation, once there may be listeners
  Ties ties;
  // To those we took over from: while anybody of the generation has them open,
  // it lives.
  std::vector<Channel> lifelines;
  // Says by them that this process ends on purpose.
  void say_goodbye();

  // Where the user we are now meets others. Opened at first use; null, and said
  // once, where there is no good place.
  Rendezvous* rendezvous();
  // Makes and opens the place of a user that this process, root, will become.
  void prepare_rendezvous(uid_t user);

  // For what a retired program binds again.
  StandIns& stand_ins();

  // From now on waits and forks are noticed. False: no memory, no /proc.
  bool start_watching();

  // Once in each process; then, and before it watches, empty: a thread that ends is on its
  // stack a little longer.
  std::span<std::byte> take_agent_stack();
  void set_gate(Gate gate);

  // Makes what is here this process's own, if it has been forked since. Signals are
  // blocked. False: this is a vfork child, and the memory its parent's.
  bool settle_if_forked() noexcept;

  // Forked without our noticing: has no part in anything.
  [[nodiscard]] bool is_bystander() const { return bystander_; }

  // Registers what notices forks; for the constructor, when there is no Process.
  static void notice_forks() noexcept;

  // This process has a listener that it neither bound nor inherited by fork: it
  // belongs to whoever has it too. False: to one that has handed over, and so
  // there is nothing for it to do.
  // Forked before anything was bound, it belongs to whoever of its image came first.
  bool join_generation();
  [[nodiscard]] bool may_join() const;
  // Set where a listener is bound, or claimed.
  // Does nothing from now on, as if it were switched off. False: it has begun to serve.
  static bool stand_aside() noexcept;

  // How the first process of this generation was started, as core/start.hpp writes it. Not
  // in the page, to which processes write that have fewer rights than the first: root may
  // start the server again by it.
  std::string start;
  // What showed that this process is ready.
  Evidence evidence = Evidence::unknown;

  bool has_bound = false;
  // For others of our name, at the rendezvous.
  std::atomic<bool> has_looked{false};

  // Makes what processes forked from this one will share. False: no memory.
  bool tie();
  // What may listen one day counts.
  [[nodiscard]] static bool holds_listeners();
  // Other processes are about to get the listeners: makes what ties them together,
  // and the agent of the process at the top, which they will look for.
  void expect_others();
  [[nodiscard]] bool is_on_top() const;
  // -1: this process has nothing in common with others yet.
  [[nodiscard]] int bell() const { return ties.bell.is_open() ? ties.bell.get() : -1; }
  [[nodiscard]] int page_memory() const { return page_memory_.get(); }

  // Not a forked child of the process that this was.
  [[nodiscard]] bool is_this() const;

  ClaimedListener* claim_of(int fd);
  // What it lies beside need not be closed for it any more.
  void release_beside(const ClaimedListener& claim);

 private:
  friend class SlowPath;
  Process();
  void read_environment();
  bool open_proc();
  bool open_page();
  bool map_page();
  void record_start();
  void settle_in_forked_child(bool noticed) noexcept;
  void step_aside() noexcept;
  [[nodiscard]] std::vector<int> inherited() const;
  static void lock_settled_descriptors() noexcept;
  bool prepare_fork() noexcept;
  [[nodiscard]] bool has_prepared_fork() const noexcept;
  static void before_fork() noexcept;
  static void after_fork_in_parent() noexcept;
  static void after_fork_in_child() noexcept;

  std::map<uid_t, std::optional<Rendezvous>> rendezvous_;  // by user; empty: no good place
  std::optional<StandIns> stand_ins_;
  bool bystander_ = false;
  pid_t pid_ = 0;
  Wiped* wiped_ = nullptr;
  OwnedFd page_memory_;
  // The thread whose last fork was prepared for, with the locks held, and its mask. Not
  // undone afterwards, but changed when it is another: the page that they are in would
  // be copied for it, in each fork.
  std::atomic<pthread_t> forker_{0};
  sigset_t fork_mask_{};
};

// Entry into the cold half from a wrapper: one thread at a time, no signals,
// errno kept. Unusable where the library has nothing to do: disabled, in a
// bystander, or in a vfork child, whose memory is its parent's.
class SlowPath {
 public:
  explicit SlowPath(Process* process) noexcept;
  ~SlowPath();
  SlowPath(const SlowPath&) = delete;
  SlowPath& operator=(const SlowPath&) = delete;

  explicit operator bool() const { return process_ != nullptr; }
  Process* operator->() const { return process_; }
  Process& operator*() const { return *process_; }

 private:
  ErrnoGuard errno_guard_;
  Process* process_;
  sigset_t old_mask_{};
};

// The program has an owner's thread in retire or close: numbers must not move.
// Taken after the process lock where both are.
class DescriptorsHeld {
 public:
  DescriptorsHeld() noexcept;
  ~DescriptorsHeld();
  DescriptorsHeld(const DescriptorsHeld&) = delete;
  DescriptorsHeld& operator=(const DescriptorsHeld&) = delete;

 private:
  sigset_t old_mask_{};
};
void lock_descriptors() noexcept;
void unlock_descriptors() noexcept;

// Ends this program without its exit handlers, which might remove what belongs
// to the predecessor.
// This process was told to leave, and executed itself instead. Ends it.
[[noreturn]] void end_outlived(Process& process);
[[noreturn]] void end_successor(Process& process, const std::string& reason);

}  // namespace continuity::shim
