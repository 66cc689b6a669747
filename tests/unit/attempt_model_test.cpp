// Both machines together, as a model: a predecessor and a successor, the
// messages between them, every order of sending, receiving, dying, being
// stopped and running out of time. All reachable states are visited.
//
// What the machines decide comes from attempt.hpp; what the rest here stands
// for (a message that was sent before a death is still read; a closed channel
// is noticed after what it holds; whoever wakes up reads before it looks at
// its clock) is what Holder and Taker promise.
#include "core/attempt.hpp"

#include <catch2/catch.hpp>

#include <deque>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace continuity::test {
namespace {

using Letters = std::string;  // messages under way: C claim, R ready, D retired, A abort, G goodbye

struct State {
  HolderPhase holder = HolderPhase::active;
  TakerPhase taker = TakerPhase::starting;
  bool holder_alive = true;
  bool taker_alive = true;
  bool holder_listens = false;  // its end of the channel is open
  bool claimed = false;
  bool holder_stopped = false;
  bool taker_stopped = false;
  bool deliberate = false;  // the successor ended on purpose
  Letters to_holder;
  Letters to_taker;

  [[nodiscard]] auto key() const {
    return std::tie(holder, taker, holder_alive, taker_alive, holder_listens, claimed,
                    holder_stopped, taker_stopped, deliberate, to_holder, to_taker);
  }
  bool operator<(const State& other) const { return key() < other.key(); }

  // Deaf means deaf: retiring is finished before RETIRED is sent.
  [[nodiscard]] bool holder_accepts() const {
    return holder_alive && (holder == HolderPhase::active || holder == HolderPhase::granted);
  }
  [[nodiscard]] bool taker_accepts() const { return taker_alive && taker == TakerPhase::active; }
  [[nodiscard]] std::string words() const {
    return "holder " + std::to_string(static_cast<int>(holder)) + (holder_alive ? "" : " dead") +
           (holder_stopped ? " stopped" : "") + ", taker " +
           std::to_string(static_cast<int>(taker)) + (taker_alive ? "" : " dead") +
           (taker_stopped ? " stopped" : "") + ", to holder " + to_holder + ", to taker " +
           to_taker;
  }
};

void feed(State& state, HolderEvent event) {
  const HolderStep next = step(state.holder, event);
  state.holder = next.next;
  switch (next.action) {
    case HolderAction::retire:
      state.to_taker += 'D';
      break;
    case HolderAction::abort:
      state.to_taker += 'A';
      state.holder_listens = false;
      break;
    case HolderAction::refuse:
      state.to_taker += 'A';
      break;
    case HolderAction::forget:
    case HolderAction::revive:
      state.holder_listens = false;
      break;
    default:
      break;
  }
}

void feed(State& state, TakerEvent event) {
  const TakerStep next = step(state.taker, event);
  state.taker = next.next;
  if (next.action == TakerAction::ask && state.holder_alive && state.holder_listens) {
    state.to_holder += 'R';
  }
  if (next.action == TakerAction::give_up) {
    state.taker_alive = false;
  }
}

char take_letter(Letters& letters) {
  const char letter = letters.front();
  letters.erase(0, 1);
  return letter;
}

using States = std::vector<State>;

template <typename Change>
void add(States& all, State state, Change change) {
  change(state);
  all.push_back(state);
}

// It claims, waits for work, hears an answer, or ends on purpose.
void add_taker_steps(const State& state, States& all) {
  if (!state.claimed && state.holder_alive) {
    add(all, state, [](State& s) {
      s.claimed = s.holder_listens = true;
      s.to_holder += 'C';
    });
  }
  if (state.claimed && state.taker == TakerPhase::starting) {
    add(all, state, [](State& s) { feed(s, TakerEvent::wait); });
  }
  if (state.claimed) {
    add(all, state, [](State& s) {
      s.to_holder += s.holder_alive && s.holder_listens ? "G" : "";
      s.taker_alive = false;
      s.deliberate = true;
    });
  }
  if (state.taker != TakerPhase::asking) {
    return;
  }
  add(all, state, [](State& s) {
    if (!s.to_taker.empty()) {
      feed(s, take_letter(s.to_taker) == 'D' ? TakerEvent::retired : TakerEvent::aborted);
    } else if (!s.holder_alive) {
      feed(s, TakerEvent::gone);
    } else {
      // Closed, though it lives; or no answer in time.
      feed(s, s.holder_listens ? TakerEvent::silent : TakerEvent::aborted);
    }
  });
}

// It reads what there is, the end of the channel last; who has read everything
// looks at the clock.
void add_holder_steps(const State& state, States& all) {
  if (state.holder == HolderPhase::leaving) {
    add(all, state, [](State& s) { s.holder_alive = false; });
  }
  if (state.holder_listens && !state.to_holder.empty()) {
    add(all, state, [](State& s) {
      const char letter = take_letter(s.to_holder);
      feed(s, letter == 'C'   ? HolderEvent::claim
              : letter == 'R' ? HolderEvent::ready
                              : HolderEvent::goodbye);
    });
  } else if (state.holder_listens && !state.taker_alive) {
    add(all, state, [](State& s) { feed(s, HolderEvent::gone); });
  } else {
    switch (state.holder) {
      case HolderPhase::granted:
        add(all, state, [](State& s) { feed(s, HolderEvent::ready_timeout); });
        break;
      case HolderPhase::probation:
        add(all, state, [](State& s) { feed(s, HolderEvent::probation_over); });
        break;
      case HolderPhase::draining:
        add(all, state, [](State& s) { feed(s, HolderEvent::drained); });
        break;
      default:
        break;
    }
  }
}

// Everything that can happen next.
States successors_of(const State& state) {
  States all;
  if (state.taker_alive && !state.taker_stopped) {
    add_taker_steps(state, all);
  }
  if (state.holder_alive && !state.holder_stopped) {
    add_holder_steps(state, all);
  }
  if (state.holder_alive) {
    add(all, state, [](State& s) { s.holder_alive = false; });
    add(all, state, [](State& s) { s.holder_stopped = !s.holder_stopped; });
  }
  if (state.taker_alive) {
    add(all, state, [](State& s) { s.taker_alive = false; });
    add(all, state, [](State& s) { s.taker_stopped = !s.taker_stopped; });
  }
  return all;
}

std::map<State, std::vector<State>> reachable() {
  std::map<State, std::vector<State>> graph;
  std::deque<State> open{State{}};
  while (!open.empty()) {
    const State state = open.front();
    open.pop_front();
    if (graph.contains(state)) {
      continue;
    }
    const auto& next = graph[state] = successors_of(state);
    open.insert(open.end(), next.begin(), next.end());
  }
  return graph;
}

// Where nobody dies or is stopped any more, and whoever was stopped goes on.
bool is_undisturbed(const State& from, const State& to) {
  const bool killed =
      (from.holder_alive && !to.holder_alive && from.holder != HolderPhase::leaving) ||
      (from.taker_alive && !to.taker_alive && to.taker != TakerPhase::ended);
  const bool stopped =
      (!from.holder_stopped && to.holder_stopped) || (!from.taker_stopped && to.taker_stopped);
  return !killed && !stopped;
}

}  // namespace

TEST_CASE("in no order of events do both accept", "[attempt][model]") {
  const auto graph = reachable();
  INFO(graph.size());
  CHECK(graph.size() > 300);
  for (const auto& [state, next] : graph) {
    if (state.holder_accepts() && state.taker_accepts()) {
      FAIL(state.words());
    }
  }
}

TEST_CASE("from every state in which somebody lives, somebody comes to accept",
          "[attempt][model]") {
  const auto graph = reachable();
  // Backwards from the states that are good as they are.
  std::map<State, std::vector<State>> before;
  std::deque<State> open;
  std::set<State> good;
  for (const auto& [state, next] : graph) {
    for (const State& to : next) {
      if (is_undisturbed(state, to)) {
        before[to].push_back(state);
      }
    }
    // A successor that ended on purpose, or after its probation, leaves
    // nobody, and so does one that the predecessor has served to its end.
    const bool over =
        !state.taker_alive && (state.deliberate || state.holder == HolderPhase::draining ||
                               state.holder == HolderPhase::leaving);
    const bool nobody = !state.holder_alive && !state.taker_alive;
    const bool native =
        !state.holder_alive && !state.claimed;  // nobody to claim from: binds itself
    if (state.holder_accepts() || state.taker_accepts() || over || nobody || native) {
      open.push_back(state);
    }
  }
  while (!open.empty()) {
    const State state = open.front();
    open.pop_front();
    if (good.insert(state).second) {
      const auto& from = before[state];
      open.insert(open.end(), from.begin(), from.end());
    }
  }
  for (const auto& [state, next] : graph) {
    if (!good.contains(state)) {
      FAIL(state.words());
    }
  }
}

TEST_CASE("a successor that dies in its probation leaves a predecessor that accepts again",
          "[attempt][model]") {
  const auto graph = reachable();
  int seen = 0;
  for (const auto& [state, next] : graph) {
    if (state.holder == HolderPhase::probation && state.holder_alive && !state.holder_stopped &&
        !state.taker_alive && !state.deliberate && state.to_holder.empty()) {
      ++seen;
      // Alive and running, it does nothing before it has revived.
      for (const State& to : next) {
        if (is_undisturbed(state, to)) {
          CHECK(to.holder == HolderPhase::active);
        }
      }
    }
  }
  CHECK(seen > 0);
}

TEST_CASE("before a successor owns, its predecessor has gone deaf or died", "[attempt][model]") {
  for (const auto& [state, next] : reachable()) {
    for (const State& to : next) {
      if (state.taker != TakerPhase::active && to.taker == TakerPhase::active) {
        CHECK_FALSE(to.holder_accepts());
      }
    }
  }
}

TEST_CASE("a stopped predecessor is never taken for a dead one", "[attempt][model]") {
  for (const auto& [state, next] : reachable()) {
    if (!state.holder_stopped || !state.holder_alive || !state.holder_accepts()) {
      continue;
    }
    for (const State& to : next) {
      CHECK_FALSE(to.taker_accepts());
    }
  }
}

}  // namespace continuity::test
