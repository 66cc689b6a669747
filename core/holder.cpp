#include "core/holder.hpp"

#include "core/graceful_signal.hpp"
#include "core/sorted.hpp"
#include "core/start.hpp"

#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <map>
#include <utility>

namespace continuity {
namespace {

constexpr std::size_t max_conversations = 32;
constexpr std::size_t max_reported_processes = 1024;
constexpr Nanoseconds greeting_time = 2 * second;
// Who looks at us looks at others, too, and some of them may be silent.
constexpr Nanoseconds looking_time = 10 * second;
constexpr Nanoseconds closed_door_time = 50 * millisecond;
constexpr Nanoseconds send_time = 100 * millisecond;
// A predecessor that has not said by then that our probation is over is stopped.
constexpr Nanoseconds answer_time = 5 * second;
// Whoever has a GRANT looks at its descriptors, and says GOT.
constexpr Nanoseconds got_time = second;
// The longest time in which nobody accepts, if a thread cannot be woken.
constexpr Nanoseconds retire_time = 200 * millisecond;
// What has been received may not have been answered yet, and only from the datagram socket
// can it be: on a busy machine a thread gets to it after a tenth of a second.
constexpr Nanoseconds least_time_to_answer = second;
constexpr Nanoseconds first_look = 5 * millisecond;
constexpr Nanoseconds longest_look = 100 * millisecond;
constexpr Nanoseconds longest_interval = 5 * second;
// Who is told something by a signal has this long to act before it is stopped.
constexpr Nanoseconds signal_time = 100 * millisecond;
// Who is told to end tells its own processes, and they have this long to do so.
constexpr Nanoseconds leave_look = second;
// Who has closed its last descriptor is still on its way out.
constexpr Nanoseconds exit_time = 100 * millisecond;
// A program that has read the end of its connections has this long for goodbyes.
constexpr Nanoseconds goodbye_time = second;
constexpr Nanoseconds report_interval = 60 * second;
// Who has not said what it listens on is asked again.
constexpr Nanoseconds late_look = 20 * millisecond;
constexpr unsigned most_late_looks = 7;  // each after twice the time: for 2.5 s
constexpr Nanoseconds stranger_interval = second;
// A look at the descriptors may cost this share of one processor: 1 in 100.
constexpr Nanoseconds look_cost_factor = 100;

// To ids in their order. However often a peer names them, nothing grows by that.
void add_each_once(std::vector<std::uint32_t>& ids, std::span<const std::uint32_t> more) {
  for (const std::uint32_t id : more) {
    const auto place = std::lower_bound(ids.begin(), ids.end(), id);
    if (place == ids.end() || *place != id) {
      ids.insert(place, id);
    }
  }
}

bool is_among(std::span<const std::uint32_t> ids, std::uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// In what is kept of a conversation.
constexpr std::uint32_t has_same_numbers = 1;
constexpr std::uint32_t has_claimed_named = 2;
constexpr std::uint32_t awaits_last_got = 4;
// Of the attempt.
constexpr std::uint32_t has_said_goodbye = 1;

// The one with this id among items in the order of their ids; null: none.
const Owner::Item* find_item(const std::vector<Owner::Item>& items, std::uint32_t id) {
  const auto found = std::lower_bound(
      items.begin(), items.end(), id,
      [](const Owner::Item& item, std::uint32_t wanted) { return item.listener.id < wanted; });
  return found != items.end() && found->listener.id == id ? &*found : nullptr;
}

}  // namespace

std::string join_addresses(const std::vector<std::string>& addresses) {
  constexpr std::size_t most = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(addresses.size(), most); ++i) {
    text += (i == 0 ? "" : ", ") + addresses[i];
  }
  if (addresses.size() > most) {
    text += compose(", and {} more", addresses.size() - most);
  }
  return text;
}

Holder::Holder(const Sys& sys, Log& log, const Options& options, Owner& owner, Self self, int door,
               int wake, HiddenFiles* hidden)
    : sys_(&sys),
      log_(&log),
      options_(&options),
      owner_(&owner),
      self_(std::move(self)),
      door_(door),
      wake_(wake),
      hidden_(hidden) {}

void Holder::watch_predecessor(Channel channel, Nanoseconds until) {
  const Nanoseconds patience = until >= never - answer_time ? never : until + answer_time;
  // Who led it; who has made the door may have been the parent of a daemon.
  const auto peer = channel.peer();
  const Restart* const beginning = own_beginning();
  const bool seen = peer && peer->pid > 0 && beginning != nullptr;
  OwnedFd process(*sys_, seen ? sys_->pidfd_open(beginning->predecessor, 0) : -1);
  predecessors_.push_back({std::move(channel), patience, true, std::move(process)});
  has_replaced_files_ = true;
}

void Holder::say_goodbye() {
  for (Predecessor& predecessor : predecessors_) {
    static_cast<void>(predecessor.channel.send({.type = MessageType::goodbye}, 0));
  }
}

void Holder::begin() {
  owns_ = true;
  for (Conversation& conversation : conversations_) {
    if (conversation.stage == Stage::parked && !conversation.over) {
      send_inventory(conversation);
    }
  }
}

void Holder::resume(HolderPhase phase, Nanoseconds until) {
  phase_ = phase;
  phase_deadline_ = phase == HolderPhase::probation ? until : never;
  drain_deadline_ = phase == HolderPhase::draining && until != 0 ? until : never;
  next_look_ = phase == HolderPhase::draining ? now(*sys_) : never;
  look_interval_ = first_look;
  next_report_ = after(*sys_, report_interval);
  take_up_attempt();
}

// ---- An attempt that another process has begun -------------------------------------

// First the attempt, then its conversations. One that has not been granted everything, or
// is about to be, is left out: its end tells the successor to look for us again.
void Holder::keep_attempt() {
  if (!std::exchange(attempt_changed_, false)) {
    return;
  }
  std::vector<Owner::Kept> all;
  if (phase_ != HolderPhase::active && phase_ != HolderPhase::leaving) {
    Message attempt{.type = MessageType::claim};
    attempt.generation = generation_;
    attempt.pid = successor_;
    attempt.duration = attempt_began_;
    attempt.replaced = replaced_;
    attempt.features = said_goodbye_ ? has_said_goodbye : 0;
    all.push_back({.note = std::move(attempt)});
    for (const Conversation& one : conversations_) {
      const bool granted =
          one.granted >= one.offered.size() && one.named_copies.empty() && one.channel.is_open();
      if (one.stage != Stage::attempt || one.over || !granted) {
        continue;
      }
      Message note{.type = MessageType::claim};
      note.ids = one.claimed;
      note.narrowed = one.retired;
      note.features = (one.same_numbers ? has_same_numbers : 0) |
                      (one.claimed_named ? has_claimed_named : 0) |
                      (one.awaits_got ? awaits_last_got : 0);
      all.push_back({.note = std::move(note), .channel = one.channel.fd()});
    }
  }
  owner_->keep(std::move(all));
}

void Holder::take_up(Received& kept) {
  if (kept.fds.size() != 1) {
    return;
  }
  Conversation conversation{.channel = Channel(*sys_, std::move(kept.fds.front()))};
  // Did the one before still send the last GRANT? If so there is an answer, or it comes.
  if ((kept.message.features & awaits_last_got) != 0) {
    const auto got = conversation.channel.look(after(*sys_, got_time));
    if (!got && got.error().code == ETIMEDOUT) {
      return;
    }
  }
  conversation.peer = conversation.channel.peer().has_value() ? *conversation.channel.peer()
                                                              : Credentials{.pid = successor_};
  conversation.stage = Stage::attempt;
  conversation.generation = generation_;
  conversation.same_numbers = (kept.message.features & has_same_numbers) != 0;
  conversation.claimed_named = (kept.message.features & has_claimed_named) != 0;
  conversation.offered = items_;
  conversation.granted = items_.size();
  conversation.claimed = std::move(kept.message.ids);
  conversation.retired = std::move(kept.message.narrowed);
  conversations_.push_back(std::move(conversation));
}

// What the one before had read and not answered lies in its channel still.
void Holder::take_up_attempt() {
  auto kept = owner_->kept();
  attempt_changed_ = true;
  if (phase_ == HolderPhase::active || kept.empty()) {
    if (phase_ == HolderPhase::granted) {
      owner_->abandon();
      phase_ = HolderPhase::active;
    }
    return;
  }
  for (Owner::Prepared& one : owner_->prepared()) {
    if (!one.retired) {
      served_.push_back(one.item.listener.id);
    }
    items_.push_back(std::move(one.item));
  }
  Message& attempt = kept.front().message;
  generation_ = attempt.generation;
  successor_ = attempt.pid;
  attempt_began_ = attempt.duration;
  if (Restart* const last = owner_->journal().current(); last != nullptr) {
    last->predecessor = sys_->getpid();  // ours from now on, to note how it ends
  }
  replaced_ = std::move(attempt.replaced);
  said_goodbye_ = (attempt.features & has_said_goodbye) != 0;
  std::for_each(kept.begin() + 1, kept.end(), [this](Received& one) { take_up(one); });
  keep_attempt();
  log_->info("leads from now on, and goes on with the take-over by pid {}", successor_);
  if (phase_ == HolderPhase::granted) {
    phase_deadline_ = attempt_began_ + options_->ready_timeout;
    if (this->attempt() == nullptr) {
      apply(HolderEvent::gone);
    }
    return;
  }
  retired_at_ = phase_ == HolderPhase::probation ? phase_deadline_ - probation() : now(*sys_);
  note_unclaimed();
}

// ---- The loop ----------------------------------------------------------------

void Holder::run_once(Nanoseconds until) {
  std::vector<pollfd> fds{{.fd = wake_, .events = POLLIN, .revents = 0},
                          {.fd = door_, .events = door_events(), .revents = 0}};
  for (const Conversation& conversation : conversations_) {
    fds.push_back({.fd = conversation.channel.fd(), .events = POLLIN, .revents = 0});
  }
  for (const Predecessor& predecessor : predecessors_) {
    fds.push_back({.fd = predecessor.channel.fd(), .events = POLLIN, .revents = 0});
  }
  ProcessWatch* const watch =
      phase_ == HolderPhase::probation ? owner_->successor_watch() : nullptr;
  fds.push_back({.fd = leaving_.get(), .events = POLLIN, .revents = 0});
  fds.push_back({.fd = watch != nullptr ? watch->handle() : -1, .events = POLLIN, .revents = 0});
  const Nanoseconds deadline = std::min(next_deadline(), until);
  const timespec timeout = to_timespec(deadline == never ? never : deadline - now(*sys_));
  const int events = sys_->ppoll(fds.data(), fds.size(), deadline == never ? nullptr : &timeout);
  if (events < 0) {
    return;  // SIGSETXID cannot be blocked: there may be messages all the same
  }
  if (events > 0) {
    // Messages before deadlines: whoever was stopped for a while must not
    // take an answer that is there for one that never came.
    if (fds[0].revents != 0) {
      std::uint64_t count = 0;
      sys_->read(wake_, &count, sizeof count);
    }
    if (fds[fds.size() - 2].revents != 0) {
      leaving_.reset();
      note_end_of_predecessor();
    }
    std::size_t index = 2;
    for (Conversation& conversation : conversations_) {
      if (fds[index++].revents != 0) {
        listen_to(conversation);
      }
    }
    for (Predecessor& predecessor : predecessors_) {
      if (fds[index++].revents != 0) {
        listen_to(predecessor);
      }
    }
    if (fds[1].revents != 0) {
      welcome();
    }
    if (fds.back().revents != 0 && attempt() != nullptr) {
      on_end_of_main();
    }
  }
  look_for_late();
  look_at_timers();
  std::erase_if(predecessors_, [](const Predecessor& one) { return !one.channel.is_open(); });
  end_of_own_probation();
  keep_attempt();
  conversations_.remove_if([](const Conversation& one) { return one.over; });
  if (conversations_.empty()) {
    owner_->take_leave();
  }
}

bool Holder::is_at_rest() const {
  return owns_ && phase_ == HolderPhase::active && conversations_.empty() &&
         predecessors_.empty() && !leaving_.is_open() && next_deadline() == never;
}

Nanoseconds Holder::next_deadline() const {
  Nanoseconds earliest =
      std::min({phase_deadline_, unclaimed_deadline_, next_look_, door_opens_, files_deadline_});
  if (has_late()) {
    earliest = std::min(earliest, is_news() ? now(*sys_) : next_late_look_);
  }
  for (const Conversation& conversation : conversations_) {
    earliest = std::min(earliest, conversation.deadline);
  }
  for (const Predecessor& predecessor : predecessors_) {
    if (predecessor.watches) {
      earliest = std::min(earliest, predecessor.until);
    }
  }
  return earliest;
}

// Who knocks while we have no descriptor left would keep us awake.
short Holder::door_events() const {
  return door_opens_ == never ? POLLIN : 0;
}

void Holder::look_at_timers() {
  const Nanoseconds time = now(*sys_);
  if (time >= door_opens_) {
    door_opens_ = never;
  }
  for (Conversation& conversation : conversations_) {
    if (time >= conversation.deadline && !conversation.over) {
      log_->debug("pid {} stays silent; its conversation is closed", conversation.peer.pid);
      conversation.over = true;
    }
  }
  for (Predecessor& predecessor : predecessors_) {
    // It should have told us by now. The channel stays open: closing it would
    // tell it that we are dead.
    predecessor.watches = predecessor.watches && time < predecessor.until;
  }
  if (time >= unclaimed_deadline_) {
    unclaimed_deadline_ = never;
    close_unclaimed();
  }
  if (time >= phase_deadline_) {
    phase_deadline_ = never;
    switch (phase_) {
      case HolderPhase::granted:
        apply(HolderEvent::ready_timeout);
        break;
      case HolderPhase::probation:
        apply(HolderEvent::probation_over);
        break;
      case HolderPhase::leaving:
        log_->warn("still here {} s after {}; ending with SIGKILL",
                   in_seconds(options_->stop_timeout), signal_name(options_->stop_signal));
        owner_->stop(SIGKILL);
        break;
      default:
        break;
    }
  }
  if (time >= files_deadline_) {
    files_deadline_ = never;
    let_go_of_files();
  }
  if (time >= next_look_) {
    look_at_drain();
  }
}

// ---- Conversations -------------------------------------------------------------

void Holder::welcome() {
  const int fd = sys_->accept4(door_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) {
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      door_opens_ = after(*sys_, closed_door_time);
    }
    return;
  }
  Conversation conversation{.channel = Channel(*sys_, OwnedFd(*sys_, fd))};
  const auto peer = conversation.channel.peer();
  if (!peer || (peer->uid != sys_->geteuid() && peer->uid != 0)) {
    // However often: a log that nobody reads fast enough would hold us up.
    if (now(*sys_) >= next_stranger_) {
      log_->warn("user {} knocked at the rendezvous socket; ignored", peer ? peer->uid : 0);
      next_stranger_ = after(*sys_, stranger_interval);
    }
    return;
  }
  if (conversations_.size() >= max_conversations) {
    log_->warn("{} conversations are open already; pid {} is turned away", max_conversations,
               peer->pid);
    return;
  }
  conversation.peer = *peer;
  conversation.deadline = after(*sys_, greeting_time);
  conversations_.push_back(std::move(conversation));
  listen_to(conversations_.back());
}

void Holder::listen_to(Conversation& conversation) {
  while (!conversation.over) {
    // Whoever leads if we die in the middle of it reads it again.
    const bool stays = conversation.stage == Stage::attempt;
    auto received = stays ? conversation.channel.look(0) : conversation.channel.receive(0);
    const int error = received ? 0 : received.error().code;
    if (error == ETIMEDOUT) {
      return;  // nothing more for now
    }
    conversation.unread = stays && (error == 0 || error == EPROTO || error == EPROTONOSUPPORT);
    if (!received) {
      on_unreadable(conversation, received.error());
      take_away(conversation);
      return;
    }
    on_message(conversation, *received);
    keep_attempt();
    take_away(conversation);
  }
}

// Before the channel is closed, too: to the other side a message that nobody has read is
// an error, which it is told instead of what we have said.
void Holder::take_away(Conversation& conversation) {
  if (std::exchange(conversation.unread, false) && conversation.channel.is_open()) {
    conversation.channel.drop();
  }
}

// Never without a word: a channel that is closed in silence means death.
void Holder::hang_up(Conversation& conversation, const char* what) {
  take_away(conversation);
  if (!conversation.retired.empty() && phase_ == HolderPhase::probation) {
    // Whom we handed over to may babble; it accepts all the same.
    log_->warn("pid {} {}; ignored", conversation.peer.pid, what);
    return;
  }
  log_->warn("pid {} {}; its conversation is closed", conversation.peer.pid, what);
  Message abort{.type = MessageType::abort, .code = EPROTO};
  abort.text = compose("it {}", what);
  reply(conversation, abort);
  on_gone(conversation, HolderEvent::gone);
}

// Closed is dead, and nothing else is: whom we handed over to may babble, or
// we may have no memory to listen with, and it accepts all the same.
void Holder::on_unreadable(Conversation& conversation, const Error& error) {
  if (error.code == ECONNRESET) {
    on_gone(conversation, HolderEvent::gone);
  } else if (error.code != EPROTO && error.code != EPROTONOSUPPORT) {
    log_->debug("pid {}: {}: {}", conversation.peer.pid, error.step, error_text(error.code));
  } else {
    hang_up(conversation, "said something that is not ours");
  }
}

void Holder::listen_to(Predecessor& predecessor) {
  // Whatever it says, or if it is gone: it does not watch us any more.
  auto received = predecessor.channel.receive(0);
  if (!received && received.error().code == ETIMEDOUT) {
    return;
  }
  note_success(received && received->message.type == MessageType::healthy);
  if (predecessor.process.is_open()) {
    leaving_ = std::move(predecessor.process);
  }
  predecessor.channel.close();
}

void Holder::on_message(Conversation& conversation, Received& received) {
  const Message& message = received.message;
  attempt_changed_ = attempt_changed_ || conversation.stage == Stage::attempt;
  switch (message.type) {
    case MessageType::hello:
      on_hello(conversation, message);
      break;
    case MessageType::claim:
      on_claim(conversation, message);
      break;
    case MessageType::join:
      on_join(conversation, message);
      break;
    case MessageType::status:
      on_status(conversation, message);
      break;
    case MessageType::got:
      conversation.awaits_got = false;
      send_grant(conversation);
      break;
    case MessageType::ready:
      on_ready(conversation, message);
      break;
    case MessageType::goodbye:
      // Others of it may have the channel still: its end is what counts.
      said_goodbye_ = said_goodbye_ || conversation.stage == Stage::attempt;
      break;
    case MessageType::abort:
      on_gone(conversation, HolderEvent::goodbye);
      break;
    default:
      hang_up(conversation, "sent a message out of turn");
  }
}

void Holder::on_hello(Conversation& conversation, const Message& hello) {
  if (conversation.stage != Stage::greeting) {
    hang_up(conversation, "greets twice");
    return;
  }
  if (hello.protocol_min > protocol_version || hello.protocol_max < protocol_version) {
    log_->warn("pid {} speaks protocol {} to {}, we speak {}; its conversation is closed",
               conversation.peer.pid, hello.protocol_min, hello.protocol_max, protocol_version);
    Message no{.type = MessageType::abort, .code = EPROTONOSUPPORT};
    no.protocol_min = no.protocol_max = protocol_version;
    reply(conversation, no);
    conversation.over = true;
    return;
  }
  conversation.found = now(*sys_);
  conversation.generation = hello.generation;
  conversation.takes_named = (hello.features & takes_named) != 0;
  conversation.keeps = (hello.features & keeps_copies) != 0;
  conversation.same_numbers = hello.pid == conversation.peer.pid;
  // A supervisor has handed over to us, and is here to keep what we serve now.
  if (!conversation.keeps && owner_->is_outlived(conversation.peer.pid)) {
    turn_away_outlived(conversation);
    return;
  }
  conversation.kin = owner_->is_kin(conversation.peer.pid, hello.fresh);
  if (conversation.kin) {
    log_->debug("pid {} belongs to this generation, or was started by it: nothing is offered",
                conversation.peer.pid);
  }
  if (!owns_ && !(conversation.kin && owner_->is_forked(conversation.peer.pid))) {
    conversation.stage = Stage::parked;
    conversation.deadline = never;
    return;
  }
  send_inventory(conversation);
}

void Holder::turn_away_outlived(Conversation& conversation) {
  Message late{.type = MessageType::abort, .code = ESTALE};
  late.text = compose("it has handed over to pid {}", sys_->getpid());
  reply(conversation, late);
  conversation.over = true;
}

// A process that has executed another program, or was given the listener by one
// of ours, belongs to this generation by what it holds.
void Holder::on_join(Conversation& conversation, const Message& join) {
  if (owner_->is_outlived(conversation.peer.pid)) {
    turn_away_outlived(conversation);
    return;
  }
  const bool kin =
      owner_->is_kin(conversation.peer.pid, join.fresh) || owner_->is_forked(conversation.peer.pid);
  const auto ties = owner_->ties();
  if (conversation.stage != Stage::greeting || ties.empty() ||
      (!owner_->holds(join.inodes) && !(kin && join.inodes.empty()))) {
    Message no{.type = MessageType::refused};
    no.text = "what it holds is not ours";
    reply(conversation, no);
  } else {
    log_->debug("pid {} belongs to this generation", conversation.peer.pid);
    owner_->expect(conversation.peer.pid);
    Message welcome{.type = MessageType::welcome};
    welcome.generation = self_.generation;
    welcome.pid = sys_->getpid();
    welcome.state = state();
    reply(conversation, welcome, ties);
  }
  conversation.over = true;
}

// Whoever asks: nothing of a restart waits for it, or is kept from anybody.
void Holder::on_status(Conversation& conversation, const Message& status) {
  if (conversation.stage != Stage::greeting) {
    hang_up(conversation, "asks how we are in the middle of something else");
    return;
  }
  conversation.deadline = after(*sys_, greeting_time);  // it may ask again
  Message report{.type = MessageType::report};
  if ((status.features & wants_start) != 0) {
    report_start(conversation, status.total, report);
  } else {
    report_all(report);
  }
  // Who does not read is not waited for.
  if (!conversation.channel.send(report, 0)) {
    conversation.over = true;
  }
}

// Of how it was started, what began there. It has the environment: for who may see that.
void Holder::report_start(const Conversation& conversation, std::uint32_t from,
                          Message& report) const {
  const std::string_view start = owner_->start();
  const auto known = read_start(start);
  if (!known || (conversation.peer.uid != 0 && conversation.peer.uid != known->user)) {
    return;
  }
  const std::string_view rest = start.substr(std::min<std::size_t>(from, start.size()));
  report.start = rest.substr(0, max_start_piece);
  report.more = rest.size() > max_start_piece;
}

void Holder::report_all(Message& report) {
  report.protocol_min = report.protocol_max = protocol_version;
  report.generation = self_.generation;
  report.identity = self_.identity;
  const pid_t main = owner_->main();
  report.pid = main != 0 ? main : sys_->getpid();
  report.state = state();
  // One after the other: none is 0.
  report.phase = owns_
                     ? static_cast<ReportedPhase>(static_cast<std::uint8_t>(phase_) +
                                                  static_cast<std::uint8_t>(ReportedPhase::active))
                     : ReportedPhase::starting;
  const Nanoseconds time = now(*sys_);
  if (phase_ != HolderPhase::active) {
    report.rival_pid = successor_;
    const Nanoseconds end = phase_ == HolderPhase::draining ? drain_deadline_ : phase_deadline_;
    report.duration = end == never ? 0 : std::max<Nanoseconds>(end - time, 1);
  } else if (report.state == HolderState::on_probation) {
    report.duration = std::max<Nanoseconds>(own_probation_ends() - time, 1);
  }
  for (const pid_t process : owner_->processes()) {
    if (report.members.size() < max_reported_processes) {
      report.members.push_back(process);
    }
  }
  const Journal& journal = owner_->journal();
  report.restarts = journal.restarts;
  report.journal.assign(journal.all().begin(), journal.all().end());
  report_listeners(report);
}

// As many as half a message has room for.
void Holder::report_listeners(Message& report) {
  std::vector<Owner::Item> found;
  if (items_.empty()) {
    found = owner_->known_listeners();
  }
  const auto& items = items_.empty() ? found : items_;
  report.total = static_cast<std::uint32_t>(std::min(items.size(), max_listeners));
  constexpr std::size_t room = max_message_size / 2;
  std::size_t used = 0;
  for (const Owner::Item& item : items) {
    used += encoded_size(item.listener);
    if (used > room) {
      report.more = true;
      break;
    }
    report.listeners.push_back(item.listener);
    if (!items_.empty() && is_in(served_, item.listener.id)) {
      report.ids.push_back(item.listener.id);  // still served here
    }
  }
}

// ---- What has been ----------------------------------------------------------------

void Holder::begin_record(Nanoseconds found) {
  Restart restart{.predecessor = sys_->getpid(), .successor = successor_};
  restart.wall = time_of(*sys_, CLOCK_REALTIME);
  restart.note(RestartStep::found, found);
  restart.note(RestartStep::claimed, attempt_began_);
  owner_->journal().add(restart);
}

// Of the attempt under way; null: there is none.
Restart* Holder::record() {
  Restart* const last = owner_->journal().current();
  const bool ours = last != nullptr && last->predecessor == sys_->getpid() &&
                    last->outcome == RestartOutcome::under_way;
  return ours ? last : nullptr;
}

void Holder::note_step(RestartStep step, Nanoseconds time) {
  if (Restart* const current = record(); current != nullptr) {
    current->note(step, time);
  }
}

void Holder::note_outcome(RestartOutcome outcome) {
  if (Restart* const current = record(); current != nullptr) {
    current->outcome = outcome;
  }
}

// The last restart is the one by which we came to serve, unless others have tried since.
Restart* Holder::own_beginning() {
  Journal& journal = owner_->journal();
  for (std::size_t i = journal.all().size(); i > 0; --i) {
    Restart& one = journal.last.at(i - 1);
    if (one.predecessor != sys_->getpid()) {
      return &one;
    }
  }
  return nullptr;
}

// Nothing comes back any more; `healthy`: as it said itself.
void Holder::note_success(bool healthy) {
  if (Restart* const beginning = own_beginning(); beginning != nullptr) {
    if (beginning->outcome == RestartOutcome::under_way) {
      beginning->outcome = RestartOutcome::done;
    }
    if (healthy && beginning->at(RestartStep::healthy) == 0) {
      beginning->note(RestartStep::healthy, now(*sys_));
    }
  }
}

void Holder::note_end_of_predecessor() {
  if (Restart* const beginning = own_beginning(); beginning != nullptr) {
    beginning->note(RestartStep::left, now(*sys_));
  }
}

HolderState Holder::state() const {
  if (phase_ != HolderPhase::active) {
    return HolderState::busy;
  }
  const bool watched = std::any_of(predecessors_.begin(), predecessors_.end(),
                                   [](const Predecessor& one) { return one.watches; });
  return watched ? HolderState::on_probation : HolderState::active;
}

Nanoseconds Holder::own_probation_ends() const {
  Nanoseconds until = 0;
  for (const Predecessor& predecessor : predecessors_) {
    until = std::max(until, predecessor.watches ? predecessor.until : 0);
  }
  return until - answer_time;
}

// NOLINTNEXTLINE(readability-function-size): one message, field by field
void Holder::send_inventory(Conversation& conversation) {
  conversation.joins = belongs(conversation);
  const HolderState current =
      conversation.joins || conversation.kin ? HolderState::active : state();
  Message inventory{.type = MessageType::inventory};
  inventory.protocol_min = inventory.protocol_max = protocol_version;
  inventory.generation = self_.generation;
  inventory.identity = self_.identity;
  inventory.pid = sys_->getpid();
  inventory.state = current;
  if (current == HolderState::busy) {
    inventory.rival_pid = successor_;
    inventory.duration = now(*sys_) - attempt_began_;
  } else if (current == HolderState::on_probation) {
    inventory.duration = own_probation_ends() - now(*sys_);
  }
  // Parked until the attempt, or our own probation, has ended: then it is told
  // anew. One that does not want to wait closes the channel.
  conversation.stage = current == HolderState::active ? Stage::looking : Stage::parked;
  conversation.deadline = current == HolderState::active
                              ? after(*sys_, std::max(options_->ready_timeout, looking_time))
                              : never;
  // What has been retired is nobody's to claim from us.
  conversation.offered.clear();
  if (conversation.joins) {
    look_for_late();
    for (const std::uint32_t id : unclaimed()) {
      conversation.offered.push_back(*find_item(items_, id));
    }
  } else if (!conversation.kin &&
             (phase_ == HolderPhase::active || phase_ == HolderPhase::granted)) {
    conversation.made = owner_->listeners_made();
    conversation.offered = owner_->inventory();
    std::uint32_t id = 0;
    for (Owner::Item& item : conversation.offered) {
      item.listener.id = ++id;
    }
  }
  if (retired_at_ != 0 && conversation.kin && owner_->is_forked(conversation.peer.pid)) {
    inventory.features = is_handed_over;
    for (const Owner::Item& item : items_) {
      if (!is_in(served_, item.listener.id)) {
        conversation.offered.push_back(item);
      }
    }
  }
  inventory.total = static_cast<std::uint32_t>(conversation.offered.size());
  constexpr std::size_t room = max_message_size / 2;
  std::size_t used = 0;
  for (const Owner::Item& item : conversation.offered) {
    used += encoded_size(item.listener);
    if (used > room) {
      inventory.more = true;
      reply(conversation, inventory);
      inventory.listeners.clear();
      inventory.more = false;
      used = encoded_size(item.listener);
    }
    inventory.listeners.push_back(item.listener);
  }
  if (inventory.features == is_handed_over) {
    conversation.offered.clear();  // it can claim nothing
  }
  offer_named(conversation, inventory);
  reply(conversation, inventory);
}

// In the last of the messages, which half of the listeners at most have left room in.
void Holder::offer_named(Conversation& conversation, Message& inventory) {
  conversation.named.clear();
  if (!conversation.takes_named || conversation.joins || conversation.kin ||
      phase_ != HolderPhase::active) {
    return;
  }
  auto id = static_cast<std::uint32_t>(conversation.offered.size());
  for (Owner::Named& one : owner_->named()) {
    conversation.named.push_back({.id = ++id, .name = std::move(one.name)});
  }
  inventory.named = conversation.named;
}

// Copies, so that what is announced as their number is what comes.
void Holder::keep_named(Conversation& conversation) {
  const auto present = owner_->named();
  std::erase_if(conversation.named, [&](const NamedDescriptor& wanted) {
    const auto found = std::find_if(present.begin(), present.end(), [&](const Owner::Named& one) {
      return one.name == wanted.name;
    });
    OwnedFd copy(*sys_, found == present.end() ? -1 : sys_->fcntl(found->fd, F_DUPFD_CLOEXEC, 0));
    if (!copy.is_open()) {
      return true;
    }
    conversation.named_copies.push_back(std::move(copy));
    return false;
  });
}

void Holder::reply(Conversation& conversation, const Message& message, std::span<const int> fds) {
  if (conversation.over) {
    return;
  }
  if (const auto sent = conversation.channel.send(message, fds, after(*sys_, send_time)); !sent) {
    log_->debug("pid {}: {}: {}", conversation.peer.pid, sent.error().step,
                error_text(sent.error().code));
    on_gone(conversation, HolderEvent::gone);
  }
}

void Holder::refuse(Conversation& conversation, std::string reason) {
  log_->info("refused pid {}: {}", conversation.peer.pid, reason);
  Message no{.type = MessageType::refused, .rival_pid = successor_};
  no.text = std::move(reason);
  no.generation = generation_;
  no.duration = attempt_began_ == 0 ? 0 : now(*sys_) - attempt_began_;
  reply(conversation, no);
  conversation.over = true;
}

Holder::Conversation* Holder::attempt() {
  for (Conversation& conversation : conversations_) {
    if (conversation.stage == Stage::attempt && !conversation.over) {
      return &conversation;
    }
  }
  return nullptr;
}

std::string Holder::addresses_of(std::span<const std::uint32_t> ids) const {
  std::vector<std::string> addresses;
  for (const std::uint32_t id : sorted(ids)) {
    if (const Owner::Item* item = find_item(items_, id); item != nullptr) {
      addresses.push_back(to_string(item->listener.address));
    }
  }
  return join_addresses(addresses);
}

// ---- An attempt ------------------------------------------------------------------

// Whether a process of the successor's speaks, whom the attempt is.
bool Holder::belongs(const Conversation& conversation) const {
  return generation_ != 0 && conversation.generation == generation_ &&
         phase_ != HolderPhase::active && phase_ != HolderPhase::leaving;
}

// What is served here and nobody has claimed.
std::vector<std::uint32_t> Holder::unclaimed() const {
  std::vector<std::uint32_t> claimed;
  for (const Conversation& conversation : conversations_) {
    if (conversation.stage == Stage::attempt && !conversation.over) {
      claimed.insert(claimed.end(), conversation.claimed.begin(), conversation.claimed.end());
    }
  }
  std::sort(claimed.begin(), claimed.end());
  std::vector<std::uint32_t> ids;
  std::set_difference(served_.begin(), served_.end(), claimed.begin(), claimed.end(),
                      std::back_inserter(ids));
  return ids;
}

// Whether what it was offered is what was prepared, and what it claims is free:
// others of its generation may have been faster.
bool Holder::is_current(const Conversation& conversation, std::span<const std::uint32_t> ids) {
  const auto prepared = [&](const Owner::Item& offer) {
    const Owner::Item* item = find_item(items_, offer.listener.id);
    return item != nullptr && item->inode == offer.inode &&
           owner_->descriptor(offer.listener.id) >= 0;
  };
  const auto free = unclaimed();
  return std::all_of(conversation.offered.begin(), conversation.offered.end(), prepared) &&
         std::all_of(ids.begin(), ids.end(), [&](std::uint32_t id) { return is_in(free, id); });
}

// NOLINTNEXTLINE(readability-function-size): all that may be wrong with one message
void Holder::on_claim(Conversation& conversation, const Message& claim) {
  const auto is_named = [&](std::uint32_t id) {
    return std::any_of(conversation.named.begin(), conversation.named.end(),
                       [&](const NamedDescriptor& one) { return one.id == id; });
  };
  auto claimed = claim.ids;  // of listeners
  std::erase_if(claimed, is_named);
  const bool known = std::all_of(claimed.begin(), claimed.end(), [&](std::uint32_t id) {
    return find_item(conversation.offered, id) != nullptr;
  });
  conversation.claimed_named = conversation.claimed_named || claimed.size() < claim.ids.size();
  if (conversation.stage == Stage::greeting || !known || claim.ids.empty()) {
    hang_up(conversation, "claims what it was not offered");
    return;
  }
  if (conversation.keeps) {
    begin_keeping(conversation, claimed);
    return;
  }
  if (conversation.stage == Stage::attempt) {
    // One more address of what it has already been granted.
    add_each_once(conversation.claimed, claimed);
    return;
  }
  const bool joins = belongs(conversation);
  const HolderEvent event = joins ? HolderEvent::join : HolderEvent::claim;
  // Who was offered a part only, as one of several, cannot begin an attempt.
  if (step(phase_, event).action == HolderAction::refuse ||
      (joins ? !is_current(conversation, claimed) : conversation.joins)) {
    refuse(conversation, compose("pid {} is handing over to pid {}", sys_->getpid(), successor_));
    return;
  }
  if (!joins) {
    owner_->meet(conversation.peer.pid);
    if (const auto prepared = prepare(conversation, claimed); !prepared) {
      refuse(conversation, compose("pid {} cannot hand over: {}: {}", sys_->getpid(),
                                   prepared.error().step, error_text(prepared.error().code)));
      owner_->meet(0);
      return;
    }
    generation_ = conversation.generation;
    successor_ = conversation.peer.pid;
    attempt_began_ = now(*sys_);
    begin_record(conversation.found);
    items_ = conversation.offered;
    made_ = conversation.made;
    for (const Owner::Item& item : items_) {
      served_.push_back(item.listener.id);
    }
  }
  conversation.stage = Stage::attempt;
  conversation.deadline = never;
  conversation.claimed = sorted(std::move(claimed));
  keep_named(conversation);
  if (!joins) {
    look_at_group();
  }
  apply(event, &conversation);
  if (!joins) {
    look_for_late();  // the others of it may ask at once
  }
}

// One script has started both of us. What is sent to its process group by a
// terminal, by the script, or by a server past the library, ends both.
void Holder::look_at_group() {
  const pid_t group = sys_->getpgid(0);
  if (successor_ > 0 && group > 0 && sys_->getpgid(successor_) == group) {
    log_->info(
        "pid {} is in our process group, {}: what is sent to the group reaches both; start each "
        "server with setsid(1), or in a shell with job control",
        successor_, group);
  }
}

// What the program has closed since it was offered is not handed over: some listen
// for a moment only (stunnel makes a pair of TCP sockets so). What is claimed is.
Status Holder::prepare(Conversation& conversation, std::span<const std::uint32_t> claimed) {
  constexpr int attempts = 5;
  for (int attempt = 1;; ++attempt) {
    std::erase_if(conversation.offered, [&](const Owner::Item& item) {
      return !is_among(claimed, item.listener.id) && socket_inode(*sys_, item.fd) != item.inode;
    });
    auto prepared = owner_->prepare(conversation.offered);
    if (prepared || prepared.error().code != ESTALE || attempt == attempts) {
      return prepared;
    }
  }
}

// Who supervises us keeps copies for when none of us is left: an attempt has nothing to do
// with that, and is not disturbed.
void Holder::begin_keeping(Conversation& conversation, std::span<const std::uint32_t> claimed) {
  if (conversation.stage == Stage::keeping) {
    hang_up(conversation, "claims twice what it keeps");
    return;
  }
  conversation.stage = Stage::keeping;
  std::erase_if(conversation.offered, [&](const Owner::Item& item) {
    return !is_among(claimed, item.listener.id) || socket_inode(*sys_, item.fd) != item.inode;
  });
  if (conversation.offered.empty()) {
    refuse(conversation, "it has been closed");
    return;
  }
  send_grant(conversation);
}

void Holder::send_grant(Conversation& conversation) {
  const bool has_named = !conversation.named_copies.empty();
  const bool keeps = conversation.stage == Stage::keeping;
  if ((conversation.stage != Stage::attempt && !keeps) ||
      (conversation.granted >= conversation.offered.size() && !has_named)) {
    return;
  }
  Message grant{.type = MessageType::grant};
  grant.total =
      static_cast<std::uint32_t>(conversation.offered.size() + conversation.named_copies.size());
  std::vector<int> fds;
  while (conversation.granted < conversation.offered.size() && fds.size() < max_fds_per_message) {
    const Owner::Item& item = conversation.offered[conversation.granted++];
    if (keeps && socket_inode(*sys_, item.fd) != item.inode) {
      refuse(conversation, "it has been closed");  // it looks again
      return;
    }
    grant.ids.push_back(item.listener.id);
    fds.push_back(keeps ? item.fd : owner_->descriptor(item.listener.id));
  }
  const auto copies =
      fds.empty() ? std::exchange(conversation.named_copies, {}) : std::vector<OwnedFd>{};
  for (std::size_t i = 0; i < copies.size(); ++i) {
    grant.ids.push_back(conversation.named[i].id);
    fds.push_back(copies[i].get());
  }
  if (!keeps && conversation.granted >= conversation.offered.size() &&
      conversation.named_copies.empty()) {
    // Kept before it is sent: the successor that has it goes on, whether or not we live to
    // note it. Whoever leads next must not take an earlier GOT for the answer.
    take_away(conversation);
    conversation.awaits_got = true;
    attempt_changed_ = true;
    keep_attempt();
  }
  reply(conversation, grant, fds);
  if (retired_at_ == 0) {
    note_step(RestartStep::granted, now(*sys_));
  }
}

void Holder::on_ready(Conversation& conversation, const Message& ready) {
  if (conversation.stage != Stage::attempt) {
    hang_up(conversation, "is ready without a claim");
    return;
  }
  const auto named = sorted(ready.ids);
  const bool news = std::any_of(conversation.claimed.begin(), conversation.claimed.end(),
                                [&](std::uint32_t id) { return is_in(named, id); });
  if (!news && !conversation.retired.empty()) {
    send_retired(conversation);  // it asks again
    return;
  }
  // Bound and closed: what it does not name is not claimed any more.
  std::erase_if(conversation.claimed, [&](std::uint32_t id) { return !is_in(named, id); });
  if (conversation.claimed.empty() && !conversation.claimed_named) {
    hang_up(conversation, "is ready with nothing claimed");
    return;
  }
  note_overlapped(conversation, ready);
  if (Restart* const current = record(); current != nullptr) {
    current->evidence = ready.evidence;
  }
  apply(HolderEvent::ready, &conversation);
  if (conversation.same_numbers && ready.pid != 0 && generation_ == conversation.generation) {
    owner_->meet(ready.pid);  // after RETIRED: it takes a look at /proc
  }
}

// What it has a listener of its own beside stays here until it is closed: it is not
// claimed, since nobody will accept from it there.
void Holder::note_overlapped(Conversation& conversation, const Message& ready) {
  const auto replaced = sorted(ready.replaced);
  const auto narrowed = sorted(ready.narrowed);
  const auto is_overlapped = [&](std::uint32_t id) {
    return is_in(replaced, id) || is_in(narrowed, id);
  };
  for (const std::uint32_t id : conversation.claimed) {
    if (is_overlapped(id)) {
      conversation.overlapped.push_back(id);
    }
    if (is_in(replaced, id)) {
      replaced_.push_back(id);
    }
  }
  replaced_ = sorted(std::move(replaced_));
  std::erase_if(conversation.claimed, is_overlapped);
}

void Holder::on_gone(Conversation& conversation, HolderEvent event) {
  if (conversation.over) {
    return;
  }
  const bool was_attempt = conversation.stage == Stage::attempt;
  take_away(conversation);
  conversation.over = true;
  if (was_attempt) {
    conversation.channel.close();
    if (attempt() != nullptr) {
      event = HolderEvent::part;
    } else if (event == HolderEvent::gone) {
      event = look_at_end_of_successor(conversation.channel.was_cut_off());
    }
    apply(event);
  }
}

// Who has not read our RETIRED has not taken over, whatever has ended it: several
// processes that may not take over end by a signal.
HolderEvent Holder::look_at_end_of_successor(bool cut_off) {
  ProcessWatch* const watch = owner_->successor_watch();
  successor_end_ = watch != nullptr ? watch->await(after(*sys_, exit_time)) : ProcessEnd{};
  const bool on_purpose = successor_end_.how == ProcessEnd::How::unknown
                              ? said_goodbye_
                              : successor_end_.is_on_purpose();
  if (cut_off) {
    return HolderEvent::gone;
  }
  if (on_purpose && phase_ == HolderPhase::probation) {
    log_->info("pid {} {} {} s after it took over, as it was meant to; not serving again",
               successor_, successor_end_.text(), in_seconds(now(*sys_) - retired_at_));
  }
  return on_purpose ? HolderEvent::goodbye : HolderEvent::gone;
}

// The others of it are still there.
void Holder::on_end_of_main() {
  if (owner_->successor_watch()->move_on()) {
    said_goodbye_ = false;
  }
}

void Holder::apply(HolderEvent event, Conversation* who) {
  const HolderPhase before = phase_;
  const HolderStep next = step(phase_, event);
  phase_ = next.next;
  attempt_changed_ = true;
  if (phase_ != before) {
    phase_deadline_ = never;
  }
  if (before == HolderPhase::active && phase_ == HolderPhase::granted) {
    phase_deadline_ = after(*sys_, options_->ready_timeout);
  }
  act(next.action, who);
}

void Holder::act(HolderAction action, Conversation* who) {
  switch (action) {
    case HolderAction::none:
    case HolderAction::refuse:
      break;
    case HolderAction::grant:
      log_->debug("pid {} begins to take over {}", who->peer.pid, addresses_of(who->claimed));
      send_grant(*who);
      break;
    case HolderAction::retire:
      go_deaf(*who);
      break;
    case HolderAction::hand_over:
      go_deaf(*who);
      owner_->forget_listeners();
      say_healthy(*who);
      next_look_ = now(*sys_);
      break;
    case HolderAction::release:
      if (const Conversation* other = attempt(); other != nullptr) {
        successor_ = other->peer.pid;
      }
      note_unclaimed();
      break;
    case HolderAction::forget:
      owner_->abandon();
      put_files_back();
      log_->warn("pid {} {} before it was ready; serving on", successor_, successor_end_.text());
      note_outcome(RestartOutcome::ended);
      end_attempt();
      break;
    case HolderAction::abort:
      abort_attempt();
      owner_->abandon();
      put_files_back();
      note_outcome(RestartOutcome::timed_out);
      end_attempt();
      break;
    case HolderAction::revive:
      owner_->revive();
      put_files_back();
      log_->warn("pid {} {} {} s after it took over; serving again", successor_,
                 successor_end_.text(), in_seconds(now(*sys_) - retired_at_));
      note_outcome(RestartOutcome::rolled_back);
      end_attempt();
      break;
    case HolderAction::succeed:
      succeed();
      break;
    case HolderAction::leave:
      leave();
      break;
  }
}

void Holder::leave() {
  if (Restart* const last = owner_->journal().current(); last != nullptr) {
    last->note(RestartStep::drained, now(*sys_));
  }
  next_look_ = next_report_ = never;
  owner_->withdraw();
  if (!cut_.empty()) {
    log_->warn("CONTINUITY_DRAIN_TIMEOUT: {} left; not waiting any longer", cut_);
  }
  if (options_->stop_signal == 0) {
    log_->info("{}; it may leave now", cut_.empty() ? "no connection left" : "time is over");
    return;
  }
  log_->info("{}; leaving ({})", cut_.empty() ? "no connection left" : "time is over",
             signal_name(options_->stop_signal));
  phase_deadline_ = after(*sys_, options_->stop_timeout);
  next_look_ = after(*sys_, leave_look);
  owner_->stop(options_->stop_signal);
}

// Whoever was told may have been ending already: the one that led before had told
// it, and then ended with it.
void Holder::look_at_leaving() {
  next_look_ = after(*sys_, leave_look);
  owner_->stop_next(options_->stop_signal);
}

void Holder::abort_attempt() {
  Message abort{.type = MessageType::abort, .code = ETIMEDOUT};
  abort.text = "it was not ready in time";
  std::vector<pid_t> told;
  for (Conversation& late : conversations_) {
    if (late.stage != Stage::attempt || late.over) {
      continue;
    }
    reply(late, abort);
    late.over = true;
    const pid_t pid = late.peer.pid;
    if (std::find(told.begin(), told.end(), pid) != told.end()) {
      continue;
    }
    told.push_back(pid);
    log_->warn(
        "pid {} was not ready within {} s (CONTINUITY_READY_TIMEOUT); it is told to "
        "end; serving on",
        pid, in_seconds(options_->ready_timeout));
    if (pid > 1) {  // 0: it lives in a namespace we cannot see
      sys_->kill(pid, SIGTERM);
    }
  }
}

void Holder::let_go_of_files() {
  if (hidden_ != nullptr) {
    hidden_->let_go(self_.generation);
  }
}

void Holder::put_files_back() {
  if (hidden_ != nullptr) {
    hidden_->put_back(generation_);
  }
}

// We have everything ourselves, as before it.
void Holder::end_attempt() {
  generation_ = 0;
  said_goodbye_ = false;
  successor_end_ = {};
  owner_->meet(0);
  items_.clear();
  served_.clear();
  replaced_.clear();
  retired_at_ = 0;
  next_look_ = unclaimed_deadline_ = never;
  end_of_own_probation();
}

Nanoseconds Holder::probation() const {
  const bool datagrams = std::any_of(items_.begin(), items_.end(), [](const Owner::Item& item) {
    return item.listener.is_datagram();
  });
  return datagrams ? std::max(options_->probation, least_time_to_answer) : options_->probation;
}

// Nobody accepts until the successor has run, and on this processor it is for what we still
// have to do to wait. What somebody else says comes before that. (What it has said itself may
// lie there still: Channel::look.)
void Holder::give_way_to(const Conversation& successor) {
  std::vector<pollfd> channels;
  for (const Conversation& conversation : conversations_) {
    const bool is_successor = &conversation == &successor;
    channels.push_back({.fd = conversation.channel.fd(),
                        .events = static_cast<short>(is_successor ? POLLRDHUP : POLLIN),
                        .revents = 0});
  }
  const timespec longest = to_timespec(millisecond);
  sys_->ppoll(channels.data(), channels.size(), &longest);
}

void Holder::go_deaf(Conversation& successor) {
  const HolderPhase phase = phase_;
  auto ids = sorted(successor.claimed);
  std::erase_if(ids, [&](std::uint32_t id) { return !is_in(served_, id); });
  if (hidden_ != nullptr && retired_at_ == 0) {
    hidden_->note_own();
  }
  const Nanoseconds began = now(*sys_);
  const bool clear = owner_->retire(ids, began + retire_time);
  const Nanoseconds ended = now(*sys_);
  if (retired_at_ == 0) {
    note_step(RestartStep::ready, began);
    note_step(RestartStep::retired, ended);
    retired_at_ = ended;
    phase_deadline_ = ended + probation();
    owner_->note_probation(phase_deadline_);
  }
  std::erase_if(served_, [&](std::uint32_t id) { return is_in(ids, id); });
  add_each_once(successor.retired, successor.claimed);
  add_each_once(successor.retired, successor.overlapped);
  const auto beside = std::exchange(successor.overlapped, {});
  successor.claimed.clear();
  said_goodbye_ = false;  // that was who has made a daemon of itself
  send_retired(successor);
  if (phase_ != phase) {
    return;  // it was gone before it could hear of it
  }
  give_way_to(successor);
  if (!owner_->is_scattered()) {
    owner_->shut_out(left_over());
  }
  if (!ids.empty()) {
    log_->info("handed {} over to pid {} in {} ms", addresses_of(ids), successor.peer.pid,
               in_milliseconds(ended - began));
  }
  if (!beside.empty()) {
    log_->info("pid {} listens beside {}", successor.peer.pid, addresses_of(beside));
    unclaimed_deadline_ = never;  // these have less time than what had been left until now
  }
  if (!clear) {
    log_->warn(
        "a thread did not come back from accept within {} ms; it may take one more "
        "connection",
        retire_time / millisecond);
  }
  owner_->sweep();
  note_unclaimed();
}

// Once the successor serves, what it has not claimed has its time. What one of
// its processes has claimed is served here until that is ready, or has ended:
// what it will accept from must not be closed to newcomers.
void Holder::note_unclaimed() {
  if (retired_at_ == 0 || unclaimed_deadline_ != never) {
    return;
  }
  const Nanoseconds left_over_time = owner_->is_scattered() ? second : 0;
  const auto left = left_over();
  for (const std::uint32_t id : unclaimed()) {
    const Nanoseconds time =
        is_in(left, id) ? std::min(options_->unclaimed, left_over_time) : options_->unclaimed;
    unclaimed_deadline_ = std::min(unclaimed_deadline_, after(*sys_, time));
    log_->info("pid {} {} {}; it is served here for {} s more", successor_,
               is_in(replaced_, id) ? "does not need" : "did not claim",
               to_string(find_item(items_, id)->listener.address), in_seconds(time));
  }
}

// More members of groups than the successor has, or what it has replaced. It has the
// address, and is the one to answer there: if no other process of it can come for the
// member, at once.
std::vector<std::uint32_t> Holder::left_over() const {
  auto ids = unclaimed();
  if (ids.empty()) {
    return ids;
  }
  // By port, since there may be thousands of them. UNIX sockets are in no group.
  std::multimap<std::uint16_t, const Listener*> handed_over;
  for (const Owner::Item& item : items_) {
    if (!is_in(served_, item.listener.id)) {
      handed_over.emplace(item.listener.address.port(), &item.listener);
    }
  }
  std::erase_if(ids, [&](std::uint32_t id) {
    const Listener& listener = find_item(items_, id)->listener;
    const auto [begin, end] = handed_over.equal_range(listener.address.port());
    return !is_in(replaced_, id) &&
           (listener.address.is_unix() || std::none_of(begin, end, [&](const auto& one) {
              return matches(*one.second, listener);
            }));
  });
  return ids;
}

bool Holder::has_late() const {
  return !items_.empty() && phase_ != HolderPhase::active && phase_ != HolderPhase::leaving &&
         owner_->listeners_made() != made_;
}

// Since everybody was asked last, whoever has answered.
bool Holder::is_news() const {
  return owner_->listeners_made() != asked_made_;
}

// A worker may bind a member of a group, or only come to its first wait, when the
// successor has been told already what there is. Its queue would end with us.
void Holder::look_for_late() {
  const Nanoseconds time = now(*sys_);
  if (!has_late() || (time < next_late_look_ && !is_news())) {
    return;
  }
  if (is_news()) {
    late_looks_ = 0;
  }
  const std::uint32_t made = asked_made_ = owner_->listeners_made();
  bool all = false;
  auto late = owner_->late_listeners(all);
  // Of other addresses the successor knows nothing, and whoever wants them finds nobody.
  std::erase_if(late, [&](const Owner::Item& one) {
    return one.listener.address.is_unix() ||
           std::none_of(items_.begin(), items_.end(), [&](const Owner::Item& item) {
             return matches(item.listener, one.listener);
           });
  });
  if (!late.empty()) {
    late_looks_ = 0;  // some do answer
  }
  const bool taken = take_up_late(std::move(late));
  if (taken && (all || ++late_looks_ == most_late_looks)) {
    made_ = made;
    late_looks_ = 0;
    next_late_look_ = 0;
    return;
  }
  next_late_look_ = after(*sys_, late_look << late_looks_);
}

// They are what nobody has claimed: one more process of the successor's may come for
// each, and what is left over is closed.
// False: not yet, for want of memory.
bool Holder::take_up_late(std::vector<Owner::Item> late) {
  std::uint32_t id = items_.back().listener.id;
  std::vector<std::uint32_t> ids;
  for (Owner::Item& one : late) {
    one.listener.id = ++id;
    ids.push_back(id);
  }
  if (const auto prepared = owner_->prepare_late(late); !prepared) {
    log_->debug("{}: {}", prepared.error().step, error_text(prepared.error().code));
    return false;
  }
  if (late.empty()) {
    return true;
  }
  items_.insert(items_.end(), std::make_move_iterator(late.begin()),
                std::make_move_iterator(late.end()));
  served_.insert(served_.end(), ids.begin(), ids.end());
  attempt_changed_ = true;
  log_->debug("one more listener has come up since pid {} was told what there is: {}", successor_,
              addresses_of(ids));
  if (retired_at_ == 0) {
    return true;
  }
  if (!owner_->is_scattered()) {
    owner_->shut_out(ids);
  }
  const Nanoseconds earlier = std::exchange(unclaimed_deadline_, never);
  note_unclaimed();
  unclaimed_deadline_ = std::min(unclaimed_deadline_, earlier);
  return true;
}

void Holder::send_retired(Conversation& successor) {
  Message retired{.type = MessageType::retired};
  retired.ids = successor.retired;
  const Journal& journal = owner_->journal();
  retired.restarts = journal.restarts + 1;
  retired.journal.assign(journal.all().begin(), journal.all().end());
  retired.duration =
      phase_ == HolderPhase::probation ? std::max<Nanoseconds>(phase_deadline_ - now(*sys_), 0) : 0;
  reply(successor, retired);
}

void Holder::close_unclaimed() {
  const bool all = now(*sys_) >= retired_at_ + options_->unclaimed;
  const auto ids = all ? unclaimed() : left_over();
  if (!all) {
    unclaimed_deadline_ = retired_at_ + options_->unclaimed;
  }
  if (ids.empty()) {
    return;  // claimed since
  }
  owner_->close_listeners(ids);
  std::erase_if(served_, [&](std::uint32_t id) { return is_in(ids, id); });
  if (phase_ != HolderPhase::probation) {
    owner_->forget_listeners();  // nothing takes them back any more
  }
  log_->info("what pid {} did not claim is closed: {}", successor_, addresses_of(ids));
  next_look_ = phase_ == HolderPhase::draining ? now(*sys_) : never;
}

void Holder::say_healthy(Conversation& successor) {
  if (successor.over) {
    return;
  }
  if (!successor.channel.send({.type = MessageType::healthy}, now(*sys_))) {
    log_->debug("pid {} does not hear that it has succeeded", successor.peer.pid);
  }
  successor.over = true;
}

// An interpreter's program may be known by its script, or by the name it goes by
// here.
int Holder::retire_signal() {
  if (options_->retire_signal != automatic_signal) {
    return options_->retire_signal;
  }
  auto names = owner_->program_names();
  if (std::find(names.begin(), names.end(), self_.identity) == names.end()) {
    names.push_back(self_.identity);
  }
  for (const std::string& name : names) {
    if (const int signal = graceful_signal(name); signal != 0) {
      log_->info("told by {} to finish, as is usual for {} (CONTINUITY_RETIRE_SIGNAL=auto)",
                 signal_name(signal), name);
      return signal;
    }
  }
  log_->info("CONTINUITY_RETIRE_SIGNAL=auto: no signal is known for {}; none is sent",
             join_addresses(names));
  return 0;
}

void Holder::succeed() {
  note_step(RestartStep::healthy, now(*sys_));
  note_outcome(RestartOutcome::done);
  // What the successor has replaced is ours, and nobody needs it any more.
  if (hidden_ != nullptr) {
    hidden_->remove_replaced(generation_);
  }
  for (Conversation& conversation : conversations_) {
    // Who has claimed and is not ready yet waits for another answer.
    if (conversation.stage == Stage::attempt && conversation.claimed.empty()) {
      say_healthy(conversation);
    }
  }
  // They were waiting for us, but somebody else has the listeners now.
  for (Conversation& conversation : conversations_) {
    conversation.over = conversation.over || conversation.stage == Stage::parked;
  }
  owner_->forget_listeners();
  owner_->name_successor();
  if (options_->success_signal != 0) {
    owner_->send_signal(options_->success_signal);
  }
  const int retire = retire_signal();
  if (retire != 0) {
    owner_->send_signal(retire);
  }
  last_count_ = owner_->connections();
  if (last_count_ > 0) {
    log_->info("finishing {} connection{}", last_count_, last_count_ == 1 ? "" : "s");
  }
  drain_deadline_ = after(*sys_, options_->drain_timeout);
  owner_->note_drain(drain_deadline_);
  look_interval_ = first_look;
  const bool told = options_->success_signal != 0 || retire != 0;
  next_look_ = after(*sys_, told ? signal_time : 0);
  next_report_ = after(*sys_, report_interval);
}

// ---- Draining --------------------------------------------------------------------

void Holder::look_at_drain() {
  if (phase_ == HolderPhase::leaving) {
    look_at_leaving();
    return;
  }
  if (!served_.empty()) {
    next_look_ = never;  // until it has been claimed or closed
    return;
  }
  if (has_late()) {
    next_look_ = after(*sys_, look_interval_);
    return;
  }
  const Nanoseconds began = processor_time(*sys_);
  if (finishes_idle_) {
    owner_->finish_idle();  // those that have been answered meanwhile
  }
  const unsigned count = owner_->connections();
  const Nanoseconds cost = processor_time(*sys_) - began;
  const Nanoseconds ended = now(*sys_);
  if (count == 0 || (ended >= drain_deadline_ && ends_drain())) {
    apply(HolderEvent::drained);
    return;
  }
  look_interval_ = std::min(look_interval_ * 2, longest_look);
  next_look_ = ended + std::clamp(cost * look_cost_factor, look_interval_, longest_interval);
  next_look_ = std::min(next_look_, std::max(drain_deadline_, ended));
  if (ended >= next_report_) {
    log_->info("still finishing {}", what_is_left());
    next_report_ = ended + report_interval;
  }
}

// The time for the drain is over: first for connections that do nothing, and a
// moment later for all. True: for all.
bool Holder::ends_drain() {
  if (finishes_idle_) {
    cut_ = what_is_left();
    return true;
  }
  finishes_idle_ = true;
  log_->info("CONTINUITY_DRAIN_TIMEOUT: {} left; idle ones are told to end", what_is_left());
  owner_->finish_idle();
  drain_deadline_ = after(*sys_, goodbye_time);
  look_interval_ = first_look;
  return false;
}

// "3 connections (one of pid 4711, to 10.0.0.7:5123)"
std::string Holder::what_is_left() {
  const Owner::Holding held = owner_->holding();
  std::string text = compose("{} connection{}", held.count, held.count == 1 ? "" : "s");
  if (held.process != 0) {
    text += compose(" ({} pid {}{}{})", held.count == 1 ? "of" : "one of", held.process,
                    held.peer.empty() ? "" : ", to ", held.peer);
  }
  return text;
}

// Those who waited for us to be claimable are told what we hold now.
void Holder::end_of_own_probation() {
  if (!owns_ || state() != HolderState::active) {
    return;
  }
  // Who watched us will not come back: what we have replaced is nobody's.
  if (has_replaced_files_) {
    has_replaced_files_ = false;
    let_go_of_files();
  }
  for (Conversation& conversation : conversations_) {
    if (conversation.stage == Stage::parked && !conversation.over) {
      send_inventory(conversation);
    }
  }
}

}  // namespace continuity
