// The successor's side: finds who holds an address, claims it, and at its
// first wait for work becomes the owner.
//
// Used from the program's own threads, one at a time: the face serialises.
#pragma once

#include "core/attempt.hpp"
#include "core/channel.hpp"
#include "core/journal.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/rendezvous.hpp"

#include <list>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace continuity {

class Taker {
 public:
  struct Self {
    std::string identity;
    std::uint64_t generation = 0;
    bool takes_named = false;  // descriptors that are no listeners
    bool gives_back = false;   // what it closes of what it has claimed
  };

  enum class Found {
    nothing,      // nobody of ours holds it: bind natively
    claimed,      // `fd` is a copy of the listener
    refused,      // somebody holds it and does not hand it over now: EADDRINUSE
    outlived,     // this process handed it over, before it executed itself anew
    handed_over,  // whoever this process was forked from has: nobody is to come there
  };

  struct Claim {
    Found found = Found::nothing;
    OwnedFd fd;
    Listener listener;                // as the predecessor described it
    bool busy = false;                // refused because another attempt is under way
    bool ours = false;                // which is our own generation's
    bool gone = false;                // refused because there is nobody any more
    bool again = false;               // of what is claimed already
    Overlap overlap = Overlap::none;  // how it lies to what was wanted: another socket
  };

  Taker(const Sys& sys, Log& log, const Options& options, Self self)
      : sys_(&sys), log_(&log), options_(&options), self_(std::move(self)) {}

  // Asks all generations for `wanted`, and claims it from the one that has it.
  // May wait: for a probation to end, or with CONTINUITY_BUSY=wait for another
  // attempt. `may_share`: where all that fit are claimed already, one of these again.
  Claim claim(Rendezvous& rendezvous, const Listener& wanted, bool may_share = false);

  // A listener of a predecessor's which a socket of the program's is bound beside.
  struct Beside {
    Listener listener;
    Overlap overlap;
  };
  // Whether a socket that is bound there takes no connection from the predecessor, though it
  // listens.
  static bool may_listen_early(std::span<const Beside> beside);

  // Binds `fd`, a socket of the program's, at the address of `wanted` beside all that
  // overlaps with it, which is claimed: with SO_REUSEPORT on each of them. That is closed at
  // the take-over, or once nobody has claimed it in time. `nothing`: there is none, and
  // nothing is bound; `refused`: it cannot be had now.
  Found bind_beside(Rendezvous& rendezvous, const Listener& wanted, int fd,
                    std::vector<Beside>& beside);

  // A copy of what a predecessor of our name hands on under this name. Not open: nobody does.
  OwnedFd claim_named(Rendezvous& rendezvous, const std::string& name);

  // Whether somebody who could hand it over holds a UNIX listener at `file`.
  bool is_held(Rendezvous& rendezvous, const SocketFile& file);

  // Who is there of our name.
  struct Present {
    bool predecessor = false;  // somebody who has something to hand over
    bool settled = true;  // none of them is in the middle of a restart, for all that it tells us
  };
  Present look_around(Rendezvous& rendezvous);

  // The program closes what it had claimed: it may be claimed again. `fd` is a descriptor of
  // it, for who gives back; -1: there is none any more.
  void release(const Listener& listener, int fd = -1);
  // The same of what has a socket of the program's beside it.
  void release_beside(std::span<const Beside> beside);

  [[nodiscard]] bool has_claims() const;
  // What was granted and the program has not bound.
  [[nodiscard]] std::vector<Listener> unclaimed() const;
  // The same, of conversations that no other process of this generation has.
  [[nodiscard]] bool has_own_claims() const;

  // Whether its own generation is asked too: this process was forked from it, and is no
  // member yet.
  void ask_own_generation(bool asks) { asks_own_ = asks; }

  // This process forks before it is an owner: one of parent and child will ask
  // for both. Neither claims anything more in what they share.
  void note_forked();

  // The channels of all conversations, which are over for this process.
  std::vector<Channel> release_channels();
  // Descriptors of ours in here, appended to `fds`.
  void append_descriptors(std::vector<int>& fds) const;

  struct Outcome {
    bool owner = false;
    std::string reason;  // why not
    Nanoseconds probation_ends = 0;
    std::vector<Channel> predecessors;  // those that still watch us
    std::vector<pid_t> outlived;        // who led them
    Journal journal{};                  // what has been before
  };

  // Says READY for everything claimed and waits for the answers. `shared`: for
  // what other processes have too, or for what is this one's alone.
  enum class Share { all, own };
  Outcome become_owner(Rendezvous& rendezvous, Share share = Share::all,
                       Evidence evidence = Evidence::unknown);
  // Who leads those that it would ask.
  [[nodiscard]] std::vector<pid_t> predecessors(Share share) const;

 private:
  // A listener a predecessor has offered.
  struct Offer {
    Listener listener;
    OwnedFd fd{};         // once granted, until it is handed out for good
    bool asked = false;   // CLAIM has been said
    unsigned claims = 0;  // of sockets of the program's
    // Other sockets of the program's, beside it: those that reach all its peers, and others.
    unsigned replacements = 0;
    unsigned parts = 0;
    [[nodiscard]] bool is_wanted() const { return claims + replacements + parts > 0; }
  };
  enum class Fit { same, overlapping };
  struct Conversation {
    Channel channel;
    std::string door{};                                           // its name at the rendezvous
    Message inventory{};                                          // without its listeners
    std::vector<Offer> offers{};                                  // in the order of their ids
    std::unordered_multimap<std::size_t, std::size_t> by_hash{};  // of those, where they are
    bool answered = false;
    bool hung_up = false;
    std::vector<OwnedFd> named{};  // as in the inventory
    bool claimed_named = false;
    bool granted = false;
    TakerPhase phase = TakerPhase::starting;
    bool shared = false;  // with processes forked from this one, or its parent
    // Of another user, whom we only believe what the kernel confirms: a server that root
    // has started is that user by now, but so is whoever has broken into another.
    bool lesser = false;
    [[nodiscard]] bool is_wanted() const;
  };

  std::list<Conversation> look(Rendezvous& rendezvous);
  std::list<Conversation> look_once(Rendezvous& rendezvous);
  [[nodiscard]] bool is_of_our_name(const Conversation& conversation) const;
  static bool note_offers(Conversation& conversation, Message& message);
  void note_handed_over(Conversation& conversation);
  void note_no_answer(Conversation& conversation, int code);
  bool receive_inventory(Conversation& conversation, Nanoseconds deadline);
  bool is_worth_another_look(const Conversation& conversation, const Claim& claim);
  Claim claim_from(Conversation& conversation, const Listener& wanted, bool may_share);
  Claim claim_offer(Conversation& conversation, Offer& offer, bool keep);
  std::vector<Claim> claim_overlapping(Rendezvous& rendezvous, const Listener& wanted);
  std::vector<Claim> claim_overlapping_granted(const Listener& wanted);
  Claim share(Conversation& conversation, const Listener& wanted);
  Claim claim_among(std::list<Conversation>& found, const Listener& wanted, Fit fit, bool keep,
                    bool& look_again);
  enum class Waited { active, busy, ended };
  Waited wait_until_active(Conversation& conversation, const std::string& wanted);
  static std::size_t find_named(const Conversation& conversation, const std::string& name);
  bool take_granted(Conversation& conversation, std::uint32_t id, OwnedFd fd);
  OwnedFd copy_named(Conversation& conversation, std::size_t index);
  static Offer* find_free(Conversation& conversation, const Listener& wanted);
  static Offer* find_offer(Conversation& conversation, const Listener& wanted, Fit fit);
  static bool has(const Conversation& conversation, const Listener& wanted);
  static bool is_there(const Conversation& conversation, const Offer& offer);
  bool receive_grant(Conversation& conversation, Claim& claim);
  bool take_listener(const Conversation& conversation, Offer& offer, OwnedFd fd);
  bool is_invented(const Conversation& conversation, const Listener& wanted);
  bool is_dead(Rendezvous& rendezvous, const Conversation& conversation);
  void log_stranger(const Conversation& conversation, const Listener& wanted);
  Status say_ready(Channel& channel, const Message& ready);
  static bool asks(const Conversation& conversation, Share share);
  bool ask(Rendezvous& rendezvous, Conversation& conversation, Evidence evidence, Outcome& outcome);

  const Sys* sys_;
  Log* log_;
  const Options* options_;
  Self self_;
  std::list<Conversation> conversations_;
  unsigned times_gone_ = 0;
  bool asks_own_ = false;
  std::vector<Listener> handed_over_;  // by who this process was forked from
  bool outlived_ = false;
};

}  // namespace continuity
