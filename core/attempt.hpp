// The two sides of a restart as state machines, one page.
//
// Pure: a state and an event give the next state and what to do. Holder
// (holder.hpp) does it for the predecessor, Taker (taker.hpp) for the
// successor; neither decides anything that does not stand here.
//
// A successor may have several conversations with one predecessor: of several
// processes, or of one that binds when it serves already. They are one attempt:
// it is ready when the first is, and gone when the last channel is closed.
#pragma once

#include <cstdint>

namespace continuity {

// ---- The predecessor -------------------------------------------------------

enum class HolderPhase : std::uint8_t {
  active,     // accepts; nobody asks
  granted,    // accepts; a successor has copies and starts up
  probation,  // deaf; can still take everything back
  draining,   // deaf for good; finishes its connections
  leaving,    // has been told to stop
};

enum class HolderEvent : std::uint8_t {
  claim,           // somebody bound one of our addresses
  join,            // the successor bound one in a further conversation
  ready,           // one that claimed is about to wait for work
  part,            // a channel of the successor's is closed, and not the last
  gone,            // the last one is closed, without a word
  goodbye,         // the same, but it ended on purpose
  ready_timeout,   // it has not become ready in time
  probation_over,  // it has lived long enough
  drained,         // no live connection left
};

enum class HolderAction : std::uint8_t {
  none,
  grant,      // send the descriptors
  refuse,     // somebody else is before you
  retire,     // go deaf where it claimed, then tell it
  hand_over,  // the same with no way back: let go of those listeners, too
  release,    // what it claimed and did not retire may be claimed by others
  forget,     // drop the attempt; nothing has changed
  abort,      // tell it to end, drop the attempt
  revive,     // take the listeners back
  succeed,    // the restart has succeeded: let go of the listeners
  leave,      // tell the program to stop
};

struct HolderStep {
  HolderPhase next;
  HolderAction action;
};

// NOLINTNEXTLINE(readability-function-size): one table, to be read at one look
constexpr HolderStep step(HolderPhase phase, HolderEvent event) {
  using P = HolderPhase;
  using E = HolderEvent;
  using A = HolderAction;
  switch (phase) {
    case P::active:
      switch (event) {
        case E::claim:
          return {P::granted, A::grant};
        default:
          return {phase, A::none};
      }
    case P::granted:
      switch (event) {
        case E::claim:
          return {phase, A::refuse};
        case E::join:
          return {phase, A::grant};
        case E::ready:
          return {P::probation, A::retire};
        case E::part:
          return {phase, A::release};
        case E::gone:
        case E::goodbye:
          return {P::active, A::forget};
        case E::ready_timeout:
          return {P::active, A::abort};
        default:
          return {phase, A::none};
      }
    case P::probation:
      switch (event) {
        case E::claim:
          return {phase, A::refuse};
        case E::join:
          return {phase, A::grant};
        case E::ready:
          return {phase, A::retire};
        case E::part:
          return {phase, A::release};
        case E::gone:
          return {P::active, A::revive};
        case E::goodbye:
        case E::probation_over:
          return {P::draining, A::succeed};
        default:
          return {phase, A::none};
      }
    case P::draining:
      switch (event) {
        case E::claim:
          return {phase, A::refuse};
        case E::join:
          return {phase, A::grant};
        case E::ready:
          return {phase, A::hand_over};
        case E::part:
        case E::gone:
        case E::goodbye:
          return {phase, A::release};
        case E::drained:
          return {P::leaving, A::leave};
        default:
          return {phase, A::none};
      }
    case P::leaving:
      return {phase, event == E::claim || event == E::join ? A::refuse : A::none};
  }
  return {phase, A::none};
}

// ---- The successor ---------------------------------------------------------

enum class TakerPhase : std::uint8_t {
  starting,  // has claimed; everything shared is left alone
  asking,    // has said READY
  active,    // owns the listeners
  ended,     // must not accept, ever
};

enum class TakerEvent : std::uint8_t {
  wait,     // the program is about to wait for work
  retired,  // the predecessor accepts no more
  aborted,  // the predecessor told us to end
  gone,     // the predecessor is dead
  silent,   // the predecessor does not answer
};

enum class TakerAction : std::uint8_t {
  none,
  ask,      // send READY
  own,      // apply what was recorded, publish ourselves, let the program go on
  give_up,  // end this program with a message
};

struct TakerStep {
  TakerPhase next;
  TakerAction action;
};

// A time-out never makes an owner, only death does: who stays silent may be
// frozen, and would accept again when it thaws.
constexpr TakerStep step(TakerPhase phase, TakerEvent event) {
  using P = TakerPhase;
  using E = TakerEvent;
  using A = TakerAction;
  switch (phase) {
    case P::starting:
      switch (event) {
        case E::wait:
          return {P::asking, A::ask};
        case E::aborted:
          return {P::ended, A::give_up};
        default:
          return {phase, A::none};
      }
    case P::asking:
      switch (event) {
        case E::retired:
        case E::gone:
          return {P::active, A::own};
        case E::aborted:
        case E::silent:
          return {P::ended, A::give_up};
        default:
          return {phase, A::none};
      }
    case P::active:
    case P::ended:
      return {phase, A::none};
  }
  return {phase, A::none};
}

}  // namespace continuity
