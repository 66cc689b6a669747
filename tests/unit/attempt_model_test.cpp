// All machines together, as a model: a predecessor, and a successor of two
// processes that claim a listener each in conversations of their own; the
// messages between them, every order of sending, receiving, dying, the
// predecessor's being stopped and running out of time. All reachable states
// are visited. One process with two conversations is the same with fewer ways
// to die, and one that is stopped is one that takes no step.
//
// What the machines decide comes from attempt.hpp; what the rest here stands
// for (a message that was sent before a death is still read; a closed channel
// is noticed after what it holds; whoever wakes up reads before it looks at
// its clock) is what Holder and Taker promise.
#include "core/attempt.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

namespace continuity::test {
namespace {

using Letters = std::string;  // messages under way: C claim, R ready, D retired, A abort, G goodbye

constexpr std::size_t members = 2;

// A process of the successor's, its listener and its conversation.
struct Member {
  TakerPhase phase = TakerPhase::starting;
  bool alive = true;
  bool claimed = false;     // has said so
  bool channel = false;     // the predecessor's end of it is open
  bool in_attempt = false;  // has been granted
  bool deaf = false;        // the predecessor does not accept from this listener
  bool deliberate = false;  // ended on purpose
  Letters to_holder{};
  Letters to_taker{};

  [[nodiscard]] bool accepts() const { return alive && phase == TakerPhase::active; }
};

struct State {
  HolderPhase holder = HolderPhase::active;
  bool holder_alive = true;
  bool holder_stopped = false;
  std::array<Member, members> all{};

  [[nodiscard]] std::string key() const {
    std::string text{static_cast<char>('0' + static_cast<int>(holder)), holder_alive ? '+' : '-',
                     holder_stopped ? 's' : ' '};
    for (const Member& one : all) {
      text += static_cast<char>('0' + static_cast<int>(one.phase));
      for (const bool flag :
           {one.alive, one.claimed, one.channel, one.in_attempt, one.deaf, one.deliberate}) {
        text += flag ? '1' : '0';
      }
      text += one.to_holder + '/' + one.to_taker + ' ';
    }
    return text;
  }
  // Deaf means deaf: retiring is finished before RETIRED is sent.
  [[nodiscard]] bool holder_accepts(std::size_t i) const { return holder_alive && !all[i].deaf; }
  [[nodiscard]] bool has_attempt() const {
    return std::any_of(all.begin(), all.end(), [](const Member& one) { return one.in_attempt; });
  }
  [[nodiscard]] bool is_over() const {
    return holder == HolderPhase::draining || holder == HolderPhase::leaving;
  }
};

void hang_up(Member& member) {
  member.channel = member.in_attempt = false;
}

void let_go(State& state, HolderAction action) {
  for (Member& one : state.all) {
    const bool ready = one.in_attempt && one.deaf;
    if (action == HolderAction::abort && one.in_attempt) {
      one.to_taker += 'A';
      hang_up(one);
    }
    if (action == HolderAction::succeed && ready) {
      hang_up(one);  // HEALTHY
    }
    // Nobody claimed it, and its time is over.
    one.deaf = (one.deaf || action == HolderAction::leave) && action != HolderAction::revive;
  }
}

void feed(State& state, HolderEvent event, Member* who = nullptr) {
  const HolderStep next = step(state.holder, event);
  state.holder = next.next;
  switch (next.action) {
    case HolderAction::grant:
      who->in_attempt = true;
      break;
    case HolderAction::refuse:
      who->to_taker += 'A';
      hang_up(*who);
      break;
    case HolderAction::retire:
      who->deaf = true;
      who->to_taker += 'D';
      break;
    case HolderAction::hand_over:
      who->deaf = true;
      who->to_taker += 'D';
      hang_up(*who);
      break;
    default:
      let_go(state, next.action);
      break;
  }
}

void feed(const State& state, Member& member, TakerEvent event) {
  const TakerStep next = step(member.phase, event);
  member.phase = next.next;
  if (next.action == TakerAction::ask && state.holder_alive && member.channel) {
    member.to_holder += 'R';
  }
  if (next.action == TakerAction::give_up) {
    member.alive = false;
  }
}

char take_letter(Letters& letters) {
  const char letter = letters.front();
  letters.erase(0, 1);
  return letter;
}

void hear_channel_end(State& state, Member& member, HolderEvent event) {
  const bool was_attempt = member.in_attempt;
  hang_up(member);
  if (was_attempt) {
    feed(state, state.has_attempt() ? HolderEvent::part : event);
  }
}

void hear_letter(State& state, Member& member) {
  switch (take_letter(member.to_holder)) {
    case 'C':
      feed(state, state.holder == HolderPhase::active ? HolderEvent::claim : HolderEvent::join,
           &member);
      break;
    case 'R':
      if (member.in_attempt) {
        feed(state, HolderEvent::ready, &member);
      }
      break;
    default:
      hear_channel_end(state, member, HolderEvent::goodbye);
      break;
  }
}

using States = std::vector<State>;

template <typename Change>
void add(States& all, State state, Change change) {
  change(state);
  all.push_back(state);
}

// It claims, waits for work, hears an answer, or ends on purpose.
void add_taker_steps(const State& state, std::size_t i, States& all) {
  const Member& member = state.all[i];
  if (!member.claimed && state.holder_alive) {
    add(all, state, [i](State& s) {
      s.all[i].claimed = s.all[i].channel = true;
      s.all[i].to_holder += 'C';
    });
  }
  if (member.claimed && member.phase == TakerPhase::starting) {
    add(all, state, [i](State& s) { feed(s, s.all[i], TakerEvent::wait); });
  }
  if (member.claimed) {
    add(all, state, [i](State& s) {
      s.all[i].to_holder += s.holder_alive && s.all[i].channel ? "G" : "";
      s.all[i].alive = false;
      s.all[i].deliberate = true;
    });
  }
  if (member.phase != TakerPhase::asking) {
    return;
  }
  add(all, state, [i](State& s) {
    Member& one = s.all[i];
    if (!one.to_taker.empty()) {
      feed(s, one, take_letter(one.to_taker) == 'D' ? TakerEvent::retired : TakerEvent::aborted);
    } else if (!s.holder_alive) {
      feed(s, one, TakerEvent::gone);
    } else {
      // Closed, though it lives; or no answer in time.
      feed(s, one, one.channel ? TakerEvent::silent : TakerEvent::aborted);
    }
  });
}

// Who has read everything looks at the clock.
void add_time(const State& state, States& all) {
  // What a process has claimed and has not taken over keeps the predecessor.
  const bool kept = std::any_of(state.all.begin(), state.all.end(),
                                [](const Member& one) { return one.in_attempt && !one.deaf; });
  switch (state.holder) {
    case HolderPhase::granted:
      add(all, state, [](State& s) { feed(s, HolderEvent::ready_timeout); });
      break;
    case HolderPhase::probation:
      add(all, state, [](State& s) { feed(s, HolderEvent::probation_over); });
      break;
    case HolderPhase::draining:
      if (!kept) {
        add(all, state, [](State& s) { feed(s, HolderEvent::drained); });
      }
      break;
    default:
      break;
  }
}

// It reads what there is, the end of a channel last.
void add_holder_steps(const State& state, States& all) {
  if (state.holder == HolderPhase::leaving) {
    add(all, state, [](State& s) { s.holder_alive = false; });
  }
  bool quiet = true;
  for (std::size_t i = 0; i < members; ++i) {
    const Member& one = state.all[i];
    if (one.channel && !one.to_holder.empty()) {
      quiet = false;
      add(all, state, [i](State& s) { hear_letter(s, s.all[i]); });
    } else if (one.channel && !one.alive) {
      quiet = false;
      add(all, state, [i](State& s) { hear_channel_end(s, s.all[i], HolderEvent::gone); });
    }
  }
  if (quiet) {
    add_time(state, all);
  }
}

// Everything that can happen next.
States successors_of(const State& state) {
  States all;
  for (std::size_t i = 0; i < members; ++i) {
    if (state.all[i].alive) {
      add_taker_steps(state, i, all);
      add(all, state, [i](State& s) { s.all[i].alive = false; });
    }
  }
  if (state.holder_alive && !state.holder_stopped) {
    add_holder_steps(state, all);
  }
  if (state.holder_alive) {
    add(all, state, [](State& s) { s.holder_alive = false; });
    add(all, state, [](State& s) { s.holder_stopped = !s.holder_stopped; });
  }
  return all;
}

struct Graph {
  std::vector<State> states;
  std::vector<std::vector<std::size_t>> next;  // by the number of a state
};

Graph explore() {
  Graph graph;
  std::unordered_map<std::string, std::size_t> known;
  const auto number_of = [&](const State& state) {
    const auto [place, is_new] = known.try_emplace(state.key(), graph.states.size());
    if (is_new) {
      graph.states.push_back(state);
    }
    return place->second;
  };
  number_of(State{});
  for (std::size_t i = 0; i < graph.states.size(); ++i) {
    std::vector<std::size_t> next;
    for (const State& to : successors_of(State(graph.states[i]))) {
      next.push_back(number_of(to));
    }
    graph.next.push_back(std::move(next));
  }
  return graph;
}

const Graph& reachable() {
  static const Graph graph = explore();
  return graph;
}

template <typename Check>
void for_each_step(Check check) {
  const Graph& graph = reachable();
  for (std::size_t i = 0; i < graph.states.size(); ++i) {
    for (const std::size_t to : graph.next[i]) {
      check(graph.states[i], graph.states[to]);
    }
  }
}

// Where nobody dies or is stopped any more, and whoever was stopped goes on.
bool is_undisturbed(const State& from, const State& to) {
  bool killed = from.holder_alive && !to.holder_alive && from.holder != HolderPhase::leaving;
  for (std::size_t i = 0; i < members; ++i) {
    killed |= from.all[i].alive && !to.all[i].alive && to.all[i].phase != TakerPhase::ended;
  }
  return !killed && (from.holder_stopped || !to.holder_stopped);
}

// Whether nobody need accept from a listener any more, or somebody does.
bool is_good(const State& state, std::size_t i) {
  const Member& one = state.all[i];
  if (state.holder_accepts(i) || one.accepts()) {
    return true;
  }
  if (!state.holder_alive) {
    return !one.alive || !one.claimed;  // nobody to claim from: it binds itself
  }
  // A process that ended on purpose, or after its probation, leaves nobody, and
  // what it does not claim is served to its end. One that died while another of
  // its generation lives has left its listener to that generation.
  const bool attempt_lives =
      std::any_of(state.all.begin(), state.all.end(),
                  [](const Member& other) { return other.alive && other.in_attempt; });
  return (!one.alive && (one.deliberate || state.is_over() || attempt_lives)) ||
         (state.is_over() && !one.claimed) ||
         state.holder == HolderPhase::leaving;  // claimed too late: refused
}

}  // namespace

TEST_CASE("in no order of events do both accept", "[attempt][model]") {
  CHECK(reachable().states.size() > 10'000);
  for (const State& state : reachable().states) {
    for (std::size_t i = 0; i < members; ++i) {
      if (state.holder_accepts(i) && state.all[i].accepts()) {
        FAIL(state.key());
      }
    }
  }
}

TEST_CASE("from every state in which somebody lives, somebody comes to accept",
          "[attempt][model]") {
  const Graph& graph = reachable();
  const auto listener = GENERATE(range(std::size_t{0}, members));
  // Backwards from the states that are good as they are.
  std::vector<std::vector<std::size_t>> before(graph.states.size());
  std::deque<std::size_t> open;
  std::vector<bool> good(graph.states.size());
  for (std::size_t i = 0; i < graph.states.size(); ++i) {
    for (const std::size_t to : graph.next[i]) {
      if (is_undisturbed(graph.states[i], graph.states[to])) {
        before[to].push_back(i);
      }
    }
    if (is_good(graph.states[i], listener)) {
      open.push_back(i);
    }
  }
  while (!open.empty()) {
    const std::size_t state = open.front();
    open.pop_front();
    if (!good[state]) {
      good[state] = true;
      open.insert(open.end(), before[state].begin(), before[state].end());
    }
  }
  for (std::size_t i = 0; i < graph.states.size(); ++i) {
    if (!good[i]) {
      FAIL(graph.states[i].key());
    }
  }
}

TEST_CASE("a successor that dies in its probation leaves a predecessor that accepts again",
          "[attempt][model]") {
  int seen = 0;
  for_each_step([&](const State& state, const State& to) {
    const bool dead = std::all_of(state.all.begin(), state.all.end(), [](const Member& one) {
      return !one.alive && !one.deliberate && one.to_holder.empty();
    });
    if (!dead || state.holder != HolderPhase::probation || !state.holder_alive ||
        state.holder_stopped || !is_undisturbed(state, to)) {
      return;
    }
    ++seen;
    // Alive and running, it does nothing before it has revived but notice it.
    const auto channels = [](const State& one) {
      return std::count_if(one.all.begin(), one.all.end(),
                           [](const Member& member) { return member.channel; });
    };
    if (to.holder == HolderPhase::active) {
      CHECK(std::none_of(to.all.begin(), to.all.end(),
                         [](const Member& member) { return member.deaf; }));
    } else {
      CHECK(to.holder == HolderPhase::probation);
      CHECK(channels(to) < channels(state));
      CHECK(to.has_attempt());
    }
  });
  CHECK(seen > 0);
}

TEST_CASE("one process of a successor that dies brings nobody back while another lives",
          "[attempt][model]") {
  int seen = 0;
  for_each_step([&](const State& state, const State& to) {
    if (state.holder != HolderPhase::probation || to.holder != HolderPhase::active) {
      return;
    }
    ++seen;
    for (const Member& one : to.all) {
      CHECK_FALSE((one.accepts() || one.in_attempt));
    }
  });
  CHECK(seen > 0);
}

TEST_CASE("before a successor owns, its predecessor has gone deaf or died", "[attempt][model]") {
  int seen = 0;
  for_each_step([&](const State& state, const State& to) {
    for (std::size_t i = 0; i < members; ++i) {
      if (state.all[i].phase != TakerPhase::active && to.all[i].phase == TakerPhase::active) {
        ++seen;
        if (to.holder_accepts(i)) {
          FAIL(state.key());
        }
      }
    }
  });
  CHECK(seen > 0);
}

TEST_CASE("a stopped predecessor is never taken for a dead one", "[attempt][model]") {
  for_each_step([&](const State& state, const State& to) {
    for (std::size_t i = 0; i < members; ++i) {
      if (state.holder_stopped && state.holder_accepts(i) && to.all[i].accepts()) {
        FAIL(state.key());
      }
    }
  });
}

TEST_CASE("what a process has claimed is served until it is ready or has ended",
          "[attempt][model]") {
  int late = 0;
  for_each_step([&](const State& state, const State& to) {
    for (std::size_t i = 0; i < members; ++i) {
      const bool goes_deaf = state.holder_accepts(i) && to.all[i].deaf;
      if (goes_deaf && state.all[i].in_attempt) {
        late += state.holder == HolderPhase::draining ? 1 : 0;
        // The answer to its READY, and nothing else.
        if (to.all[i].to_taker.empty() || to.all[i].to_taker.back() != 'D') {
          FAIL(state.key());
        }
      }
    }
  });
  CHECK(late > 0);
}

}  // namespace continuity::test
