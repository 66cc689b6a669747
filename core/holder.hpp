// The predecessor's side of conversations: answers who asks what we hold,
// hands it over, goes deaf, watches the successor, drains, leaves.
//
// Runs in one thread, the agent. Decides nothing by itself: attempt.hpp does.
#pragma once

#include "core/attempt.hpp"
#include "core/channel.hpp"
#include "core/hidden_files.hpp"
#include "core/journal.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/process_watch.hpp"
#include "core/retirement.hpp"

#include <list>
#include <string>
#include <vector>

namespace continuity {

// Whom the listeners belong to: the generation, as the face in it knows it.
class Owner {
 public:
  using Item = Retirement::Item;

  Owner() = default;
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  virtual ~Owner() = default;

  // What can be handed over now, from the descriptors themselves.
  virtual std::vector<Item> inventory() = 0;
  // Gets ready to retire these; nothing of the program's is touched.
  virtual Status prepare(std::vector<Item> items) = 0;
  // The attempt is over before anything was retired: as if not prepared.
  virtual void abandon() = 0;
  // A descriptor of a prepared listener, to be sent.
  virtual int descriptor(std::uint32_t id) = 0;
  virtual bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) = 0;
  virtual void sweep() = 0;
  virtual void revive() = 0;
  virtual void forget_listeners() = 0;
  // Live connections that came through what has been retired.
  virtual unsigned connections() = 0;
  // Tells connections on which nothing is under way to end, wherever they are.
  virtual void finish_idle() = 0;
  // What keeps the generation, for people to read.
  struct Holding {
    unsigned count = 0;
    pid_t process = 0;   // one that has any
    std::string peer{};  // of one of them; empty if that cannot be told
  };
  virtual Holding holding() = 0;
  // For who leads if this process dies: until when it can come back, and drains.
  virtual void note_probation(Nanoseconds /*until*/) {}
  virtual void note_drain(Nanoseconds /*until*/) {}
  // What is under way, and the channels of it, which stay open if this process dies.
  // Takes the place of what was kept before.
  struct Kept {
    Message note{};
    int channel = -1;
  };
  // NOLINTNEXTLINE(performance-unnecessary-value-param): others use it up
  virtual void keep(std::vector<Kept> /*attempt*/) {}
  // What the one that led before has kept.
  virtual std::vector<Received> kept() { return {}; }
  // What is prepared, in the order of the ids, whoever has prepared it.
  struct Prepared {
    Item item;
    bool retired = false;  // or closed
  };
  virtual std::vector<Prepared> prepared() { return {}; }
  // Whether several processes have listeners that the others have not. Then those of a
  // successor may come for theirs one by one.
  virtual bool is_scattered() { return false; }
  // Changes when there may be listeners that were not in the inventory.
  virtual std::uint32_t listeners_made() { return 0; }
  // Those that are not prepared, while others are. `all`: everybody has answered.
  virtual std::vector<Item> late_listeners(bool& all) {
    all = true;
    return {};
  }
  // Prepares these besides.
  // NOLINTNEXTLINE(performance-unnecessary-value-param): others use it up
  virtual Status prepare_late(std::vector<Item> /*items*/) { return Done{}; }
  // Nobody new comes to these from now on.
  virtual void shut_out(std::span<const std::uint32_t> /*ids*/) {}
  // Closes what nobody claimed, without losing what it has queued.
  virtual void close_listeners(std::span<const std::uint32_t> ids) = 0;
  // Tells the generation's main process something.
  virtual void send_signal(int signal) = 0;
  // What the main process's program is called.
  virtual std::vector<std::string> program_names() { return {}; }
  // Makes the generation's main process end, by this signal.
  virtual void stop(int signal) = 0;
  // The same for who has become the main process since: of several that nobody
  // else tells to end, each is told.
  virtual void stop_next(int /*signal*/) {}
  // The restart has succeeded: who manages this program as a service is told who it is now.
  virtual void name_successor() {}
  // The generation is about to end and is not to be found any more.
  virtual void withdraw() = 0;

  // Who takes over, from the claim on, and again when it is ready: it may have
  // become a daemon in between. 0: nobody, the attempt has ended.
  virtual void meet(pid_t /*successor*/) {}
  // Watches whom it has met; null: there is nobody who does.
  virtual ProcessWatch* successor_watch() { return nullptr; }
  // Nobody asks any more.
  virtual void take_leave() {}
  // Whether this process cannot be a successor: it belongs to the generation, or
  // was started by it. `fresh`: it says that it is one all the same.
  virtual bool is_kin(pid_t /*process*/, bool /*fresh*/) { return false; }
  // Whether it was forked from this generation, and has executed nothing since.
  virtual bool is_forked(pid_t /*process*/) { return false; }
  // Whether the process is what is left of a generation we took over from.
  virtual bool is_outlived(pid_t /*process*/) { return false; }
  // Whether a listener of this generation, or one that it has handed over, is
  // among these; by their inodes.
  virtual bool holds(std::span<const std::uint64_t> /*inodes*/) { return false; }
  // It is about to join: what it listens on belongs to the next inventory.
  virtual void expect(pid_t /*process*/) {}
  // What the program hands on beside its listeners: its own descriptors, by name.
  struct Named {
    std::string name;
    int fd = -1;
  };
  virtual std::vector<Named> named() { return {}; }
  // What ties a process to the generation; nothing where it is one process only.
  virtual std::vector<int> ties() { return {}; }

  // For who only asks, and keeps nobody from anything: the listeners that this process
  // knows of, without a word to the others.
  virtual std::vector<Item> known_listeners() { return inventory(); }
  virtual std::vector<pid_t> processes() { return {}; }
  // The process that is told to end when the generation is.
  virtual pid_t main() { return 0; }
  // What its restarts came to.
  virtual Journal& journal() { return own_journal_; }
  // How it was started, and by whom, as core/start.hpp writes it; empty: that is not known.
  virtual std::string_view start() { return {}; }

 private:
  Journal own_journal_;
};

class Holder {
 public:
  struct Self {
    std::string identity;
    std::uint64_t generation = 0;
  };

  // `door` is the rendezvous socket, `wake` an eventfd that others write to.
  // `hidden`: the files of CONTINUITY_HIDE, if there are any.
  Holder(const Sys& sys, Log& log, const Options& options, Owner& owner, Self self, int door,
         int wake, HiddenFiles* hidden = nullptr);

  // The generation we took over from is still watching us: until it stops, or
  // `until`, others who want to take over from us wait.
  void watch_predecessor(Channel channel, Nanoseconds until);

  // The main process ends on purpose: those who watch it are not to come back. For
  // kernels that forget how a process has ended.
  void say_goodbye();

  // The generation does not own its listeners yet: who greets waits, and only
  // processes that belong to it are answered. Until `begin`.
  void wait_for_ownership() { owns_ = false; }
  void begin();
  // The rendezvous socket is another one from now on.
  void answer_at(int door) { door_ = door; }

  // What this generation has replaced of its predecessor's hidden files is nobody's
  // by then, whether or not this process knows of a predecessor.
  void let_go_at(Nanoseconds time) { files_deadline_ = time; }

  // Another process of this generation led until it died: this one goes on
  // where the page says that it was, with what the other has kept. `until`: the end of
  // the probation, or of the drain.
  void resume(HolderPhase phase, Nanoseconds until);

  // One round: waits for something to happen, and deals with it. False when
  // there is nothing left to wait for.
  void run_once(Nanoseconds until = never);

  [[nodiscard]] HolderPhase phase() const { return phase_; }
  // Nobody speaks with us, and nothing is to be done at any time.
  [[nodiscard]] bool is_at_rest() const;

 private:
  enum class Stage { greeting, looking, parked, attempt, keeping };
  struct Conversation {
    Channel channel;
    Nanoseconds found = 0;   // when it greeted
    std::uint32_t made = 0;  // Owner::listeners_made, as of what it was offered
    Credentials peer{};
    Stage stage = Stage::greeting;
    Nanoseconds deadline = never;
    std::uint64_t generation = 0;  // of who speaks; 0: did not say
    bool same_numbers = false;     // its pids are what we know its processes by
    std::vector<Owner::Item> offered{};
    bool kin = false;    // is offered nothing
    bool joins = false;  // was offered what others of its generation had not claimed
    bool takes_named = false;
    bool keeps = false;  // what it claims is copied, and nothing else comes of it
    bool claimed_named = false;
    std::size_t granted = 0;
    bool awaits_got = false;               // that it has the last GRANT
    std::vector<NamedDescriptor> named{};  // offered, by ids that follow the listeners'
    std::vector<OwnedFd> named_copies{};   // the same, from the claim to their grant
    std::vector<std::uint32_t> claimed{};  // and not retired yet; in their order
    std::vector<std::uint32_t> retired{};  // for its READY; in their order
    // Not claimed, but another listener of its lies beside it, and is why it is served
    // here no longer than need be.
    std::vector<std::uint32_t> overlapped{};
    bool unread = false;  // the message that is being dealt with is in the channel still
    bool over = false;
  };
  struct Predecessor {
    Channel channel;
    Nanoseconds until;
    bool watches;     // it may still take the listeners back
    OwnedFd process;  // a pidfd: its end is noted in the journal
  };

  void welcome();
  void listen_to(Conversation& conversation);
  void listen_to(Predecessor& predecessor);
  static void take_away(Conversation& conversation);
  void on_message(Conversation& conversation, Received& received);
  void on_hello(Conversation& conversation, const Message& hello);
  void on_claim(Conversation& conversation, const Message& claim);
  void on_join(Conversation& conversation, const Message& join);
  void on_status(Conversation& conversation, const Message& status);
  void turn_away_outlived(Conversation& conversation);
  void on_ready(Conversation& conversation, const Message& ready);
  void on_gone(Conversation& conversation, HolderEvent event);
  HolderEvent look_at_end_of_successor(bool cut_off);
  void on_end_of_main();
  void send_inventory(Conversation& conversation);
  void look_at_group();
  void keep_attempt();
  void take_up_attempt();
  void take_up(Received& kept);
  Status prepare(Conversation& conversation, std::span<const std::uint32_t> claimed);
  void begin_keeping(Conversation& conversation, std::span<const std::uint32_t> claimed);
  void send_grant(Conversation& conversation);
  void offer_named(Conversation& conversation, Message& inventory);
  void keep_named(Conversation& conversation);
  void reply(Conversation& conversation, const Message& message, std::span<const int> fds = {});
  void refuse(Conversation& conversation, std::string reason);
  void on_unreadable(Conversation& conversation, const Error& error);
  void hang_up(Conversation& conversation, const char* what);
  void apply(HolderEvent event, Conversation* who = nullptr);
  void act(HolderAction action, Conversation* who);
  void report_start(const Conversation& conversation, std::uint32_t from, Message& report) const;
  void report_all(Message& report);
  void report_listeners(Message& report);
  [[nodiscard]] Nanoseconds own_probation_ends() const;
  void begin_record(Nanoseconds found);
  [[nodiscard]] Restart* record();
  [[nodiscard]] Restart* own_beginning();
  void note_success(bool healthy);
  void note_end_of_predecessor();
  void note_step(RestartStep step, Nanoseconds time);
  void note_outcome(RestartOutcome outcome);
  void note_overlapped(Conversation& conversation, const Message& ready);
  void go_deaf(Conversation& successor);
  void give_way_to(const Conversation& successor);
  void send_retired(Conversation& successor);
  void leave();
  void abort_attempt();
  void end_attempt();
  void say_healthy(Conversation& successor);
  void succeed();
  int retire_signal();
  void look_at_timers();
  void look_at_drain();
  void look_at_leaving();
  bool ends_drain();
  [[nodiscard]] std::string what_is_left();
  // How long the successor is watched, and datagrams can be answered.
  [[nodiscard]] Nanoseconds probation() const;
  void end_of_own_probation();
  [[nodiscard]] short door_events() const;
  [[nodiscard]] HolderState state() const;
  [[nodiscard]] Conversation* attempt();
  [[nodiscard]] bool belongs(const Conversation& conversation) const;
  [[nodiscard]] bool is_current(const Conversation& conversation,
                                std::span<const std::uint32_t> ids);
  [[nodiscard]] std::vector<std::uint32_t> unclaimed() const;
  [[nodiscard]] Nanoseconds next_deadline() const;
  void let_go_of_files();
  void put_files_back();
  [[nodiscard]] std::string addresses_of(std::span<const std::uint32_t> ids) const;
  void note_unclaimed();
  void close_unclaimed();
  [[nodiscard]] std::vector<std::uint32_t> left_over() const;
  [[nodiscard]] bool has_late() const;
  [[nodiscard]] bool is_news() const;
  void look_for_late();
  bool take_up_late(std::vector<Owner::Item> late);

  const Sys* sys_;
  Log* log_;
  const Options* options_;
  Owner* owner_;
  Self self_;
  int door_;
  int wake_;
  HiddenFiles* hidden_;
  bool owns_ = true;
  HolderPhase phase_ = HolderPhase::active;
  std::list<Conversation> conversations_;
  std::vector<Predecessor> predecessors_;
  OwnedFd leaving_;                  // a pidfd of one that has let go, and finishes its connections
  bool has_replaced_files_ = false;  // and predecessors watch, which may want them back
  Nanoseconds files_deadline_ = never;
  // The attempt. Its successor may have several conversations with us: they are
  // told from a rival's by its generation.
  std::uint64_t generation_ = 0;
  pid_t successor_ = 0;
  bool said_goodbye_ = false;  // a process of its that has ended since it was ready
  ProcessEnd successor_end_;
  std::vector<Owner::Item> items_;     // what was prepared, by id
  std::vector<std::uint32_t> served_;  // what of it is still served here, ids in their order
  // Of that, what is reached by nobody any more but for who has begun: the successor
  // has a listener for all its peers. In their order.
  std::vector<std::uint32_t> replaced_;
  std::uint32_t made_ = 0;        // Owner::listeners_made, as of items_
  std::uint32_t asked_made_ = 0;  // the same, when everybody was asked last
  Nanoseconds next_late_look_ = 0;
  unsigned late_looks_ = 0;       // in a row at which not everybody has answered
  bool attempt_changed_ = false;  // since it was kept
  Nanoseconds attempt_began_ = 0;
  Nanoseconds retired_at_ = 0;  // the first time in this attempt; 0: not yet
  Nanoseconds phase_deadline_ = never;
  Nanoseconds unclaimed_deadline_ = never;
  Nanoseconds door_opens_ = never;
  Nanoseconds next_stranger_ = 0;  // then one is named again
  Nanoseconds next_look_ = never;
  Nanoseconds look_interval_ = 0;
  Nanoseconds next_report_ = never;
  Nanoseconds drain_deadline_ = never;
  bool finishes_idle_ = false;  // the drain is over for connections that do nothing
  std::string cut_;             // what is left when it is over for all
  unsigned last_count_ = 0;
};

// "127.0.0.1:80, [::1]:80", shortened after four.
std::string join_addresses(const std::vector<std::string>& addresses);

}  // namespace continuity
