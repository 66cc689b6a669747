// The two machines of a restart: every state with every event.
#include "core/attempt.hpp"

#include <catch2/catch.hpp>

#include <array>

namespace continuity::test {
namespace {

using P = HolderPhase;
using E = HolderEvent;
using A = HolderAction;
using TP = TakerPhase;
using TE = TakerEvent;
using TA = TakerAction;

constexpr std::array phases{P::active, P::granted, P::probation, P::draining, P::leaving};
constexpr std::array events{E::claim,   E::join,          E::ready,          E::part,   E::gone,
                            E::goodbye, E::ready_timeout, E::probation_over, E::drained};
constexpr std::array taker_phases{TP::starting, TP::asking, TP::active, TP::ended};
constexpr std::array taker_events{TE::wait, TE::retired, TE::aborted, TE::gone, TE::silent};

constexpr bool accepts(P phase) {
  return phase == P::active || phase == P::granted;
}

// What must be seen of a phase, by what was done on the way there.
template <typename Check>
void for_each_step(Check check) {
  for (const P phase : phases) {
    for (const E event : events) {
      CAPTURE(static_cast<int>(phase), static_cast<int>(event));
      check(phase, event, step(phase, event));
    }
  }
}

template <typename Check>
void for_each_taker_step(Check check) {
  for (const TP phase : taker_phases) {
    for (const TE event : taker_events) {
      CAPTURE(static_cast<int>(phase), static_cast<int>(event));
      check(phase, event, step(phase, event));
    }
  }
}

}  // namespace

TEST_CASE("a predecessor revives from probation only, and only because its successor is gone",
          "[attempt]") {
  for_each_step([](P phase, E event, HolderStep next) {
    CHECK((next.action == A::revive) == (phase == P::probation && event == E::gone));
  });
}

TEST_CASE("a predecessor stops accepting only by retiring, and starts again only by reviving",
          "[attempt]") {
  for_each_step([](P phase, E, HolderStep next) {
    CHECK((accepts(phase) && !accepts(next.next)) ==
          (next.action == A::retire && phase == P::granted));
    CHECK((!accepts(phase) && accepts(next.next)) == (next.action == A::revive));
  });
}

TEST_CASE("a predecessor retires only for a successor that is ready", "[attempt]") {
  for_each_step([](P phase, E event, HolderStep next) {
    CHECK((next.action == A::retire) ==
          ((phase == P::granted || phase == P::probation) && event == E::ready));
    CHECK((next.action == A::hand_over) == (phase == P::draining && event == E::ready));
  });
}

TEST_CASE("a further conversation of the successor is granted until the predecessor leaves",
          "[attempt]") {
  for (const P phase : {P::granted, P::probation, P::draining}) {
    CHECK(step(phase, E::join).action == A::grant);
    CHECK(step(phase, E::join).next == phase);
  }
  CHECK(step(P::active, E::join).action == A::none);
  CHECK(step(P::leaving, E::join).action == A::refuse);
}

TEST_CASE("a channel that is not the successor's last ends nothing", "[attempt]") {
  for_each_step([](P phase, E event, HolderStep next) {
    if (event == E::part) {
      CHECK(next.next == phase);
      CHECK((next.action == A::release || next.action == A::none));
    }
  });
}

TEST_CASE("READY of another process does not prolong the probation", "[attempt]") {
  CHECK(step(P::probation, E::ready).next == P::probation);
  CHECK(step(P::draining, E::ready).next == P::draining);
}

TEST_CASE("one is granted at a time; whoever claims meanwhile is refused", "[attempt]") {
  for (const P phase : phases) {
    CHECK(step(phase, E::claim).action == (phase == P::active ? A::grant : A::refuse));
  }
}

TEST_CASE("an attempt that fails before ready ends where it began", "[attempt]") {
  for (const E event : {E::gone, E::goodbye, E::ready_timeout}) {
    CHECK(step(P::granted, event).next == P::active);
  }
  CHECK(step(P::granted, E::gone).action == A::forget);
  CHECK(step(P::granted, E::goodbye).action == A::forget);
  CHECK(step(P::granted, E::ready_timeout).action == A::abort);
}

TEST_CASE("probation ends in success by time or by a deliberate end", "[attempt]") {
  CHECK(step(P::probation, E::probation_over).action == A::succeed);
  CHECK(step(P::probation, E::goodbye).action == A::succeed);
  for_each_step([](P phase, E, HolderStep next) {
    if (next.action == A::succeed) {
      CHECK(phase == P::probation);
      CHECK(next.next == P::draining);
    }
  });
}

TEST_CASE("a predecessor leaves only when it has drained, and there is no way back", "[attempt]") {
  for_each_step([](P phase, E event, HolderStep next) {
    CHECK((next.action == A::leave) == (phase == P::draining && event == E::drained));
    if (phase == P::draining) {
      CHECK((next.next == P::draining || next.next == P::leaving));
    }
    if (phase == P::leaving) {
      CHECK(next.next == P::leaving);
    }
  });
}

TEST_CASE("what does not belong to a phase changes nothing", "[attempt]") {
  for_each_step([](P phase, E, HolderStep next) {
    switch (next.action) {
      case A::none:
      case A::refuse:
      case A::hand_over:
      case A::release:
        CHECK(next.next == phase);
        break;
      case A::grant:
        CHECK((next.next != phase) == (phase == P::active));
        break;
      case A::retire:
        CHECK((next.next != phase) == (phase == P::granted));
        break;
      default:
        CHECK(next.next != phase);
        break;
    }
  });
}

TEST_CASE("a time-out never makes an owner", "[attempt]") {
  for_each_taker_step([](TP phase, TE event, TakerStep next) {
    CHECK((next.action == TA::own) ==
          (phase == TP::asking && (event == TE::retired || event == TE::gone)));
    if (event == TE::silent) {
      CHECK(next.action != TA::own);
    }
  });
}

TEST_CASE("nobody owns who has not asked", "[attempt]") {
  for_each_taker_step([](TP phase, TE event, TakerStep next) {
    CHECK((next.action == TA::ask) == (phase == TP::starting && event == TE::wait));
    CHECK((next.next == TP::active && phase != TP::active) == (next.action == TA::own));
  });
}

TEST_CASE("who was told to end never accepts", "[attempt]") {
  CHECK(step(TP::starting, TE::aborted).next == TP::ended);
  CHECK(step(TP::asking, TE::aborted).next == TP::ended);
  CHECK(step(TP::asking, TE::silent).next == TP::ended);
  for (const TE event : taker_events) {
    CHECK(step(TP::ended, event).next == TP::ended);
    CHECK(step(TP::ended, event).action == TA::none);
  }
}

TEST_CASE("an owner stays one", "[attempt]") {
  for (const TE event : taker_events) {
    CHECK(step(TP::active, event).next == TP::active);
    CHECK(step(TP::active, event).action == TA::none);
  }
}

TEST_CASE("a predecessor that dies while its successor starts is no reason to end", "[attempt]") {
  CHECK(step(TP::starting, TE::gone).next == TP::starting);
  CHECK(step(step(TP::starting, TE::gone).next, TE::wait).action == TA::ask);
}

}  // namespace continuity::test
