#include "core/taker.hpp"

#include "core/holder.hpp"

#include <algorithm>
#include <fcntl.h>
#include <set>
#include <sys/stat.h>
#include <utility>

namespace continuity {
namespace {

// Strangers cost this together if they stay silent; one of our name is worth
// more patience, for the machine may just be busy.
constexpr Nanoseconds look_time = 100 * millisecond;
constexpr Nanoseconds own_look_time = 2 * second;
// Who has closed the conversation may have its listener open for a moment.
constexpr Nanoseconds exit_time = 200 * millisecond;
constexpr unsigned most_times_gone = 8;
constexpr Nanoseconds grant_time = 5 * second;
// A predecessor under load needs a fraction of a millisecond to go deaf, and
// at most 200 ms. Who needs longer than this does not run at all.
constexpr Nanoseconds answer_time = 5 * second;
constexpr Nanoseconds send_time = second;
constexpr Nanoseconds longest_probation = 86'400 * second;

bool is_gone(int code) {
  return code == ECONNRESET || code == EPIPE;
}

}  // namespace

// ---- Looking -------------------------------------------------------------------

// False: it is not to be believed.
bool Taker::note_offers(Conversation& conversation, Message& message) {
  auto& offers = conversation.offers;
  // One that has nothing to say and more of it would go on for ever.
  if ((message.more && message.listeners.empty()) ||
      offers.size() + message.listeners.size() > max_listeners) {
    return false;
  }
  for (Listener& listener : message.listeners) {
    if (!offers.empty() && offers.back().listener.id >= listener.id) {
      return false;
    }
    conversation.by_hash.emplace(match_hash(listener), offers.size());
    offers.push_back({.listener = std::move(listener), .fd = {}});
  }
  return true;
}

void Taker::note_no_answer(Conversation& conversation, int code) {
  const auto peer = conversation.channel.peer();
  const pid_t pid = peer ? peer->pid : 0;
  if (code == ECONNRESET) {
    // It has ended, or has nothing for us any more.
    conversation.hung_up = true;
    log_->info("pid {} at the rendezvous has hung up; ignored", pid);
    if (is_of_our_name(conversation) && !conversation.lesser) {
      await_end(*sys_, pid, after(*sys_, exit_time));
    }
    return;
  }
  log_->warn("pid {} at the rendezvous {}; ignored", pid,
             code == ETIMEDOUT ? "does not answer (stopped?)"
                               : compose("answered something else ({})", error_text(code)));
}

bool Taker::receive_inventory(Conversation& conversation, Nanoseconds deadline) {
  conversation.offers.clear();
  conversation.by_hash.clear();
  for (;;) {
    auto received = conversation.channel.receive(deadline);
    if (!received) {
      note_no_answer(conversation, received.error().code);
      return false;
    }
    Message& message = received->message;
    // By this we end: not at the word of another user.
    if (message.type == MessageType::abort && message.code == ESTALE && !conversation.lesser) {
      outlived_ = true;
      log_->error("{}; this process has nothing left to do here", message.text);
      return false;
    }
    if (message.type == MessageType::abort && message.code == EPROTONOSUPPORT) {
      log_->warn("a generation speaks protocol {} to {}, we speak {}; ignored",
                 message.protocol_min, message.protocol_max, protocol_version);
      return false;
    }
    if (message.type != MessageType::inventory || message.protocol_max != protocol_version ||
        !note_offers(conversation, message)) {
      log_->warn("pid {} at the rendezvous answered something else; ignored", message.pid);
      return false;
    }
    message.listeners.clear();
    conversation.inventory = std::move(message);
    if (!conversation.inventory.more) {
      log_->debug("pid {} (\"{}\") offers {} listeners", conversation.inventory.pid,
                  conversation.inventory.identity, conversation.offers.size());
      return true;
    }
  }
}

// Everybody is greeted before anybody is listened to, so that silent ones cost
// one look_time together.
std::list<Taker::Conversation> Taker::look_once(Rendezvous& rendezvous) {
  std::list<Conversation> found;
  Message hello{.type = MessageType::hello};
  hello.protocol_min = hello.protocol_max = protocol_version;
  hello.generation = self_.generation;
  hello.identity = self_.identity;
  hello.pid = sys_->getpid();
  hello.fresh = options_->fresh;
  hello.features = self_.takes_named ? takes_named : 0;
  const Nanoseconds deadline = after(*sys_, look_time);
  for (Rendezvous::Peer& door : rendezvous.connect_all(asks_own_ ? 0 : self_.generation, *log_)) {
    Channel& channel = door.channel;
    const auto peer = channel.peer();
    if (!peer || (peer->uid != door.owner && peer->uid != 0)) {
      log_->warn("{} belongs to user {}, its directory to user {}; ignored", door.name,
                 peer ? peer->uid : 0, door.owner);
    } else {
      Conversation& conversation = found.emplace_back();
      conversation.channel = std::move(channel);
      conversation.door = std::move(door.name);
      conversation.lesser = peer->uid != 0 && peer->uid != sys_->geteuid();
      if (!conversation.channel.send(hello, deadline)) {
        log_->info("{} has hung up; ignored", conversation.door);
        conversation.hung_up = true;
      }
    }
  }
  const Nanoseconds patience = deadline - look_time + own_look_time;
  for (Conversation& conversation : found) {
    conversation.answered =
        !conversation.hung_up &&
        receive_inventory(conversation, is_of_our_name(conversation) ? patience : deadline);
  }
  // Whoever may lie, or has nothing to give just now, keeps nobody from the others.
  found.sort([](const Conversation& one, const Conversation& other) {
    const auto rank = [](const Conversation& conversation) {
      return std::pair(conversation.lesser, conversation.inventory.state != HolderState::active);
    };
    return rank(one) < rank(other);
  });
  return found;
}

bool Taker::is_of_our_name(const Conversation& conversation) const {
  return conversation.door.find("/" + self_.identity + ".") != std::string::npos;
}

// What was forked from a generation has no part in it before its first wait, and would claim
// back from the successor what its parent has handed over.
void Taker::note_handed_over(Conversation& conversation) {
  if (conversation.answered && !conversation.lesser &&
      (conversation.inventory.features & is_handed_over) != 0) {
    for (Offer& offer : conversation.offers) {
      handed_over_.push_back(std::move(offer.listener));
    }
    conversation.offers.clear();
    conversation.by_hash.clear();
  }
}

// Who has handed over offers nothing any more, and who has taken over was announced before
// it asked: before that answer, but perhaps after the rendezvous was listed. Or it has hung
// up since, and the other one takes everything back. Then neither of them is seen to have the
// address, and a bind that the kernel lets through (SO_REUSEPORT) would share it with its owner.
std::list<Taker::Conversation> Taker::look(Rendezvous& rendezvous) {
  std::set<std::string> overtaken;
  for (;;) {
    auto found = look_once(rendezvous);
    handed_over_.clear();
    for (Conversation& conversation : found) {
      note_handed_over(conversation);
    }
    bool news = false;
    for (const Conversation& conversation : found) {
      const bool has_handed_over = conversation.answered && conversation.offers.empty() &&
                                   conversation.inventory.state == HolderState::busy;
      news |= is_of_our_name(conversation) && (has_handed_over || conversation.hung_up) &&
              overtaken.insert(conversation.door).second;
    }
    if (!news) {
      found.remove_if([](const Conversation& conversation) { return !conversation.answered; });
      return found;
    }
  }
}

bool Taker::is_held(Rendezvous& rendezvous, const SocketFile& file) {
  const auto holds = [&](const Conversation& conversation) {
    return conversation.inventory.identity == self_.identity &&
           std::any_of(conversation.offers.begin(), conversation.offers.end(),
                       [&](const Offer& offer) {
                         return offer.listener.file.inode == file.inode &&
                                offer.listener.file.device == file.device;
                       });
  };
  const auto found = look(rendezvous);
  return std::any_of(conversations_.begin(), conversations_.end(), holds) ||
         std::any_of(found.begin(), found.end(), holds);
}

Taker::Present Taker::look_around(Rendezvous& rendezvous) {
  Present present;
  for (const Conversation& conversation : look(rendezvous)) {
    if (conversation.inventory.identity == self_.identity) {
      present.predecessor = present.predecessor || !conversation.offers.empty();
      present.settled = present.settled && !conversation.offers.empty() &&
                        conversation.inventory.state == HolderState::active;
    }
  }
  return present;
}

// ---- Claiming --------------------------------------------------------------------

void Taker::log_stranger(const Conversation& conversation, const Listener& wanted) {
  log_->warn(
      "{} is held by pid {}, as \"{}\", and we are \"{}\"; set CONTINUITY_NAME for both if "
      "one is to follow the other",
      to_string(wanted.address), conversation.inventory.pid, conversation.inventory.identity,
      self_.identity);
}

// Not what had been closed by the time of the grant.
bool Taker::is_there(const Conversation& conversation, const Offer& offer) {
  return !conversation.granted || offer.fd.is_open() || offer.claims > 0;
}

// False: what came is not what was promised, as the kernel tells it. Of a lesser user root
// takes what root has made: that user has it from there, and cannot make such a socket.
// What else it offers it may keep a copy of, and accept from as long as it likes.
bool Taker::take_listener(const Conversation& conversation, Offer& offer, OwnedFd fd) {
  const auto truth = describe_socket(*sys_, fd.get());
  struct stat status {};
  if (!truth || !is_as_announced(*truth, offer.listener) || !receives_work(*sys_, fd.get()) ||
      sys_->fstat(fd.get(), &status) != 0) {
    return false;
  }
  if (conversation.lesser && status.st_uid != sys_->geteuid()) {
    log_->warn("pid {} offers {}, which user {} has made, and we are user {}; not taken",
               conversation.inventory.pid, to_string(offer.listener.address), status.st_uid,
               sys_->geteuid());
    return true;
  }
  offer.fd = std::move(fd);
  return true;
}

bool Taker::take_granted(Conversation& conversation, std::uint32_t id, OwnedFd fd) {
  const auto& named = conversation.inventory.named;
  const auto by_name = std::find_if(named.begin(), named.end(),
                                    [&](const NamedDescriptor& one) { return one.id == id; });
  if (by_name != named.end()) {
    OwnedFd& place = conversation.named[static_cast<std::size_t>(by_name - named.begin())];
    if (place.is_open()) {
      return false;
    }
    // Nobody can tell what a lesser user has put there.
    place = conversation.lesser ? OwnedFd() : std::move(fd);
    return true;
  }
  const auto offer = std::lower_bound(
      conversation.offers.begin(), conversation.offers.end(), id,
      [](const Offer& one, std::uint32_t wanted) { return one.listener.id < wanted; });
  return offer != conversation.offers.end() && offer->listener.id == id && !offer->fd.is_open() &&
         take_listener(conversation, *offer, std::move(fd));
}

// Whether nobody at all has the address that a lesser user says it holds: a server could
// not be started for as long as that user likes.
bool Taker::is_invented(const Conversation& conversation, const Listener& wanted) {
  if (!conversation.lesser || !is_free(*sys_, wanted)) {
    return false;
  }
  log_->warn("pid {} says that it holds {}, and nobody does; ignored", conversation.inventory.pid,
             to_string(wanted.address));
  return true;
}

bool Taker::receive_grant(Conversation& conversation, Claim& claim) {
  std::size_t granted = 0;
  const std::size_t named = conversation.inventory.named.size();
  std::size_t expected = conversation.offers.size() + named;
  conversation.named.resize(named);
  const auto broken = [&](const char* what) {
    log_->warn("pid {} did not hand over: {}", conversation.inventory.pid, what);
    return false;
  };
  // What it has granted is ours all the same.
  const auto note_end = [&] {
    claim.gone = granted == 0;
    conversation.granted = granted > 0;
    return conversation.granted;
  };
  while (granted < expected) {
    auto received = conversation.channel.receive(after(*sys_, grant_time));
    if (!received) {
      if (is_gone(received.error().code)) {
        return note_end();
      }
      return broken(error_text(received.error().code));
    }
    const Message& message = received->message;
    if (message.type == MessageType::refused) {
      if (message.generation != self_.generation) {
        log_->warn("refused: {}", message.text);
      }
      claim.busy = message.rival_pid != 0;
      claim.ours = claim.busy && message.generation == self_.generation;
      return false;
    }
    if (message.type != MessageType::grant || message.ids.size() != received->fds.size() ||
        message.ids.empty()) {
      return broken("it sent something else");
    }
    // Less than was offered where the program has closed some since.
    if (message.total > 0) {
      expected = std::min<std::size_t>(expected, message.total);
    }
    for (std::size_t i = 0; i < message.ids.size(); ++i) {
      if (!take_granted(conversation, message.ids[i], std::move(received->fds[i]))) {
        return broken("a descriptor is not what it was announced to be");
      }
      ++granted;
    }
    if (const auto sent =
            conversation.channel.send(Message{.type = MessageType::got}, after(*sys_, send_time));
        !sent) {
      return is_gone(sent.error().code) ? note_end() : broken(error_text(sent.error().code));
    }
  }
  conversation.granted = true;
  return true;
}

// Exact family first: an IPv4-mapped address may be held beside the IPv4 one. Then the
// one that was offered first.
Taker::Offer* Taker::find_free(Conversation& conversation, const Listener& wanted) {
  Offer* best = nullptr;
  const auto is_better = [&](const Offer& one, const Offer& other) {
    const bool exact = one.listener.address.family() == wanted.address.family();
    return exact == (other.listener.address.family() == wanted.address.family())
               ? one.listener.id < other.listener.id
               : exact;
  };
  const auto [begin, end] = conversation.by_hash.equal_range(match_hash(wanted));
  for (auto at = begin; at != end; ++at) {
    Offer& offer = conversation.offers[at->second];
    if (offer.claims == 0 && is_there(conversation, offer) && matches(offer.listener, wanted) &&
        (best == nullptr || is_better(offer, *best))) {
      best = &offer;
    }
  }
  return best;
}

Taker::Claim Taker::claim_from(Conversation& conversation, const Listener& wanted, bool may_share) {
  Offer* offer = find_free(conversation, wanted);
  if (offer == nullptr) {
    return {};
  }
  Claim result = claim_offer(conversation, *offer, may_share);
  if (result.found == Found::claimed) {
    offer->claims = 1;
  }
  return result;
}

// `keep`: what was granted may be wanted once more, by one more socket.
Taker::Claim Taker::claim_offer(Conversation& conversation, Offer& offer, bool keep) {
  Claim result{.found = Found::refused, .fd = {}, .listener = offer.listener};
  if (!offer.asked) {
    Message claim{.type = MessageType::claim};
    claim.ids.push_back(offer.listener.id);
    const auto sent = conversation.channel.send(claim, after(*sys_, send_time));
    offer.asked = sent.has_value();
    result.gone = !sent && is_gone(sent.error().code);
  }
  if (!conversation.granted && (!offer.asked || !receive_grant(conversation, result))) {
    return result;
  }
  // If it has died since, we hold what it granted, and become_owner finds out.
  // Bind, close, bind again must work. A copy of each of thousands would be one too many.
  result.fd = keep || !self_.gives_back
                  ? OwnedFd(*sys_, sys_->fcntl(offer.fd.get(), F_DUPFD_CLOEXEC, 0))
                  : std::move(offer.fd);
  if (result.fd.is_open()) {
    result.found = Found::claimed;
  }
  return result;
}

Taker::Waited Taker::wait_until_active(Conversation& conversation, const std::string& address) {
  while (conversation.inventory.state != HolderState::active) {
    const Message& inventory = conversation.inventory;
    if (inventory.state == HolderState::busy && options_->busy == WhenBusy::fail) {
      log_->error(
          "cannot take over {}: pid {} is handing over to pid {} since {} s; try again "
          "when that has ended, or set CONTINUITY_BUSY=wait",
          address, inventory.pid, inventory.rival_pid, in_seconds(inventory.duration));
      return Waited::busy;
    }
    if (inventory.state == HolderState::busy) {
      log_->info("waiting: pid {} is handing {} over to pid {}", inventory.pid, address,
                 inventory.rival_pid);
    } else {
      log_->info("waiting: pid {} has taken over {} just now and is on probation for {} s more",
                 inventory.pid, address, in_seconds(inventory.duration));
    }
    if (!receive_inventory(conversation, never)) {
      return Waited::ended;
    }
  }
  return Waited::active;
}

bool Taker::has(const Conversation& conversation, const Listener& wanted) {
  const auto [begin, end] = conversation.by_hash.equal_range(match_hash(wanted));
  return std::any_of(begin, end, [&](const auto& one) {
    const Offer& offer = conversation.offers[one.second];
    return is_there(conversation, offer) && matches(offer.listener, wanted);
  });
}

// Somebody else was faster between its answer and our claim; or there is nobody any more who
// hands over, or waits for our claim: then who is there now?
bool Taker::is_worth_another_look(const Conversation& conversation, const Claim& claim) {
  if (claim.gone) {
    log_->info("pid {} has gone before it handed over", conversation.inventory.pid);
    await_end(*sys_, conversation.inventory.pid, after(*sys_, exit_time));
    return ++times_gone_ < most_times_gone;
  }
  return claim.ours || (claim.busy && options_->busy == WhenBusy::wait);
}

Taker::Claim Taker::claim_among(std::list<Conversation>& found, const Listener& wanted, Fit fit,
                                bool keep, bool& look_again) {
  Claim refused{};
  const Conversation* stranger = nullptr;
  for (auto conversation = found.begin(); conversation != found.end(); ++conversation) {
    if (find_offer(*conversation, wanted, fit) == nullptr) {
      continue;
    }
    if (conversation->inventory.identity != self_.identity) {
      stranger = &*conversation;
      continue;
    }
    if (is_invented(*conversation, wanted)) {
      continue;
    }
    const Waited waited = wait_until_active(*conversation, to_string(wanted.address));
    if (waited == Waited::busy) {
      refused.found = Found::refused;
      if (conversation->lesser) {
        continue;
      }
      return refused;
    }
    Offer* offer = waited == Waited::ended ? nullptr : find_offer(*conversation, wanted, fit);
    if (offer == nullptr) {
      look_again = true;  // somebody else holds it by now, or nobody
      continue;
    }
    Claim claim = claim_offer(*conversation, *offer, keep);
    if (claim.found == Found::claimed) {
      offer->claims = fit == Fit::same ? 1 : 0;
      conversations_.splice(conversations_.end(), found, conversation);
    }
    if (is_worth_another_look(*conversation, claim)) {
      look_again = true;
      continue;
    }
    if (claim.found == Found::refused && conversation->lesser) {
      refused = std::move(claim);  // another may really hold it
      continue;
    }
    return claim;
  }
  if (stranger != nullptr && refused.found == Found::nothing) {
    log_stranger(*stranger, wanted);
  }
  return refused;
}

// One more member of a group than the predecessor has: it shares one of these. A
// socket of its own would take connections from the predecessor as soon as it listens.
Taker::Claim Taker::share(Conversation& conversation, const Listener& wanted) {
  Offer* least = nullptr;
  for (Offer& offer : conversation.offers) {
    if (offer.claims > 0 && offer.fd.is_open() && matches(offer.listener, wanted) &&
        (least == nullptr || offer.claims < least->claims)) {
      least = &offer;
    }
  }
  if (least == nullptr) {
    return {.found = Found::refused, .fd = {}, .listener = {}};
  }
  OwnedFd copy(*sys_, sys_->fcntl(least->fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.is_open()) {
    return {.found = Found::refused, .fd = {}, .listener = {}};
  }
  ++least->claims;
  return {
      .found = Found::claimed, .fd = std::move(copy), .listener = least->listener, .again = true};
}

Taker::Claim Taker::claim(Rendezvous& rendezvous, const Listener& wanted, bool may_share) {
  for (Conversation& conversation : conversations_) {
    if (conversation.shared) {
      continue;
    }
    Claim claim = claim_from(conversation, wanted, may_share);
    if (claim.found != Found::nothing) {
      return claim;
    }
    // All of them claimed: what is under way there is our own attempt.
    if (has(conversation, wanted)) {
      return may_share ? share(conversation, wanted)
                       : Claim{.found = Found::refused, .fd = {}, .listener = {}};
    }
  }
  for (;;) {
    auto found = look(rendezvous);
    if (outlived_) {
      return {.found = Found::outlived, .fd = {}, .listener = {}};
    }
    if (std::any_of(handed_over_.begin(), handed_over_.end(),
                    [&](const Listener& one) { return matches(one, wanted); })) {
      return {.found = Found::handed_over, .fd = {}, .listener = {}};
    }
    bool look_again = false;
    Claim claim = claim_among(found, wanted, Fit::same, may_share, look_again);
    if (claim.found != Found::nothing || !look_again) {
      return claim;
    }
  }
}

std::size_t Taker::find_named(const Conversation& conversation, const std::string& name) {
  const auto& named = conversation.inventory.named;
  const auto found = std::find_if(named.begin(), named.end(),
                                  [&](const NamedDescriptor& one) { return one.name == name; });
  return static_cast<std::size_t>(found - named.begin());
}

OwnedFd Taker::copy_named(Conversation& conversation, std::size_t index) {
  conversation.claimed_named = true;
  const int fd = conversation.named.at(index).get();
  return {*sys_, fd < 0 ? -1 : sys_->fcntl(fd, F_DUPFD_CLOEXEC, 0)};
}

OwnedFd Taker::claim_named(Rendezvous& rendezvous, const std::string& name) {
  for (Conversation& conversation : conversations_) {
    if (const auto index = find_named(conversation, name); index < conversation.named.size()) {
      return copy_named(conversation, index);
    }
  }
  if (!conversations_.empty()) {
    return {};  // who hands over to us has none
  }
  auto found = look(rendezvous);
  for (auto one = found.begin(); one != found.end(); ++one) {
    const auto is_offered = [&] { return find_named(*one, name) < one->inventory.named.size(); };
    if (one->inventory.identity != self_.identity ||
        (one->inventory.state == HolderState::active && !is_offered()) ||
        wait_until_active(*one, compose("\"{}\"", name)) != Waited::active || !is_offered()) {
      continue;
    }
    const auto index = find_named(*one, name);
    Message claim{.type = MessageType::claim};
    claim.ids.push_back(one->inventory.named[index].id);
    Claim answer;
    if (one->channel.send(claim, after(*sys_, send_time)) && receive_grant(*one, answer)) {
      conversations_.splice(conversations_.end(), found, one);
      return copy_named(conversations_.back(), index);
    }
  }
  return {};
}

// One that no socket of the program's stands for.
Taker::Offer* Taker::find_offer(Conversation& conversation, const Listener& wanted, Fit fit) {
  if (fit == Fit::same) {
    return find_free(conversation, wanted);
  }
  const auto offer =
      std::find_if(conversation.offers.begin(), conversation.offers.end(), [&](const Offer& one) {
        return one.claims == 0 && is_there(conversation, one) &&
               overlap(one.listener, wanted) != Overlap::none;
      });
  return offer == conversation.offers.end() ? nullptr : &*offer;
}

// Of those that have been granted, all that overlap with it.
std::vector<Taker::Claim> Taker::claim_overlapping_granted(const Listener& wanted) {
  std::vector<Claim> claims;
  for (Conversation& conversation : conversations_) {
    for (Offer& offer : conversation.offers) {
      const Overlap how = overlap(offer.listener, wanted);
      if (conversation.shared || offer.claims > 0 || !offer.fd.is_open() || how == Overlap::none) {
        continue;
      }
      Claim claim = claim_offer(conversation, offer, true);
      if (claim.found == Found::claimed) {
        ++(how == Overlap::held_first ? offer.replacements : offer.parts);
        claim.overlap = how;
      }
      claims.push_back(std::move(claim));
    }
  }
  return claims;
}

// Empty: nothing overlaps; one that is refused: it cannot be had now.
std::vector<Taker::Claim> Taker::claim_overlapping(Rendezvous& rendezvous, const Listener& wanted) {
  for (;;) {
    auto claims = claim_overlapping_granted(wanted);
    if (!claims.empty()) {
      return claims;
    }
    auto found = look(rendezvous);
    bool look_again = false;
    Claim claim = claim_among(found, wanted, Fit::overlapping, true, look_again);
    if (claim.found == Found::claimed) {
      continue;
    }
    if (claim.found != Found::nothing) {
      claims.push_back(std::move(claim));
      return claims;
    }
    if (!look_again) {
      return claims;
    }
  }
}

bool Taker::may_listen_early(std::span<const Beside> beside) {
  return !beside.empty() && std::all_of(beside.begin(), beside.end(), [](const Beside& one) {
    return one.overlap == Overlap::held_first;
  });
}

namespace {

bool set_reuse_port(const Sys& sys, int fd, int value) {
  return sys.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, sizeof value) == 0;
}

}  // namespace

Taker::Found Taker::bind_beside(Rendezvous& rendezvous, const Listener& wanted, int fd,
                                std::vector<Beside>& beside) {
  const auto claims = claim_overlapping(rendezvous, wanted);
  if (claims.empty()) {
    return Found::nothing;
  }
  int grouped = 0;
  socklen_t size = sizeof grouped;
  sys_->getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &grouped, &size);
  const Address& address = wanted.address;
  bool possible = true;
  for (const Claim& claim : claims) {
    possible =
        possible && claim.found == Found::claimed && set_reuse_port(*sys_, claim.fd.get(), 1);
    if (claim.found == Found::claimed) {
      beside.push_back({.listener = claim.listener, .overlap = claim.overlap});
    }
  }
  possible = possible && set_reuse_port(*sys_, fd, 1) &&
             sys_->bind(fd, address.get(), address.length) == 0;
  if (!possible) {
    const int code = errno;
    set_reuse_port(*sys_, fd, grouped);
    release_beside(beside);
    if (beside.size() == claims.size()) {  // and nobody has said why not
      log_->warn("{} cannot be bound beside what is held there: {}", to_string(address),
                 error_text(code));
    }
    beside.clear();
    errno = code;
    return Found::refused;
  }
  log_->debug("{} is bound beside {}", to_string(address),
              to_string(beside.front().listener.address));
  return Found::claimed;
}

namespace {

template <typename Conversations, typename Forget>
void for_offer_of(Conversations& conversations, const Listener& listener, Forget forget) {
  for (auto& conversation : conversations) {
    for (auto& offer : conversation.offers) {
      if (offer.listener.id == listener.id &&
          same_endpoint(offer.listener.address, listener.address) && forget(offer)) {
        return;
      }
    }
  }
}

// False: nothing to be taken away from.
bool decrease(unsigned& count) {
  return count > 0 && count-- > 0;
}

}  // namespace

void Taker::release(const Listener& listener, int fd) {
  for_offer_of(conversations_, listener, [&](Offer& offer) {
    if (!decrease(offer.claims)) {
      return false;
    }
    if (!offer.fd.is_open() && fd >= 0) {
      offer.fd = OwnedFd(*sys_, sys_->fcntl(fd, F_DUPFD_CLOEXEC, 0));
    }
    return true;
  });
}

void Taker::release_beside(std::span<const Beside> beside) {
  for (const Beside& one : beside) {
    for_offer_of(conversations_, one.listener, [&](Offer& offer) {
      return decrease(one.overlap == Overlap::held_first ? offer.replacements : offer.parts);
    });
  }
}

bool Taker::Conversation::is_wanted() const {
  return claimed_named || std::any_of(offers.begin(), offers.end(),
                                      [](const Offer& offer) { return offer.is_wanted(); });
}

bool Taker::has_claims() const {
  return std::any_of(conversations_.begin(), conversations_.end(),
                     [](const Conversation& one) { return one.is_wanted(); });
}

std::vector<Listener> Taker::unclaimed() const {
  std::vector<Listener> listeners;
  for (const Conversation& conversation : conversations_) {
    for (const Offer& offer : conversation.offers) {
      if (conversation.granted && offer.fd.is_open() && !offer.is_wanted()) {
        listeners.push_back(offer.listener);
      }
    }
  }
  return listeners;
}

bool Taker::has_own_claims() const {
  return std::any_of(conversations_.begin(), conversations_.end(),
                     [](const Conversation& one) { return !one.shared && one.is_wanted(); });
}

// ---- Becoming the owner ------------------------------------------------------------

bool Taker::is_dead(Rendezvous& rendezvous, const Conversation& conversation) {
  switch (rendezvous.knock(conversation.door)) {
    case Rendezvous::Door::refuses:
      return true;
    case Rendezvous::Door::open:
      return false;
    case Rendezvous::Door::missing:
      break;
  }
  const auto peer = conversation.channel.peer();
  if (!peer || peer->pid <= 0) {
    return false;
  }
  // Its files are closed before it counts as ended: that takes a moment.
  const OwnedFd process(*sys_, sys_->pidfd_open(peer->pid, 0));
  pollfd entry{.fd = process.get(), .events = POLLIN, .revents = 0};
  const timespec moment = to_timespec(second);
  return process.is_open() ? sys_->ppoll(&entry, 1, &moment) > 0 : errno == ESRCH;
}

// Nobody answers what could not be sent: want of memory passes.
Status Taker::say_ready(Channel& channel, const Message& ready) {
  const Nanoseconds deadline = after(*sys_, send_time);
  for (;;) {
    auto sent = channel.send(ready, after(*sys_, answer_time));
    if (sent || sent.error().code == ECONNRESET || sent.error().code == EPIPE ||
        now(*sys_) >= deadline) {
      return sent;
    }
    pause_for(*sys_, millisecond);
  }
}

namespace {

// Of several predecessors the one that has been restarted most often.
void note_journal(const Message& retired, Journal& journal) {
  if (retired.restarts < journal.restarts) {
    return;
  }
  journal = {.restarts = retired.restarts};
  for (const Restart& restart : retired.journal) {
    journal.add(restart);
  }
}

}  // namespace

// One predecessor's answer to READY. False: we must not become owners.
bool Taker::ask(Rendezvous& rendezvous, Conversation& conversation, Evidence evidence,
                Outcome& outcome) {
  Message ready{.type = MessageType::ready};
  ready.evidence = evidence;
  ready.pid = sys_->getpid();  // a daemon has another one than who claimed
  std::vector<std::string> addresses;
  for (const Offer& offer : conversation.offers) {
    if (!offer.is_wanted()) {
      continue;
    }
    ready.ids.push_back(offer.listener.id);
    addresses.push_back(to_string(offer.listener.address));
    if (offer.claims == 0) {
      (offer.replacements > 0 ? ready.replaced : ready.narrowed).push_back(offer.listener.id);
    }
  }
  const std::string what = addresses.empty() ? "what it had named" : join_addresses(addresses);
  const pid_t pid = conversation.inventory.pid;
  const Nanoseconds began = now(*sys_);
  conversation.phase = step(conversation.phase, TakerEvent::wait).next;
  // A channel that was closed may hold the reason still: listen in any case.
  if (const auto sent = say_ready(conversation.channel, ready); !sent) {
    log_->debug("pid {}: {}: {}", pid, sent.error().step, error_text(sent.error().code));
  }
  conversation.channel.look_out(soon);
  const auto received = conversation.channel.receive(after(*sys_, answer_time));
  TakerEvent event = TakerEvent::aborted;
  std::string text = "its channel is closed, though it lives";
  if (received && received->message.type == MessageType::retired) {
    event = TakerEvent::retired;
    outcome.probation_ends = std::max(
        outcome.probation_ends,
        after(*sys_, std::clamp<Nanoseconds>(received->message.duration, 0, longest_probation)));
    note_journal(received->message, outcome.journal);
  } else if (received) {
    text = received->message.text;
  } else if (received.error().code == ETIMEDOUT) {
    event = TakerEvent::silent;
  } else if (is_dead(rendezvous, conversation)) {
    event = TakerEvent::gone;
  }
  const TakerStep next = step(conversation.phase, event);
  conversation.phase = next.next;
  if (next.action == TakerAction::own) {
    const std::string milliseconds = in_milliseconds(now(*sys_) - began);
    if (event == TakerEvent::retired) {
      log_->info("took over {} from pid {} in {} ms", what, pid, milliseconds);
      outcome.predecessors.push_back(std::move(conversation.channel));
      outcome.outlived.push_back(pid);
    } else {
      log_->info("took over {} from pid {}, which has ended, in {} ms", what, pid, milliseconds);
    }
    return true;
  }
  outcome.reason = event == TakerEvent::silent
                       ? compose("pid {} does not answer (stopped?); it still owns {}", pid, what)
                       : compose("pid {} ended this attempt to take over {}: {}", pid, what, text);
  return false;
}

void Taker::note_forked() {
  for (Conversation& conversation : conversations_) {
    conversation.shared = true;
  }
}

std::vector<Channel> Taker::release_channels() {
  std::vector<Channel> channels;
  for (Conversation& conversation : conversations_) {
    if (conversation.channel.is_open()) {
      channels.push_back(std::move(conversation.channel));
    }
  }
  conversations_.clear();
  return channels;
}

void Taker::append_descriptors(std::vector<int>& fds) const {
  for (const Conversation& conversation : conversations_) {
    fds.push_back(conversation.channel.fd());
    for (const Offer& offer : conversation.offers) {
      fds.push_back(offer.fd.get());
    }
  }
}

bool Taker::asks(const Conversation& conversation, Share share) {
  return conversation.is_wanted() && (share == Share::all || !conversation.shared);
}

std::vector<pid_t> Taker::predecessors(Share share) const {
  std::vector<pid_t> predecessors;
  for (const Conversation& conversation : conversations_) {
    if (asks(conversation, share)) {
      predecessors.push_back(conversation.inventory.pid);
    }
  }
  return predecessors;
}

Taker::Outcome Taker::become_owner(Rendezvous& rendezvous, Share share, Evidence evidence) {
  Outcome outcome;
  outcome.owner = true;
  for (Conversation& conversation : conversations_) {
    if (asks(conversation, share) && !ask(rendezvous, conversation, evidence, outcome)) {
      outcome.owner = false;
      break;
    }
  }
  if (share == Share::all) {
    conversations_.clear();
  }
  return outcome;
}

}  // namespace continuity
