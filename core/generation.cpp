#include "core/generation.hpp"

#include "core/wake.hpp"

#include <algorithm>
#include <climits>
#include <csignal>
#include <fcntl.h>
#include <linux/futex.h>
#include <utility>

namespace continuity {
namespace {

// Who has not followed by then is stopped, or hangs. On a busy machine one that runs may well
// need the first second; the successor waits for longer than this (grant_time).
constexpr Nanoseconds prepare_time = second;
constexpr Nanoseconds longest_prepare_time = 3 * second;
constexpr Nanoseconds follow_time = 200 * millisecond;
// Who is asked what it has besides, and does not answer by then, is asked again.
constexpr Nanoseconds late_time = 50 * millisecond;
// For how long a member leaves the processors to those that still have to go deaf.
constexpr Nanoseconds step_aside_time = 50 * millisecond;
// One that dies says nothing: how often it is looked who has died.
constexpr Nanoseconds check_interval = 2 * millisecond;
constexpr Nanoseconds member_look = 50 * millisecond;
constexpr Nanoseconds longest_member_look = 5 * second;
// It can only be given one by another, and is asked before that matters.
constexpr Nanoseconds longest_idle_look = 60 * second;
constexpr Nanoseconds fresh_look = second;
// All together use a hundredth of a processor.
constexpr Nanoseconds look_cost_factor = 100;

std::string peer_of(const Processes::Held& held) {
  return held.peer.is_supported() && !held.peer.is_unix() ? to_string(held.peer) : "";
}

}  // namespace

bool is_agent_alive(const Sys& sys, AgentId agent) {
  return agent.process != 0 && (sys.tgkill(agent.process, agent.thread, 0) == 0 || errno != ESRCH);
}

bool take_turn(const Sys& sys, std::atomic<AgentId>& turn) {
  const AgentId self{.process = sys.getpid(), .thread = sys.gettid()};
  AgentId who = turn.load();
  return who.process == self.process ||
         (!is_agent_alive(sys, who) && turn.compare_exchange_strong(who, self));
}

void note_newcomer(const Sys& sys, Page& page, pid_t process) {
  if (process <= 0) {  // it lives in a namespace that we cannot see
    return;
  }
  for (std::atomic<pid_t>& one : page.newcomers) {
    pid_t who = one.load();
    if ((who == 0 || who == process || !is_running(sys, who)) &&
        one.compare_exchange_strong(who, process)) {
      return;
    }
  }
}

void note_listener_made(const Sys& sys, Page& page, int bell) {
  page.listeners_made.fetch_add(1);
  if (bell >= 0 && static_cast<Stage>(page.stage.load()) != Stage::serving) {
    ring(sys, bell);
  }
}

Generation::Generation(const Sys& sys, Log& log, Page& page, LocalOwner& local, int proc, Ties ties)
    : sys_(&sys), log_(&log), page_(&page), local_(&local), processes_(sys, proc), ties_(ties) {}

// ---- Membership --------------------------------------------------------------------

bool Generation::join() {
  const AgentId self{.process = sys_->getpid(), .thread = sys_->gettid()};
  own_agent_ = self;
  for (std::size_t i = 0; i < page_->members.size(); ++i) {
    Member& member = page_->members[i];
    AgentId owner = member.agent.load();
    if (is_agent_alive(*sys_, owner) || !member.agent.compare_exchange_strong(owner, self)) {
      continue;
    }
    std::uint32_t limit = page_->member_limit.load();
    while (limit < i + 1 &&
           !page_->member_limit.compare_exchange_weak(limit, static_cast<std::uint32_t>(i + 1))) {
    }
    offer_round_ = page_->offer_round.load() & ~1U;  // a round that is under way is its own, too
    // What is read of the one before meanwhile does no harm: this process waits
    // for no work until it has read the page.
    member.connections.store(0);
    member.looked_at.store(0);
    member.failed.store({});
    member.done.store(0);
    self_ = &member;
    for (std::atomic<pid_t>& one : page_->newcomers) {
      pid_t own = self.process;
      if (one.compare_exchange_strong(own, 0)) {
        note_listener_made();  // perhaps before, and nobody could ask for it
      }
    }
    return true;
  }
  return false;
}

void Generation::note_listener_made() {
  continuity::note_listener_made(*sys_, *page_, ties_.bell);
}

// Dead ones are forgotten on the way.
template <typename Visit>
void Generation::for_each_other(Visit visit, bool only_living) const {
  const std::uint32_t limit = page_->member_limit.load();
  for (std::uint32_t i = 0; i < limit; ++i) {
    Member& member = page_->members.at(i);
    AgentId agent = member.agent.load();
    if (agent == AgentId{} || &member == self_) {
      continue;
    }
    if (only_living && !is_agent_alive(*sys_, agent)) {
      // Unless it is somebody else's already.
      if (member.agent.compare_exchange_strong(agent, AgentId{}) || agent == AgentId{}) {
        continue;
      }
    }
    visit(member, agent.process);
  }
}

std::set<pid_t> Generation::members() const {
  std::set<pid_t> all{sys_->getpid()};
  if (const pid_t main = page_->main.load(); main != 0 && is_running(*sys_, main)) {
    all.insert(main);
  }
  for_each_other([&](const Member&, pid_t process) { all.insert(process); });
  return all;
}

bool Generation::is_leader() const {
  return page_->leader.load() == own_agent_;
}

bool Generation::is_at_rest() const {
  return stage_ == Stage::serving && next_look_ == never &&
         page_->stage.load() == static_cast<std::uint32_t>(Stage::serving) &&
         (is_leader() || (page_->sequence.load() == self_->done.load() &&
                          page_->offer_round.load() == offer_round_));
}

bool Generation::is_alone() const {
  bool alone = true;
  for_each_other([&](const Member&, pid_t) { alone = false; });
  return alone;
}

bool Generation::is_deputy() const {
  const AgentId leader = page_->leader.load();
  const std::uint32_t limit = page_->member_limit.load();
  for (std::uint32_t i = 0; i < limit; ++i) {
    const Member& member = page_->members.at(i);
    const AgentId agent = member.agent.load();
    if (&member == self_) {
      return true;
    }
    if (agent != leader && is_agent_alive(*sys_, agent)) {
      return false;
    }
  }
  return false;
}

pid_t Generation::expected_leader() const {
  if (const AgentId leader = page_->leader.load(); is_agent_alive(*sys_, leader)) {
    return leader.process;
  }
  // The process at the top of the tree leads, for it may signal all the others,
  // and is not culled by its own master.
  std::set<pid_t> living;
  pid_t main = 0;
  for_each_other([&](const Member&, pid_t process) {
    living.insert(process);
    if (process == page_->main.load()) {
      main = process;
    }
  });
  if (main != 0) {
    return main;
  }
  const pid_t self = sys_->getpid();
  if (living.empty()) {
    return self;  // without a look at all that are above it, on the way to its READY
  }
  constexpr int deepest = 64;
  pid_t above = self;
  for (int i = 0; i < deepest && above > 1; ++i) {
    above = processes_.parent_of(above);
    if (living.contains(above)) {
      return above;
    }
  }
  return self;
}

bool Generation::try_to_lead() {
  if (is_leader()) {
    return true;
  }
  if (expected_leader() != sys_->getpid()) {
    return false;
  }
  AgentId leader = page_->leader.load();
  return !is_agent_alive(*sys_, leader) &&
         page_->leader.compare_exchange_strong(leader, own_agent_);
}

bool Generation::take_over() {
  if (page_->sequence.load() % 2 != 0) {
    change([] {});  // it has died in the middle of one, which is begun anew
  }
  if (!follow()) {
    return false;
  }
  const auto stage = static_cast<Stage>(page_->stage.load());
  if (stage == Stage::prepared && self_->failed.load().code != 0) {
    abandon();
    return true;
  }
  if (stage == Stage::prepared || stage == Stage::retired) {
    local_->successor_watch()->begin(page_->successor_self.load(), page_->successor_pid.load());
  }
  std::vector<std::uint32_t> shut_out;
  const std::uint32_t count = page_->listener_count.load();
  for (std::uint32_t i = 0; i < count && stage != Stage::serving; ++i) {
    if (const PageListener& one = page_->listeners.at(i); one.shut_out.load() != 0) {
      shut_out.push_back(one.id.load());
    }
  }
  local_->note_shut_out(std::move(shut_out));
  return true;
}

// ---- Following ---------------------------------------------------------------------

Generation::State Generation::read_page() const {
  for (;;) {
    State state{.sequence = page_->sequence.load(),
                .stage = static_cast<Stage>(page_->stage.load()),
                .attempt = page_->attempt.load(),
                .offer_round = page_->offer_round.load(),
                .listeners = {}};
    if (state.sequence % 2 == 0) {
      const std::uint32_t count = page_->listener_count.load();
      for (std::uint32_t i = 0; i < count; ++i) {
        const PageListener& one = page_->listeners.at(i);
        state.listeners.push_back({.inode = one.inode.load(),
                                   .id = one.id.load(),
                                   .claimed = one.claimed.load() != 0,
                                   .before = {.status_flags = one.status_flags.load(),
                                              .backlog = one.backlog.load(),
                                              .reuse_port = one.reuse_port.load()}});
      }
      if (page_->sequence.load() == state.sequence) {
        return state;
      }
    }
    pause_for(*sys_, 20 * microsecond);
  }
}

std::vector<Owner::Item> Generation::named_items(std::span<const Seen> names) {
  std::vector<Item> items;
  for (Item& item : local_->inventory()) {
    const auto named = std::find_if(names.begin(), names.end(),
                                    [&](const Seen& one) { return one.inode == item.inode; });
    if (named != names.end()) {
      item.listener.id = named->id;
      item.before = named->before;  // by now the successor may have changed it
      items.push_back(std::move(item));
    }
  }
  return items;
}

Status Generation::prepare_here(const State& state) {
  auto prepared = local_->prepare(named_items(state.listeners));
  if (prepared) {
    prepared_ = state.listeners.size();
  }
  return prepared;
}

// What has been added to the attempt since. False: for want of memory it cannot go deaf.
bool Generation::prepare_late_here(const State& state) {
  if (state.listeners.size() <= prepared_) {
    return true;
  }
  auto items = named_items(std::span(state.listeners).subspan(prepared_));
  if (!items.empty() && !local_->prepare_late(std::move(items))) {
    return false;
  }
  prepared_ = state.listeners.size();
  return true;
}

// It may have slept through the end of an attempt and the beginning of the next.
void Generation::leave_stale_attempt(const State& state) {
  if (stage_ != Stage::serving && attempt_ != state.attempt) {
    serve_again();
  }
  attempt_ = state.attempt;
}

void Generation::serve_again() {
  if (stage_ == Stage::prepared) {
    local_->abandon();
  } else if (stage_ != Stage::serving) {
    local_->revive();
  }
  stage_ = Stage::serving;
  retired_.clear();
  next_look_ = never;
}

// What has been claimed and is not retired here yet. 0, or the errno of a failure.
int Generation::retire_claimed(const State& state, bool& any) {
  std::vector<std::uint32_t> news;
  for (const Seen& one : state.listeners) {
    if (one.claimed && retired_.insert(one.id).second) {
      news.push_back(one.id);
    }
  }
  any = !news.empty();
  return !any || local_->retire(news, after(*sys_, follow_time)) ? 0 : ETIMEDOUT;
}

void Generation::say_followed(const State& state, int failed) {
  stage_ = state.stage;
  self_->failed.store({.thread = own_agent_.thread, .code = failed});
  self_->done.store(state.sequence);
  page_->done.fetch_add(1);
  sys_->futex(&page_->done, FUTEX_WAKE, INT_MAX, nullptr);
}

// The rest is outside the time in which nobody accepts, and should not make it longer:
// there may be many more processes than processors.
void Generation::step_aside(const State& state) {
  const timespec most = to_timespec(step_aside_time);
  if (const std::uint32_t seen = page_->all_deaf.load(); state.stage == Stage::retired &&
                                                         seen != state.sequence &&
                                                         page_->sequence.load() == state.sequence) {
    sys_->futex(&page_->all_deaf, FUTEX_WAIT, seen, &most);
  }
}

bool Generation::follow() {
  const State state = read_page();
  leave_stale_attempt(state);
  int failed = 0;
  bool retired_any = false;
  if (state.stage == Stage::serving) {
    serve_again();
  } else {
    if (stage_ == Stage::serving) {
      const auto prepared = prepare_here(state);
      if (!prepared && state.stage != Stage::prepared) {
        return false;  // it cannot go deaf: so it must not wait for work
      }
      failed = prepared ? 0 : prepared.error().code;
      if (!prepared) {
        log_->warn("{}: {}; the leader of this generation is told", prepared.error().step,
                   error_text(failed));
      }
    } else if (!prepare_late_here(state)) {
      return false;
    }
    if (state.stage != Stage::prepared) {
      failed = retire_claimed(state, retired_any);
    }
  }
  if (state.offer_round != std::exchange(offer_round_, state.offer_round)) {
    if (state.offer_round % 2 == 1) {
      offer_own(state);
    } else if (state.stage != Stage::serving) {
      note_listener_made();  // it was asked, and has slept through it
    }
  }
  const bool forgets = state.stage >= Stage::forgotten && stage_ < Stage::forgotten;
  const bool finishes = state.stage == Stage::finishing && stage_ != Stage::finishing;
  say_followed(state, failed);
  if (retired_any) {
    step_aside(state);
    local_->sweep();
  }
  // Also what is closed, or handed over, after the rest has been forgotten.
  if (forgets || (retired_any && state.stage >= Stage::forgotten)) {
    local_->forget_listeners();
  }
  if (forgets || finishes) {
    next_look_ = now(*sys_);
  }
  return true;
}

Nanoseconds Generation::look() {
  const Nanoseconds time = now(*sys_);
  const bool is_asked = next_look_ != never && self_->looked_at.load() < page_->look_asked.load();
  if (time >= next_look_ || is_asked) {
    const Nanoseconds began = processor_time(*sys_);
    if (stage_ == Stage::finishing) {
      local_->finish_idle();
    }
    const unsigned connections = local_->connections();
    self_->connections.store(connections);
    self_->looked_at.store(time);
    const Nanoseconds cost = (processor_time(*sys_) - began) * page_->member_limit.load();
    next_look_ = now(*sys_) + std::clamp(cost * look_cost_factor, member_look,
                                         connections > 0 ? longest_member_look : longest_idle_look);
  }
  return next_look_;
}

// ---- Leading -----------------------------------------------------------------------

template <typename Change>
void Generation::change(Change change) {
  // Odd already where the one that led before has died in the middle of it.
  const std::uint32_t begun = page_->sequence.load() | 1U;
  page_->sequence.store(begun);
  change();
  page_->sequence.store(begun + 1);
  ring();
}

void Generation::ring() {
  if (ties_.bell >= 0) {
    continuity::ring(*sys_, ties_.bell);
  }
}

bool Generation::await_others(Nanoseconds deadline, Error* failure, const Asking* asking,
                              Nanoseconds longest) {
  const std::uint32_t wanted = page_->sequence.load();
  Nanoseconds next_check = 0;
  const Nanoseconds awake_until = now(*sys_) + soon;
  for (;;) {
    const Nanoseconds time = now(*sys_);
    // Not at every answer: a thousand would each have a thousand looked at.
    const bool checks = time >= std::min(next_check, deadline);
    if (checks) {
      next_check = time + check_interval;
    }
    const std::uint32_t seen = page_->done.load();
    std::vector<pid_t> missing;
    // Before the members: who has joined meanwhile is one of them.
    if (const pid_t expected = asking != nullptr && !asking->late ? newcomer() : 0; expected != 0) {
      missing.push_back(expected);
    }
    for_each_other(
        [&](const Member& member, pid_t process) {
          const Failure failed = member.failed.load();
          if (member.done.load() != wanted) {
            missing.push_back(process);
          } else if (failed.code != 0 && failed.thread == member.agent.load().thread &&
                     failure != nullptr && !processes_.is_ending(process)) {
            *failure = Error{"get ready to hand over in another process", failed.code};
          }
        },
        checks);
    if (missing.empty()) {
      return true;
    }
    if (time >= deadline && asking != nullptr && asking->late) {
      return false;
    }
    const auto is_at_work = [&](pid_t process) { return processes_.is_at_work(process); };
    if (time >= deadline && deadline < longest &&
        std::all_of(missing.begin(), missing.end(), is_at_work)) {
      deadline = longest;
    }
    if (time >= deadline) {
      log_->warn("pid {} of this generation does not answer (stopped?){}", missing.front(),
                 missing.size() > 1 ? compose(", nor do {} others", missing.size() - 1) : "");
      return false;
    }
    if (asking != nullptr) {
      take_offers(*asking);  // or there is no room for more
    }
    if (look_for(*sys_, awake_until - time, [&] { return page_->done.load() != seen; })) {
      continue;
    }
    const timespec pause = to_timespec(std::min(deadline, next_check) - time);
    sys_->futex(&page_->done, FUTEX_WAIT, seen, &pause);
  }
}

// Listeners that only others have (a worker that binds its own member of a group)
// are handed to the leader for the time of an attempt: a copy that outlived the
// program's own would keep a queue that nobody serves.
std::vector<Owner::Item> Generation::inventory() {
  auto items = local_->inventory();
  if ((page_->private_listeners.load() > 0 || newcomer() != 0) &&
      static_cast<Stage>(page_->stage.load()) == Stage::serving) {
    // Conversations under way have been told of what was offered before.
    for (const Offered& one : offered_) {
      items.push_back({.listener = one.listener, .fd = one.fd.get(), .inode = one.inode});
    }
    ask_for_offers(items);
    const Asking asking{.items = &items, .kept = &offered_, .late = false};
    await_others(after(*sys_, follow_time), nullptr, &asking);
    page_->offer_round.fetch_add(1);
    take_offers(asking);
    // In one order whoever offers first: each conversation numbers them anew.
    std::sort(items.begin(), items.end(),
              [](const Item& one, const Item& other) { return one.inode < other.inode; });
  }
  return items;
}

// During an attempt the page names what belongs to that, and is added to only.
std::vector<Owner::Item> Generation::late_listeners(bool& all) {
  std::vector<Item> items;
  for (const Seen& one : read_page().listeners) {
    items.push_back({.inode = one.inode});
  }
  const auto first = static_cast<std::ptrdiff_t>(items.size());
  for (Item& own : local_->inventory()) {
    const bool known = std::any_of(items.begin(), items.begin() + first,
                                   [&](const Item& item) { return item.inode == own.inode; });
    if (!known) {
      items.push_back(std::move(own));
    }
  }
  all = true;
  if (page_->private_listeners.load() > 0) {
    change([&] { page_->offer_round.store(page_->offer_round.load() | 1U); });
    late_.clear();
    const Asking asking{.items = &items, .kept = &late_, .late = true};
    all = await_others(after(*sys_, late_time), nullptr, &asking);
    page_->offer_round.fetch_add(1);
    take_offers(asking);
  }
  all = all && newcomer() == 0;  // who says so when it has joined
  items.erase(items.begin(), items.begin() + first);
  return items;
}

Status Generation::prepare_late(std::vector<Item> items) {
  const auto kept = std::exchange(late_, {});  // for as long as this takes
  if (items.empty()) {
    return Done{};
  }
  const std::uint32_t first = page_->listener_count.load();
  if (items.size() > page_->listeners.size() - first) {
    return Error{"note the listeners", E2BIG};
  }
  if (auto prepared = local_->prepare_late(items); !prepared) {
    return prepared;
  }
  const auto prepared = local_->prepared_items();
  const std::size_t earlier = prepared.size() - items.size();
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i].before = prepared[earlier + i].before;
  }
  change([&] {
    std::uint32_t count = first;
    for (const Item& item : items) {
      note_item(page_->listeners.at(count++), item);
    }
    page_->listener_count.store(count);
  });
  await_others(after(*sys_, follow_time));
  return Done{};
}

// What the leader has itself stands in the page; the others offer the rest.
void Generation::ask_for_offers(const std::vector<Item>& items) {
  change([&] {
    std::uint32_t count = 0;
    for (const Item& item : items) {
      if (count < page_->listeners.size()) {
        page_->listeners.at(count++).inode.store(item.inode);
      }
    }
    page_->listener_count.store(count);
    page_->offer_round.store(page_->offer_round.load() | 1U);  // or one has died in the middle
  });
}

void Generation::take_offers(const Asking& asking) {
  std::vector<Item>& items = *asking.items;
  Channel channel = channel_of(ties_.offers);
  for (;;) {
    auto received = channel.receive(0);
    if (!received) {
      return;
    }
    for (std::size_t i = 0; i < received->fds.size() && i < received->message.listeners.size();
         ++i) {
      OwnedFd& fd = received->fds[i];
      const std::uint64_t inode = socket_inode(*sys_, fd.get());
      const bool known = std::any_of(items.begin(), items.end(),
                                     [&](const Item& item) { return item.inode == inode; });
      auto listener = describe_socket(*sys_, fd.get());
      if (known || !listener || !receives_work(*sys_, fd.get())) {
        continue;
      }
      listener->file = received->message.listeners[i].file;
      items.push_back({.listener = *listener, .fd = fd.get(), .inode = inode});
      asking.kept->push_back(
          {.listener = std::move(*listener), .inode = inode, .fd = std::move(fd)});
    }
  }
}

void Generation::offer_own(const State& state) {
  Channel channel = channel_of(ties_.offering);
  for (Item& item : local_->inventory()) {
    const bool known = std::any_of(state.listeners.begin(), state.listeners.end(),
                                   [&](const Seen& one) { return one.inode == item.inode; });
    if (known) {
      continue;
    }
    Message offer{.type = MessageType::grant};
    offer.listeners.push_back(item.listener);
    const int fd = item.fd;
    if (const auto sent = channel.send(offer, {&fd, 1}, after(*sys_, follow_time)); !sent) {
      log_->debug("{}: {}", sent.error().step, error_text(sent.error().code));
    }
  }
}

// A copy that outlived the program's own would keep a queue that nobody serves.
void Generation::take_leave() {
  if (!offered_.empty() && static_cast<Stage>(page_->stage.load()) == Stage::serving) {
    offered_.clear();
  }
}

// What it was forked from may be about to end, and leave it to us as its parent.
std::set<pid_t> Generation::successors() const {
  return {page_->successor_pid.load(), page_->successor_self.load()};
}

// The successor may be a child of ours, or of one of our children: then it, what
// it was forked from and all below that are not ours.
void Generation::meet(pid_t successor) {
  page_->successor_self.store(successor);
  const pid_t known = page_->successor_pid.load();
  const bool is_of_known = successor != 0 && known != 0 && is_running(*sys_, known) &&
                           (successor == known || processes_.is_below(successor, {known}));
  pid_t elder = known;
  if (!is_of_known) {
    elder = successor == 0 ? 0 : processes_.topmost(successor);
    // Without random addresses a process and the same program, started by it,
    // cannot be told apart.
    if (elder != successor && (elder == main_process() || members().contains(elder))) {
      elder = successor;
    }
    page_->successor_pid.store(elder);
  }
  local_->successor_watch()->begin(successor, elder);
}

bool Generation::is_forked(pid_t process) {
  const pid_t self = sys_->getpid();
  return process > 0 && process != self && processes_.are_same_image(process, self);
}

bool Generation::is_kin(pid_t process, bool fresh) {
  const pid_t self = sys_->getpid();
  return process > 0 && process != self && !fresh &&
         (processes_.are_same_image(process, self) || processes_.is_below(process, members()));
}

bool Generation::is_outlived(pid_t process) {
  const std::uint32_t count = std::min(page_->outlived_count.load(), std::uint32_t{max_outlived});
  for (std::uint32_t i = 0; i < count; ++i) {
    const Outlived& one = page_->outlived.at(i);
    if (one.process.load() == process && one.started.load() == processes_.start_time(process)) {
      return true;
    }
  }
  return false;
}

bool Generation::holds(std::span<const std::uint64_t> inodes) {
  const auto among = [&](std::uint64_t inode) {
    return std::find(inodes.begin(), inodes.end(), inode) != inodes.end();
  };
  const std::uint32_t count = page_->listener_count.load();
  for (std::uint32_t i = 0; i < count; ++i) {
    if (among(page_->listeners.at(i).inode.load())) {
      return true;
    }
  }
  return local_->holds(inodes);
}

void Generation::expect(pid_t process) {
  note_newcomer(*sys_, *page_, process);
  note_listener_made();
}

// One that lives, and has not joined yet. 0: none.
pid_t Generation::newcomer() const {
  for (const std::atomic<pid_t>& one : page_->newcomers) {
    if (const pid_t who = one.load(); who != 0 && is_running(*sys_, who)) {
      return who;
    }
  }
  return 0;
}

std::vector<int> Generation::ties() {
  return {ties_.page, ties_.bell, ties_.offers, ties_.offering, ties_.door};
}

// Who holds a listener without our being there would go on accepting. 0: nobody.
pid_t Generation::find_stranger(std::span<const std::uint64_t> inodes) const {
  const auto holders = processes_.find_holders(inodes, members(), successors());
  // Whatever it is called here: a file of that name.
  const std::string library =
      holders.empty() ? "" : processes_.file_at(reinterpret_cast<std::uintptr_t>(&is_agent_alive));
  for (const pid_t holder : holders) {
    // What a process has mapped goes before what it has open.
    if (processes_.are_same_image(holder, sys_->getpid()) || processes_.is_ending(holder)) {
      continue;
    }
    // It joins us before it waits for work, if it can come to our door.
    const bool reachable = !library.empty() && processes_.has_mapped(holder, library) &&
                           processes_.user_of(holder).value_or(sys_->geteuid()) == sys_->geteuid();
    if (!reachable) {
      return holder;
    }
  }
  return 0;
}

// A worker that waits by a ring only has called nothing that would have made it a member.
Status Generation::find_ring_workers(std::span<const std::uint64_t> inodes, bool datagrams) const {
  const auto known = members();
  const auto holders = processes_.find_holders(inodes, known, successors());
  if (holders.empty()) {
    return Done{};
  }
  // Who asks for one connection at a time has just been given one, perhaps.
  constexpr int most_looks = 10;
  constexpr Nanoseconds between = 200 * microsecond;
  const auto rings = processes_.rings_of(known);
  const auto waits = [&](pid_t holder) {
    const auto own = processes_.rings_of({holder});
    const bool has_any = std::any_of(own.begin(), own.end(),
                                     [&](std::uint64_t ring) { return !rings.contains(ring); });
    for (int look = 0; has_any && look < most_looks; ++look) {
      if (processes_.waits_by_ring(holder, rings, datagrams)) {
        return true;
      }
      pause_for(*sys_, between);
    }
    return false;
  };
  for (const pid_t holder : holders) {
    if (waits(holder)) {
      log_->error(
          "pid {} waits by io_uring and calls nothing else, so that it cannot be told; while it "
          "runs, no restart is possible",
          holder);
      return Error{"reach every process that accepts", ENOTSUP};
    }
  }
  return Done{};
}

// A child that is about to execute another program has the listener when it is
// looked at first, and nothing mapped a moment later: whoever is a stranger is so
// for a while.
Status Generation::find_strangers(std::span<const Item> items) const {
  constexpr int looks = 10;
  constexpr Nanoseconds between = 5 * millisecond;
  std::vector<std::uint64_t> inodes;
  bool datagrams = false;
  for (const Item& item : items) {
    inodes.push_back(item.inode);
    datagrams = datagrams || item.listener.is_datagram();
  }
  pid_t stranger = 0;
  pid_t before = 0;
  for (int i = 0, seen = 0; seen < looks && i < looks * looks; ++i) {
    stranger = find_stranger(inodes);
    if (stranger == 0) {
      return find_ring_workers(inodes, datagrams);
    }
    seen = stranger == before ? seen + 1 : 0;  // another may be seen each time
    before = stranger;
    pause_for(*sys_, between);
  }
  log_->error(
      "pid {} has a listener of ours and runs without this library, or as another user, so "
      "that it cannot be told; while it runs, no restart is possible",
      stranger);
  return Error{"reach every process that has the listener", ENOTSUP};
}

void Generation::note_item(PageListener& entry, const Item& item) {
  entry.inode.store(item.inode);
  entry.id.store(item.listener.id);
  entry.claimed.store(0);
  entry.shut_out.store(0);
  const auto before = item.before.value_or(Retirement::SharedState{});
  entry.status_flags.store(before.status_flags);
  entry.backlog.store(before.backlog);
  entry.reuse_port.store(before.reuse_port);
}

Status Generation::prepare(std::vector<Item> items) {
  if (items.size() > page_->listeners.size()) {
    return Error{"note the listeners", E2BIG};
  }
  if (auto reached = find_strangers(items); !reached) {
    return reached;
  }
  if (auto prepared = local_->prepare(items); !prepared) {
    return prepared;
  }
  stage_ = Stage::prepared;
  const auto prepared = local_->prepared_items();
  change([&] {
    std::uint32_t count = 0;
    for (const Item& item : items) {
      // In the same order, where the owner keeps any.
      Item noted = item;
      noted.before = count < prepared.size() ? prepared[count].before : std::nullopt;
      note_item(page_->listeners.at(count++), noted);
    }
    page_->listener_count.store(count);
    page_->watch_ends.store(0);
    page_->attempt.fetch_add(1);
    page_->stage.store(static_cast<std::uint32_t>(Stage::prepared));
  });
  Error failure{"", 0};
  if (!await_others(after(*sys_, prepare_time), &failure, nullptr,
                    after(*sys_, longest_prepare_time))) {
    failure = Error{"reach every process of this generation", ETIMEDOUT};
  }
  if (failure.code != 0) {
    abandon();
    return failure;
  }
  return Done{};
}

void Generation::abandon() {
  change([&] { page_->stage.store(static_cast<std::uint32_t>(Stage::serving)); });
  stage_ = Stage::serving;
  local_->abandon();
  offered_.clear();
}

int Generation::descriptor(std::uint32_t id) {
  return local_->descriptor(id);
}

template <typename Visit>
void Generation::for_each_listener(std::span<const std::uint32_t> ids, Visit visit) {
  const std::set<std::uint32_t> wanted(ids.begin(), ids.end());
  const std::uint32_t count = page_->listener_count.load();
  for (std::uint32_t i = 0; i < count; ++i) {
    if (PageListener& one = page_->listeners.at(i); wanted.contains(one.id.load())) {
      visit(one);
    }
  }
}

bool Generation::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  change([&] {
    for_each_listener(ids, [](PageListener& one) { one.claimed.store(1); });
    if (static_cast<Stage>(page_->stage.load()) == Stage::prepared) {
      page_->stage.store(static_cast<std::uint32_t>(Stage::retired));
    }
  });
  stage_ = static_cast<Stage>(page_->stage.load());
  const bool clear = local_->retire(ids, deadline);
  Error failure{"", 0};
  return await_others(deadline, &failure) && failure.code == 0 && clear;
}

void Generation::sweep() {
  page_->all_deaf.store(page_->sequence.load());
  sys_->futex(&page_->all_deaf, FUTEX_WAKE, INT_MAX, nullptr);
  local_->sweep();
}

void Generation::revive() {
  change([&] { page_->stage.store(static_cast<std::uint32_t>(Stage::serving)); });
  stage_ = Stage::serving;
  local_->revive();
  offered_.clear();
  await_others(after(*sys_, follow_time));
}

void Generation::forget_listeners() {
  change([&] { page_->stage.store(static_cast<std::uint32_t>(Stage::forgotten)); });
  stage_ = Stage::forgotten;
  offered_.clear();
  local_->forget_listeners();
  await_others(after(*sys_, follow_time));
}

unsigned Generation::connections() {
  const Nanoseconds time = now(*sys_);
  Nanoseconds oldest = time;
  unsigned count = local_->connections();
  for_each_other([&](const Member& member, pid_t) {
    // Who has not looked yet may have some.
    const Nanoseconds looked_at = member.looked_at.load();
    count += looked_at == 0 ? 1 : member.connections.load();
    oldest = std::min(oldest, looked_at);
  });
  if (count == 0) {
    // Who had none a while ago may have been given one since.
    const Nanoseconds asked = page_->look_asked.load();
    if (oldest < (asked != 0 ? asked : time - fresh_look)) {
      if (asked == 0) {
        page_->look_asked.store(time);
        ring();
      }
      return 1;
    }
    // Children that were handed one, and wait for nothing themselves.
    if (!processes_.still_holds(held_elsewhere_)) {
      held_elsewhere_ = find_in_children();
    }
    count = held_elsewhere_.count;
  }
  if (count > 0) {
    page_->look_asked.store(0);  // what is seen now grows old
  }
  return count;
}

Processes::Held Generation::find_in_children() const {
  const auto addresses = local_->retired_addresses();
  return processes_.find_connections(addresses, members(), successors());
}

// Children that are no members know nothing of it.
void Generation::finish_idle() {
  if (stage_ != Stage::finishing) {
    change([&] { page_->stage.store(static_cast<std::uint32_t>(Stage::finishing)); });
    stage_ = Stage::finishing;
  }
  local_->finish_idle();
}

Owner::Holding Generation::holding() {
  Holding held = local_->holding();
  pid_t other = 0;
  for_each_other([&](const Member& member, pid_t process) {
    const unsigned count = member.connections.load();
    held.count += count;
    other = count > 0 ? process : other;
  });
  const Processes::Held below = find_in_children();
  held.count += below.count;
  if (held.peer.empty() && other != 0) {
    held.process = other;
    const auto addresses = local_->retired_addresses();
    held.peer = peer_of(processes_.find_connections_of(other, addresses));
  } else if (held.peer.empty() && below.count > 0) {
    held.process = below.process;
    held.peer = peer_of(below);
  }
  return held;
}

bool Generation::is_scattered() {
  return page_->private_listeners.load() > 0;
}

// Before it is done: what has not been closed yet can be opened all the same.
void Generation::note_shut_out(std::span<const std::uint32_t> ids) {
  for_each_listener(ids, [](PageListener& one) { one.shut_out.store(1); });
}

void Generation::shut_out(std::span<const std::uint32_t> ids) {
  note_shut_out(ids);
  local_->shut_out(ids);
}

void Generation::note_probation(Nanoseconds until) {
  page_->watch_ends.store(until);
}

void Generation::note_drain(Nanoseconds until) {
  page_->drain_ends.store(until);
}

Channel Generation::channel_of(int tie) const {
  return {*sys_, OwnedFd(*sys_, sys_->fcntl(tie, F_DUPFD_CLOEXEC, 0))};
}

// The new comes before the old goes: of two that are whole the later one counts. All or
// nothing: half an attempt would hold its channels open, and go on with none of them.
void Generation::keep(std::vector<Kept> attempt) {
  if (attempt.empty() && kept_ == 0) {
    return;
  }
  Channel place = channel_of(ties_.offers);
  Channel out = channel_of(ties_.offering);
  unsigned obsolete = std::exchange(kept_, 0);
  for (Kept& one : attempt) {
    one.note.more = &one != &attempt.back();
    const auto fds = std::span(&one.channel, one.channel < 0 ? 0 : 1);
    if (const auto sent = place.send(one.note, fds, 0); !sent) {
      log_->debug("{}: {}; whoever leads after us cannot go on with this attempt",
                  sent.error().step, error_text(sent.error().code));
      obsolete += std::exchange(kept_, 0);
      break;
    }
    ++kept_;
  }
  for (; obsolete > 0; --obsolete) {
    out.drop();
  }
}

std::vector<Received> Generation::kept() {
  Channel out = channel_of(ties_.offering);
  std::vector<Received> whole;
  std::vector<Received> part;
  for (;;) {
    auto received = out.receive(0);
    if (!received) {
      return whole;
    }
    const bool more = received->message.more;
    part.push_back(std::move(*received));
    if (!more) {
      whole = std::exchange(part, {});
    }
  }
}

// What only others have is known by its number.
std::vector<Owner::Prepared> Generation::prepared() {
  const auto own = local_->prepared_items();
  std::vector<Prepared> all;
  for (const Seen& seen : read_page().listeners) {
    const auto found = std::find_if(own.begin(), own.end(),
                                    [&](const Item& item) { return item.listener.id == seen.id; });
    Prepared one{.item = found == own.end() ? Item{.inode = seen.inode} : *found,
                 .retired = seen.claimed};
    one.item.listener.id = seen.id;
    all.push_back(std::move(one));
  }
  return all;
}

void Generation::close_listeners(std::span<const std::uint32_t> ids) {
  note_shut_out(ids);
  local_->serve_dry(ids);
  retire(ids, after(*sys_, follow_time));
  local_->end_listeners(ids);
}

std::vector<pid_t> Generation::processes() {
  const auto all = members();
  return {all.begin(), all.end()};
}

pid_t Generation::main_process() const {
  const pid_t main = page_->main.load();
  return processes_.topmost(main != 0 && is_running(*sys_, main) ? main : sys_->getpid());
}

std::vector<std::string> Generation::program_names() {
  return processes_.names_of(main_process());
}

void Generation::send_signal(int signal) {
  const pid_t main = main_process();
  if (sys_->kill(main, signal) != 0) {
    log_->warn("pid {} cannot be sent {}: {}", main, signal_name(signal), error_text(errno));
  }
}

// SIGKILL reaches the main process alone by itself: without it nobody tells the others.
void Generation::stop(int signal) {
  if (signal == SIGKILL) {
    for_each_other([&](const Member&, pid_t process) { sys_->kill(process, signal); });
  }
  told_to_stop_ = main_process();
  send_signal(signal);
}

void Generation::stop_next(int signal) {
  if (main_process() != told_to_stop_) {
    stop(signal);
  }
}

void Generation::name_successor() {
  if (const pid_t main = page_->successor_pid.load(); main != 0 && is_running(*sys_, main)) {
    local_->name_main_process(main);
  }
}

void Generation::withdraw() {
  local_->withdraw();
}

}  // namespace continuity
