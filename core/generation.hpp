// A generation of several processes as an owner of listeners.
//
// One of them leads: its agent holds the conversations. What it decides is
// written into the page; the agents of the others are woken, do it in their own
// process, and say so. Without others this is no more than the local owner.
#pragma once

#include "core/local_owner.hpp"
#include "core/page.hpp"
#include "core/processes.hpp"

#include <set>
#include <string>
#include <vector>

namespace continuity {

// Whether this agent still runs. A pid alone would not tell: the program may
// have executed another one meanwhile.
bool is_agent_alive(const Sys& sys, AgentId agent);

// Whether it is up to the calling process, of several that might do the same: until
// the thread that took the turn ends, or gives it back as nobody's. Who has it and
// asks again still has it. Not until the process ends: it may execute another program
// in the middle of it.
bool take_turn(const Sys& sys, std::atomic<AgentId>& turn);

// The process will join: what it listens on belongs to the next inventory.
void note_newcomer(const Sys& sys, Page& page, pid_t process);

// There is a listener, or who has one is within reach of the leader, who is woken for it
// while a restart is under way. `bell`: -1, if there is none yet.
void note_listener_made(const Sys& sys, Page& page, int bell);

class Generation : public Owner {
 public:
  // `bell` is an eventfd on which all agents of the generation are woken,
  // `offers` the socket from which the leader takes listeners that only others
  // hold, and `offering` its other end. What is sent the other way stays in there, with
  // its descriptors, for as long as any process of the generation lives: there the leader
  // keeps its attempt for whoever leads after it.
  struct Ties {
    int bell;
    int offers;
    int offering;
    int page;  // the file behind it
    int door;
  };
  Generation(const Sys& sys, Log& log, Page& page, LocalOwner& local, int proc, Ties ties);

  // ---- Every member -------------------------------------------------------------

  // The calling thread is the agent of this process from now on. Afterwards it
  // must follow before the program waits for work. False: there is no room.
  bool join();
  // Brings this process to where the page says that the generation is.
  // False: it could not go deaf, for want of memory; to be tried again before
  // the program waits for work.
  bool follow();
  // Looks for live connections again if it is time; when it wants to look next.
  Nanoseconds look();

  // Nothing is under way, and nothing has been asked of this process. Uses no descriptor.
  [[nodiscard]] bool is_at_rest() const;
  [[nodiscard]] bool is_leader() const;
  // No other process has an agent.
  [[nodiscard]] bool is_alone() const;
  // The first of those that do not lead.
  [[nodiscard]] bool is_deputy() const;
  // True if this process leads, from now on or already.
  bool try_to_lead();
  // Brings who leads from now on to where the one before had come. False: not yet, for
  // want of memory.
  bool take_over();
  // Whose end is to be watched: who leads, or who is expected to. 0: nobody.
  [[nodiscard]] pid_t expected_leader() const;

  // The rendezvous socket is another one from now on.
  void answer_at(int door) { ties_.door = door; }

  // ---- The leader: an Owner for Holder ------------------------------------------

  std::vector<Item> inventory() override;
  Status prepare(std::vector<Item> items) override;
  void abandon() override;
  int descriptor(std::uint32_t id) override;
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) override;
  void sweep() override;
  void revive() override;
  void forget_listeners() override;
  unsigned connections() override;
  void finish_idle() override;
  Holding holding() override;
  void note_probation(Nanoseconds until) override;
  void note_drain(Nanoseconds until) override;
  void keep(std::vector<Kept> attempt) override;
  std::vector<Received> kept() override;
  std::vector<Prepared> prepared() override;
  bool is_scattered() override;
  std::uint32_t listeners_made() override { return page_->listeners_made.load(); }
  std::vector<Item> late_listeners(bool& all) override;
  Status prepare_late(std::vector<Item> items) override;
  void shut_out(std::span<const std::uint32_t> ids) override;
  void close_listeners(std::span<const std::uint32_t> ids) override;
  void send_signal(int signal) override;
  std::vector<std::string> program_names() override;
  void stop(int signal) override;
  void stop_next(int signal) override;
  void name_successor() override;
  void withdraw() override;
  void meet(pid_t successor) override;
  ProcessWatch* successor_watch() override { return local_->successor_watch(); }
  void take_leave() override;
  bool is_kin(pid_t process, bool fresh) override;
  bool is_forked(pid_t process) override;
  bool is_outlived(pid_t process) override;
  bool holds(std::span<const std::uint64_t> inodes) override;
  void expect(pid_t process) override;
  std::vector<int> ties() override;
  std::vector<Item> known_listeners() override { return local_->inventory(); }
  std::vector<pid_t> processes() override;
  pid_t main() override { return main_process(); }
  Journal& journal() override { return page_->journal; }
  std::string_view start() override { return local_->start(); }

 private:
  // A listener of the page, as this process found it.
  struct Seen {
    std::uint64_t inode;
    std::uint32_t id;
    bool claimed;
    Retirement::SharedState before;
  };
  struct State {
    std::uint32_t sequence;
    Stage stage;
    std::uint32_t attempt;
    std::uint32_t offer_round;
    std::vector<Seen> listeners;
  };
  // What another process has lent the leader for the time of an attempt.
  struct Offered {
    Listener listener;
    std::uint64_t inode;
    OwnedFd fd;
  };
  void note_listener_made();
  // What others offer meanwhile, and where it is kept.
  struct Asking {
    std::vector<Item>* items;
    std::vector<Offered>* kept;
    bool late;  // who has not joined is not waited for, and nobody is complained of
  };
  [[nodiscard]] State read_page() const;
  template <typename Change>
  void change(Change change);
  void ring();
  template <typename Visit>
  void for_each_listener(std::span<const std::uint32_t> ids, Visit visit);
  void note_shut_out(std::span<const std::uint32_t> ids);
  [[nodiscard]] Channel channel_of(int tie) const;
  // True if all others have followed. `longest`: until then, where none of them is stopped.
  bool await_others(Nanoseconds deadline, Error* failure = nullptr, const Asking* asking = nullptr,
                    Nanoseconds longest = 0);
  template <typename Visit>
  void for_each_other(Visit visit, bool only_living = true) const;
  [[nodiscard]] pid_t newcomer() const;
  [[nodiscard]] Processes::Held find_in_children() const;
  Status prepare_here(const State& state);
  bool prepare_late_here(const State& state);
  [[nodiscard]] std::vector<Item> named_items(std::span<const Seen> names);
  static void note_item(PageListener& entry, const Item& item);
  void leave_stale_attempt(const State& state);
  void serve_again();
  int retire_claimed(const State& state, bool& any);
  void say_followed(const State& state, int failed);
  void step_aside(const State& state);
  void offer_own(const State& state);
  void take_offers(const Asking& asking);
  void ask_for_offers(const std::vector<Item>& items);
  [[nodiscard]] std::set<pid_t> members() const;
  [[nodiscard]] std::set<pid_t> successors() const;
  [[nodiscard]] pid_t main_process() const;
  [[nodiscard]] pid_t find_stranger(std::span<const std::uint64_t> inodes) const;
  [[nodiscard]] Status find_ring_workers(std::span<const std::uint64_t> inodes,
                                         bool datagrams) const;
  [[nodiscard]] Status find_strangers(std::span<const Item> items) const;

  const Sys* sys_;
  Log* log_;
  Page* page_;
  LocalOwner* local_;
  Processes processes_;
  Ties ties_;
  Member* self_ = nullptr;
  AgentId own_agent_{};           // whichever thread works for it
  Stage stage_ = Stage::serving;  // of this process
  std::set<std::uint32_t> retired_;
  std::size_t prepared_ = 0;  // so many of the page's listeners have been looked for here
  std::vector<Offered> offered_;
  std::vector<Offered> late_;  // until they are prepared
  std::uint32_t offer_round_ = 0;
  unsigned kept_ = 0;          // messages, of what this process has kept
  std::uint32_t attempt_ = 0;  // whose inventory this process has prepared
  Processes::Held held_elsewhere_;
  pid_t told_to_stop_ = 0;
  Nanoseconds next_look_ = never;
};

}  // namespace continuity
