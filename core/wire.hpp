// The messages of a conversation, as bytes.
//
// A message is a header of 16 bytes and fields of (tag, length, value), all
// little-endian. Everything a peer says is bounded before it is believed:
// first a version, then bounds, then memory. docs/protocol.md has every field.
#pragma once

#include "core/clock.hpp"
#include "core/journal.hpp"
#include "core/listener.hpp"
#include "core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace continuity {

constexpr std::uint16_t protocol_version = 1;
constexpr std::size_t max_message_size = 65'536;
constexpr std::size_t max_fds_per_message = 128;  // the kernel's own limit is 253
constexpr std::size_t max_listeners = 65'536;
constexpr std::size_t max_text = 4096;
constexpr std::size_t max_start_piece = 32'768;

enum class MessageType : std::uint16_t {
  hello = 1,  // successor: who I am
  inventory,  // predecessor: what I hold; descriptors do not travel yet
  claim,      // successor: I bound one of your addresses
  grant,      // predecessor: descriptors, in batches
  got,        // successor: a batch has arrived
  refused,    // predecessor: not now, and why
  ready,      // successor: I am about to wait for work
  retired,    // predecessor: I accept no more
  healthy,    // predecessor: probation is over
  goodbye,    // either: I end on purpose
  abort,      // either: the attempt is over, and why
  join,       // another process of the generation: I have a listener of yours
  welcome,    // who leads: what ties us together, as descriptors
  status,     // somebody who wants nothing: what are you doing?
  report,     // predecessor: that
};

// What who greets can deal with beyond version 1, bit by bit.
constexpr std::uint32_t takes_named = 1;   // named descriptors in INVENTORY and GRANT
constexpr std::uint32_t keeps_copies = 2;  // and what this one is: nobody's successor

// What INVENTORY says to a process that was forked from the generation: not what it may
// claim, but what has been handed over, so that it does not claim that from who has it.
constexpr std::uint32_t is_handed_over = 4;

// What STATUS asks for besides.
constexpr std::uint32_t wants_start = 8;  // a piece of how it was started, from `total` on

constexpr std::size_t max_named = max_fds_per_message;  // they fit into one message
constexpr std::size_t max_descriptor_name = 128;

// A descriptor that is no listener: what it is, only the program knows.
struct NamedDescriptor {
  std::uint32_t id = 0;  // from the same row as the listeners'
  std::string name{};
};

// How far a holder is, for those who only want to know; docs/design.md has the states.
enum class ReportedPhase : std::uint8_t {
  none,
  starting,
  active,
  granted,
  probation,
  draining,
  leaving
};

// What a holder says of itself in its inventory.
enum class HolderState : std::uint8_t {
  active,       // may be claimed from
  busy,         // is handing over to another successor
  on_probation  // has itself taken over just now; asks to wait
};

// One message. A field that still has its default value does not travel.
struct Message {
  MessageType type{};
  std::uint32_t sequence = 0;
  std::uint16_t protocol_min = 0;
  std::uint16_t protocol_max = 0;
  std::uint64_t generation = 0;
  std::string identity{};
  std::int32_t pid = 0;
  HolderState state = HolderState::active;
  std::int32_t rival_pid = 0;  // busy: whom it is handing over to
  std::int64_t duration = 0;   // nanoseconds; what of depends on the type
  std::uint32_t total = 0;     // of listeners or descriptors, over all batches
  bool more = false;           // another message of this kind follows
  std::vector<Listener> listeners{};
  std::vector<std::uint32_t> ids{};  // listeners, by their id
  // Of these, those that were not claimed, but have another listener beside them: it
  // reaches all their peers, or only some.
  std::vector<std::uint32_t> replaced{};
  std::vector<std::uint32_t> narrowed{};
  std::vector<std::uint64_t> inodes{};  // sockets, by what all processes know them by
  bool fresh = false;                   // CONTINUITY_NEW: a successor, though it was started by us
  std::uint32_t features = 0;
  std::vector<NamedDescriptor> named{};
  std::int32_t code = 0;
  std::string text{};
  Evidence evidence = Evidence::unknown;      // READY
  ReportedPhase phase = ReportedPhase::none;  // REPORT
  // What has been, in RETIRED and REPORT.
  std::uint32_t restarts = 0;
  std::vector<Restart> journal{};
  // REPORT
  std::vector<std::int32_t> members{};  // its processes
  std::string start{};                  // a piece of how it was started; core/start.hpp
};

// EMSGSIZE: too much for one message.
Result<std::vector<std::byte>> encode(const Message& message);

// EPROTO: not a message of ours, or a broken one; EPROTONOSUPPORT: a field that
// must be understood and is not.
Result<Message> decode(std::span<const std::byte> bytes);

// A listener's size on the wire, to fill batches with.
std::size_t encoded_size(const Listener& listener);

}  // namespace continuity
