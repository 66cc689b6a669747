// Messages as bytes: what is written is read, and whatever else comes is
// refused without a crash.
#include "core/wire.hpp"

#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <limits>

namespace continuity::test {
namespace {

using Bytes = std::vector<std::byte>;

Listener full_listener() {
  Listener listener;
  listener.id = 0x80000001U;
  listener.type = SOCK_STREAM;
  listener.protocol = 262;
  listener.v6only = true;
  listener.address = address("[2001:db8::7]:8080");
  listener.bound_device = "lo";
  listener.net_namespace = 0x123456789abcdef0U;
  listener.file = {.path = "/run/a.sock", .device = 7, .inode = std::uint64_t{1} << 63U};
  return listener;
}

// Every field away from its default, negative where that is possible.
Message full_message(MessageType type) {
  Message message{.type = type};
  message.sequence = 77;
  message.protocol_min = 1;
  message.protocol_max = 0xffff;
  message.generation = std::numeric_limits<std::uint64_t>::max();
  message.identity = "redis-server";
  message.pid = -4711;
  message.state = HolderState::on_probation;
  message.rival_pid = std::numeric_limits<std::int32_t>::min();
  message.duration = std::numeric_limits<std::int64_t>::min();
  message.total = max_listeners;
  message.more = true;
  message.listeners.push_back(full_listener());
  message.listeners.push_back({});
  message.listeners.back().address = address("unix:@name");
  message.ids = {1, 2, std::numeric_limits<std::uint32_t>::max()};
  message.replaced = {2};
  message.narrowed = {1, std::numeric_limits<std::uint32_t>::max()};
  message.features = 0x80000001U;
  message.named = {{.id = 3, .name = "log"}, {.id = 4, .name = std::string(128, 'x')}};
  message.code = -1;
  message.text = "why not";
  message.evidence = Evidence::said;
  message.restarts = 7;
  message.journal = {{.predecessor = 1,
                      .successor = -2,
                      .outcome = RestartOutcome::rolled_back,
                      .evidence = Evidence::epoll,
                      .wall = std::numeric_limits<std::int64_t>::max(),
                      .steps = {1, 2, 3, 4, 5, 6, 7, -8}},
                     {}};
  message.phase = ReportedPhase::leaving;
  message.members = {1, -1, 4711};
  message.start = {"p/bin/true\0", 11};
  return message;
}

bool same(const Listener& a, const Listener& b) {
  return a.id == b.id && a.type == b.type && a.protocol == b.protocol && a.v6only == b.v6only &&
         a.address.length == b.address.length &&
         std::memcmp(&a.address.storage, &b.address.storage, a.address.length) == 0 &&
         a.bound_device == b.bound_device && a.net_namespace == b.net_namespace &&
         a.file.path == b.file.path && a.file.device == b.file.device &&
         a.file.inode == b.file.inode;
}

bool same(const Message& a, const Message& b) {
  return a.type == b.type && a.sequence == b.sequence && a.protocol_min == b.protocol_min &&
         a.protocol_max == b.protocol_max && a.generation == b.generation &&
         a.identity == b.identity && a.pid == b.pid && a.state == b.state &&
         a.rival_pid == b.rival_pid && a.duration == b.duration && a.total == b.total &&
         a.more == b.more && a.ids == b.ids && a.replaced == b.replaced &&
         a.narrowed == b.narrowed && a.features == b.features &&
         std::equal(a.named.begin(), a.named.end(), b.named.begin(), b.named.end(),
                    [](const NamedDescriptor& x, const NamedDescriptor& y) {
                      return x.id == y.id && x.name == y.name;
                    }) &&
         a.code == b.code && a.text == b.text && a.evidence == b.evidence &&
         a.restarts == b.restarts && a.journal == b.journal && a.phase == b.phase &&
         a.members == b.members && a.start == b.start &&
         std::equal(a.listeners.begin(), a.listeners.end(), b.listeners.begin(), b.listeners.end(),
                    [](const Listener& x, const Listener& y) { return same(x, y); });
}

Bytes encoded(const Message& message) {
  auto bytes = encode(message);
  REQUIRE(bytes.has_value());
  return *bytes;
}

void put(Bytes& bytes, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    bytes.push_back(static_cast<std::byte>(value >> 8U * i & 0xffU));
  }
}

// A hello with one more field, its length made right.
Bytes with_field(std::uint16_t tag, const Bytes& value) {
  Bytes bytes = encoded({.type = MessageType::hello});
  put(bytes, tag, 2);
  put(bytes, value.size(), 2);
  bytes.insert(bytes.end(), value.begin(), value.end());
  const std::size_t body = bytes.size() - 16;
  for (std::size_t i = 0; i < 4; ++i) {
    bytes[8 + i] = static_cast<std::byte>(body >> 8U * i & 0xffU);
  }
  return bytes;
}

int error_of(const Bytes& bytes) {
  return code_of(decode(bytes));
}

constexpr std::array all_types{MessageType::hello,   MessageType::inventory, MessageType::claim,
                               MessageType::grant,   MessageType::got,       MessageType::refused,
                               MessageType::ready,   MessageType::retired,   MessageType::healthy,
                               MessageType::goodbye, MessageType::abort,     MessageType::join,
                               MessageType::welcome, MessageType::status,    MessageType::report};

}  // namespace

TEST_CASE("every message is read as it was written", "[wire]") {
  for (const MessageType type : all_types) {
    for (const Message& message : {Message{.type = type}, full_message(type)}) {
      const auto read = decode(encoded(message));
      REQUIRE(read.has_value());
      CHECK(same(*read, message));
    }
  }
}

TEST_CASE("a message of nothing but defaults is its header", "[wire]") {
  CHECK(encoded({.type = MessageType::got}).size() == 16);
}

TEST_CASE("a message that ends early is refused, wherever it ends", "[wire]") {
  const Bytes whole = encoded(full_message(MessageType::inventory));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(error_of({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}) == EPROTO);
  }
}

TEST_CASE("a message cut at any byte whose length says so is read or refused, nothing else",
          "[wire]") {
  const Bytes whole = encoded(full_message(MessageType::inventory));
  for (std::size_t size = 16; size < whole.size(); ++size) {
    Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    for (std::size_t i = 0; i < 4; ++i) {
      cut[8 + i] = static_cast<std::byte>((size - 16) >> 8U * i & 0xffU);
    }
    CAPTURE(size);
    const int error = error_of(cut);
    CHECK((error == 0 || error == EPROTO));
  }
}

TEST_CASE("a message with a tail is refused", "[wire]") {
  Bytes bytes = encoded(full_message(MessageType::grant));
  bytes.push_back(std::byte{0});
  CHECK(error_of(bytes) == EPROTO);
}

TEST_CASE("no single wrong bit crashes the reader", "[wire]") {
  const Bytes whole = encoded(full_message(MessageType::inventory));
  int refused = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      Bytes bytes = whole;
      bytes[at] ^= static_cast<std::byte>(1U << bit);
      const auto message = decode(bytes);
      refused += message ? 0 : 1;
      // What is let through must be fit for use.
      if (message) {
        CHECK(message->listeners.size() <= 2);
        CHECK(message->total <= max_listeners);
        for (const Listener& listener : message->listeners) {
          CHECK(listener.address.is_supported());
          to_string(listener.address);
        }
      }
    }
  }
  CHECK(refused > 8 * 16);
}

TEST_CASE("every byte replaced by any other never crashes the reader", "[wire]") {
  const Bytes whole = encoded(full_message(MessageType::hello));
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const unsigned value : {0x00U, 0x7fU, 0x80U, 0xffU}) {
      Bytes bytes = whole;
      bytes[at] = static_cast<std::byte>(value);
      const int error = error_of(bytes);
      CHECK((error == 0 || error == EPROTO || error == EPROTONOSUPPORT));
    }
  }
}

TEST_CASE("what is not ours is refused by its first bytes", "[wire]") {
  CHECK(error_of({}) == EPROTO);
  Bytes http;
  for (const char c : std::string("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")) {
    http.push_back(static_cast<std::byte>(c));
  }
  CHECK(error_of(http) == EPROTO);
  CHECK(error_of(Bytes(16)) == EPROTO);
  CHECK(error_of(Bytes(max_message_size + 1)) == EPROTO);
}

TEST_CASE("a type that does not exist is refused", "[wire]") {
  Bytes bytes = encoded({.type = MessageType::hello});
  for (const unsigned type : {0U, 16U, 255U}) {
    bytes[4] = static_cast<std::byte>(type);
    CHECK(error_of(bytes) == EPROTO);
  }
}

TEST_CASE("an unknown field is skipped, unless it must be understood", "[wire]") {
  const Bytes value(5, std::byte{1});
  for (const unsigned tag : {27U, 99U, 0x7fffU}) {
    CHECK(error_of(with_field(static_cast<std::uint16_t>(tag), value)) == 0);
    CHECK(error_of(with_field(static_cast<std::uint16_t>(tag), {})) == 0);
    CHECK(error_of(with_field(static_cast<std::uint16_t>(tag | 0x8000U), value)) ==
          EPROTONOSUPPORT);
  }
}

TEST_CASE("a field of the wrong size is refused", "[wire]") {
  // protocol_min, generation, pid, state, rival_pid, duration, total, ids, code, replaced,
  // narrowed, features
  for (const unsigned tag : {0x8001U, 0x8003U, 0x8005U, 0x8006U, 7U, 8U, 0x8009U, 0x800cU, 13U,
                             0x8011U, 0x8012U, 19U, 21U, 22U, 23U, 24U, 25U}) {
    CAPTURE(tag);
    CHECK(error_of(with_field(static_cast<std::uint16_t>(tag), Bytes(9))) == EPROTO);
    CHECK(error_of(with_field(static_cast<std::uint16_t>(tag), Bytes(3))) == EPROTO);
  }
  CHECK(error_of(with_field(0x800a, {})) == EPROTO);  // more
  CHECK(error_of(with_field(0x800b, {})) == EPROTO);  // listener
}

TEST_CASE("a descriptor without a name, or with too long a one, is refused", "[wire]") {
  CHECK(error_of(with_field(20, Bytes(4))) == EPROTO);
  CHECK(error_of(with_field(20, Bytes(5, std::byte{'x'}))) == 0);
  CHECK(error_of(with_field(20, Bytes(4 + max_descriptor_name))) == 0);
  CHECK(error_of(with_field(20, Bytes(4 + max_descriptor_name + 1))) == EPROTO);

  Message message{.type = MessageType::inventory};
  message.named.resize(max_named, {.id = 1, .name = "x"});
  CHECK(error_of(encoded(message)) == 0);
  message.named.push_back({.id = 2, .name = "y"});
  CHECK(error_of(encoded(message)) == EPROTO);
}

TEST_CASE("numbers out of their bounds are refused", "[wire]") {
  Bytes state;
  put(state, 3, 1);
  CHECK(error_of(with_field(0x8006, state)) == EPROTO);
  Bytes total;
  put(total, max_listeners + 1, 4);
  CHECK(error_of(with_field(0x8009, total)) == EPROTO);
}

TEST_CASE("text longer than its bound is refused by the reader and cut by the writer", "[wire]") {
  CHECK(error_of(with_field(14, Bytes(max_text))) == 0);
  CHECK(error_of(with_field(14, Bytes(max_text + 1))) == EPROTO);
  CHECK(error_of(with_field(0x8004, Bytes(max_text + 1))) == EPROTO);

  Message message{.type = MessageType::abort};
  message.text.assign(10 * max_text, 'x');
  const auto read = decode(encoded(message));
  REQUIRE(read.has_value());
  CHECK(read->text.size() == max_text);
}

TEST_CASE("a message too long to be sent is not made", "[wire]") {
  Message message{.type = MessageType::inventory};
  message.listeners.assign(2000, full_listener());
  CHECK(code_of(encode(message)) == EMSGSIZE);

  message = {.type = MessageType::ready};
  message.ids.assign(16'000, 1);
  CHECK(decode(encoded(message))->ids.size() == 16'000);
  message.ids.assign(16'384, 1);
  CHECK(code_of(encode(message)) == EMSGSIZE);
}

TEST_CASE("a listener whose path is too long is not read as another", "[wire]") {
  Message message{.type = MessageType::inventory};
  message.listeners.push_back(full_listener());
  message.listeners[0].file.path.assign(max_text, 'x');
  const auto read = decode(encoded(message));
  REQUIRE(read.has_value());
  CHECK(same(*read, message));

  for (const std::size_t size : {max_text + 1, std::size_t{65'000}, std::size_t{65'536 + 5}}) {
    CAPTURE(size);
    message.listeners[0].file.path.assign(size, 'x');
    const auto bytes = encode(message);
    CHECK((!bytes || error_of(*bytes) == EPROTO));
  }
}

TEST_CASE("a listener is as large on the wire as is said", "[wire]") {
  for (const Listener& listener : {Listener{}, full_listener()}) {
    Message message{.type = MessageType::inventory};
    const std::size_t empty = encoded(message).size();
    message.listeners.push_back(listener);
    CHECK(encoded(message).size() == empty + encoded_size(listener));
  }
}

TEST_CASE("an address that is none is refused", "[wire]") {
  Message message{.type = MessageType::inventory};
  message.listeners.push_back(full_listener());
  message.listeners[0].address.storage.ss_family = AF_PACKET;
  CHECK(error_of(encoded(message)) == EPROTO);
  message.listeners[0] = full_listener();
  message.listeners[0].address.length = 4;
  CHECK(error_of(encoded(message)) == EPROTO);
}

}  // namespace continuity::test
