// A message from a peer: whatever is taken for one is within its bounds, and means the
// same when it is written and read again.
#include "fuzz.hpp"

namespace continuity::fuzz {
namespace {

void check(Bytes input) {
  const auto message = decode(input);
  if (!message) {
    return;
  }
  require(message->total <= max_listeners, "a total is bounded");
  require(message->identity.size() <= max_text && message->text.size() <= max_text,
          "a text is bounded");
  require(message->journal.size() <= Journal::room, "what is told of restarts is bounded");
  require(message->start.size() <= max_start_piece, "a piece is bounded");
  for (const Listener& listener : message->listeners) {
    require(listener.address.is_supported(), "an address is of a kind that is handed over");
    require(listener.address.length <= sizeof listener.address.storage, "an address fits");
    require(listener.file.path.size() <= max_text, "a path is bounded");
    match_hash(listener);
    static_cast<void>(to_string(listener.address));
  }
  const auto bytes = encode(*message);
  if (!bytes) {
    return;  // lists that came in several fields may be too long for one
  }
  const auto again = decode(*bytes);
  require(again.has_value(), "what is written can be read");
  require(again->type == message->type && again->generation == message->generation &&
              again->identity == message->identity && again->pid == message->pid &&
              again->state == message->state && again->duration == message->duration &&
              again->total == message->total && again->more == message->more &&
              again->ids == message->ids && again->inodes == message->inodes &&
              again->replaced == message->replaced && again->narrowed == message->narrowed &&
              again->journal == message->journal && again->restarts == message->restarts &&
              again->evidence == message->evidence && again->phase == message->phase &&
              again->members == message->members && again->start == message->start &&
              again->text == message->text && again->code == message->code &&
              again->listeners.size() == message->listeners.size(),
          "what is read is what was written");
}

// A message as it should be, and behind it where which byte of it is another.
void check_changed(char type, Script& script) {
  const Listener known{.type = SOCK_STREAM, .address = *parse_address("[::1]:80")};
  auto bytes = encode(script.message(type, std::span(&known, 1)));
  require(bytes.has_value(), "a message of a script can be written");
  check(*bytes);
  while (!script.at_end()) {
    const unsigned at = script.number() % static_cast<unsigned>(bytes->size());
    bytes->at(at) = static_cast<std::byte>(script.number());
  }
  check(*bytes);
}

}  // namespace

// Bytes behind a "=", or a message of a script.
void run(Bytes input) {
  Script script(input);
  const char first = script.step();
  if (Script::is_message(first)) {
    check_changed(first, script);
  } else if (first == '=') {
    check(input.subspan(1));
  }
}

}  // namespace continuity::fuzz
