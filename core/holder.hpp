// The predecessor's side of conversations: answers who asks what we hold,
// hands it over, goes deaf, watches the successor, drains, leaves.
//
// Runs in one thread, the agent. Decides nothing by itself: attempt.hpp does.
#pragma once

#include "core/attempt.hpp"
#include "core/channel.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
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
  // Closes what nobody claimed, without losing what it has queued.
  virtual void close_listeners(std::span<const std::uint32_t> ids) = 0;
  // Tells the generation's main process something.
  virtual void send_signal(int signal) = 0;
  // Makes the generation's main process end, by this signal.
  virtual void stop(int signal) = 0;
  // The generation is about to end and is not to be found any more.
  virtual void withdraw() = 0;
};

class Holder {
 public:
  struct Self {
    std::string identity;
    std::uint64_t generation = 0;
  };

  // `door` is the rendezvous socket, `wake` an eventfd that others write to.
  Holder(const Sys& sys, Log& log, const Options& options, Owner& owner, Self self, int door,
         int wake);

  // The generation we took over from is still watching us: until it stops, or
  // `until`, others who want to take over from us wait.
  void watch_predecessor(Channel channel, Nanoseconds until);

  // Another process of this generation led until it died: this one goes on
  // where the page says that it was. `until`: the end of the probation.
  void resume(HolderPhase phase, Nanoseconds until);

  // One round: waits for something to happen, and deals with it. False when
  // there is nothing left to wait for.
  void run_once();

  [[nodiscard]] HolderPhase phase() const { return phase_; }

 private:
  enum class Stage { greeting, looking, parked, attempt };
  struct Conversation {
    Channel channel;
    Credentials peer{};
    Stage stage = Stage::greeting;
    Nanoseconds deadline = never;
    std::string identity{};
    std::vector<Owner::Item> offered{};
    std::size_t granted = 0;
    std::vector<std::uint32_t> claimed{};
    bool over = false;
  };
  struct Predecessor {
    Channel channel;
    Nanoseconds until;
    bool watches;  // it may still take the listeners back
  };

  void welcome();
  void listen_to(Conversation& conversation);
  void listen_to(Predecessor& predecessor);
  void on_message(Conversation& conversation, Received& received);
  void on_hello(Conversation& conversation, const Message& hello);
  void on_claim(Conversation& conversation, const Message& claim);
  void on_ready(Conversation& conversation, const Message& ready);
  void on_gone(Conversation& conversation, HolderEvent event);
  void send_inventory(Conversation& conversation);
  void send_grant(Conversation& conversation);
  void reply(Conversation& conversation, const Message& message, std::span<const int> fds = {});
  void refuse(Conversation& conversation, std::string reason);
  void on_unreadable(Conversation& conversation, const Error& error);
  void hang_up(Conversation& conversation, const char* what);
  void apply(HolderEvent event);
  void act(HolderAction action);
  void go_deaf();
  void send_retired(Conversation& successor);
  void succeed();
  void look_at_timers();
  void look_at_drain();
  void end_of_own_probation();
  [[nodiscard]] short door_events() const;
  [[nodiscard]] HolderState state() const;
  [[nodiscard]] Conversation* attempt();
  [[nodiscard]] Nanoseconds next_deadline() const;
  [[nodiscard]] std::string claimed_addresses(const Conversation& conversation) const;
  void close_unclaimed();

  const Sys* sys_;
  Log* log_;
  const Options* options_;
  Owner* owner_;
  Self self_;
  int door_;
  int wake_;
  HolderPhase phase_ = HolderPhase::active;
  std::list<Conversation> conversations_;
  std::vector<Predecessor> predecessors_;
  pid_t successor_ = 0;
  Nanoseconds attempt_began_ = 0;
  Nanoseconds retired_at_ = 0;
  Nanoseconds phase_deadline_ = never;
  Nanoseconds unclaimed_deadline_ = never;
  std::vector<std::uint32_t> unclaimed_;
  Nanoseconds door_opens_ = never;
  Nanoseconds next_look_ = never;
  Nanoseconds look_interval_ = 0;
  Nanoseconds next_report_ = never;
  unsigned last_count_ = 0;
};

// "127.0.0.1:80, [::1]:80", shortened after four.
std::string join_addresses(const std::vector<std::string>& addresses);

}  // namespace continuity
