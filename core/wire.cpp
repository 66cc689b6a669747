#include "core/wire.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>

namespace continuity {
namespace {

constexpr std::uint32_t magic = 0x59544e43;  // "CNTY"
constexpr std::size_t header_size = 16;

// Tags with this bit must be understood; unknown ones without it are skipped,
// so that a later version can add what an earlier one may ignore.
constexpr std::uint16_t critical = 0x8000;

enum class Tag : std::uint16_t {
  protocol_min = 1 | critical,
  protocol_max = 2 | critical,
  generation = 3 | critical,
  identity = 4 | critical,
  pid = 5 | critical,
  state = 6 | critical,
  rival_pid = 7,
  duration = 8,
  total = 9 | critical,
  more = 10 | critical,
  listener = 11 | critical,
  ids = 12 | critical,
  code = 13,
  text = 14,
  inodes = 15 | critical,
  fresh = 16,
  replaced = 17 | critical,
  narrowed = 18 | critical,
  features = 19,
  named = 20,
  evidence = 21,
  restarts = 22,
  restart = 23,
  phase = 24,
  members = 25,
  start = 26,
};

class Writer {
 public:
  template <typename T>
  void number(T value) {
    static_assert(std::is_integral_v<T>);
    auto bits = static_cast<std::make_unsigned_t<T>>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bytes_.push_back(static_cast<std::byte>(bits & 0xffU));
      bits = static_cast<decltype(bits)>(bits >> 8U * (sizeof(T) > 1 ? 1U : 0U));
    }
  }
  void raw(const void* data, std::size_t size) {
    const auto* begin = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), begin, begin + size);
  }
  void text(std::string_view value) {
    number(static_cast<std::uint16_t>(value.size()));
    raw(value.data(), value.size());
  }
  template <typename T>
  void field(Tag tag, T value) {
    if (value != T{}) {
      number(static_cast<std::uint16_t>(tag));
      number(static_cast<std::uint16_t>(sizeof(T)));
      number(value);
    }
  }
  // False: more than a field has room for.
  template <typename T>
  bool field(Tag tag, const std::vector<T>& values) {
    const std::size_t size = values.size() * sizeof(T);
    if (size > std::numeric_limits<std::uint16_t>::max()) {
      return false;
    }
    if (size > 0) {
      number(static_cast<std::uint16_t>(tag));
      number(static_cast<std::uint16_t>(size));
      for (const T value : values) {
        number(value);
      }
    }
    return true;
  }
  void field(Tag tag, const std::vector<std::byte>& value) {
    number(static_cast<std::uint16_t>(tag));
    number(static_cast<std::uint16_t>(value.size()));
    raw(value.data(), value.size());
  }
  void field(Tag tag, std::string_view value) {
    if (!value.empty()) {
      number(static_cast<std::uint16_t>(tag));
      text(value);
    }
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Reads what a peer sent: past the end it says so and yields zeros.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T number() {
    std::make_unsigned_t<T> value = 0;
    const auto part = take(sizeof(T));
    for (std::size_t i = 0; i < part.size(); ++i) {
      value = static_cast<decltype(value)>(
          value | static_cast<decltype(value)>(std::to_integer<std::make_unsigned_t<T>>(part[i])
                                               << 8U * i));
    }
    return static_cast<T>(value);
  }
  std::span<const std::byte> take(std::size_t size) {
    if (size > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    const auto part = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return part;
  }
  std::string text(std::size_t size) {
    if (size > max_text) {
      ok_ = false;
      return {};
    }
    const auto part = take(size);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }
  [[nodiscard]] std::size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

std::vector<std::byte> encode_listener(const Listener& listener) {
  Writer writer;
  writer.number(listener.id);
  writer.number(static_cast<std::int32_t>(listener.type));
  writer.number(static_cast<std::int32_t>(listener.protocol));
  writer.number(static_cast<std::uint8_t>(listener.v6only ? 1 : 0));
  writer.number(listener.net_namespace);
  writer.number(listener.file.device);
  writer.number(listener.file.inode);
  writer.number(static_cast<std::uint16_t>(listener.address.length));
  writer.raw(&listener.address.storage, listener.address.length);
  writer.text(listener.bound_device);
  writer.text(listener.file.path);
  return std::move(writer.bytes());
}

std::vector<std::byte> encode_named(const NamedDescriptor& one) {
  Writer writer;
  writer.number(one.id);
  writer.raw(one.name.data(), one.name.size());
  return std::move(writer.bytes());
}

bool take_named(Reader& value, Message& message) {
  NamedDescriptor& one = message.named.emplace_back();
  one.id = value.number<std::uint32_t>();
  one.name = value.text(value.left());
  return value.ok() && !one.name.empty() && one.name.size() <= max_descriptor_name &&
         message.named.size() <= max_named;
}

std::vector<std::byte> encode_restart(const Restart& restart) {
  Writer writer;
  writer.number(restart.predecessor);
  writer.number(restart.successor);
  writer.number(static_cast<std::uint8_t>(restart.outcome));
  writer.number(static_cast<std::uint8_t>(restart.evidence));
  writer.number(restart.wall);
  for (const std::int64_t time : restart.steps) {
    writer.number(time);
  }
  return std::move(writer.bytes());
}

// What a later release has more of, at the end or by number, is not ours to know.
bool take_restart(Reader& value, Message& message) {
  Restart restart;
  restart.predecessor = value.number<std::int32_t>();
  restart.successor = value.number<std::int32_t>();
  const auto outcome = value.number<std::uint8_t>();
  const auto evidence = value.number<std::uint8_t>();
  restart.outcome = outcome <= static_cast<std::uint8_t>(RestartOutcome::rolled_back)
                        ? static_cast<RestartOutcome>(outcome)
                        : RestartOutcome::under_way;
  restart.evidence = evidence <= static_cast<std::uint8_t>(Evidence::said)
                         ? static_cast<Evidence>(evidence)
                         : Evidence::unknown;
  restart.wall = value.number<std::int64_t>();
  for (std::int64_t& time : restart.steps) {
    time = value.number<std::int64_t>();
  }
  if (!value.ok() || message.journal.size() >= Journal::room) {
    return false;
  }
  message.journal.push_back(restart);
  return true;
}

bool decode_listener(std::span<const std::byte> bytes, Listener& listener) {
  Reader reader(bytes);
  listener.id = reader.number<std::uint32_t>();
  listener.type = reader.number<std::int32_t>();
  listener.protocol = reader.number<std::int32_t>();
  listener.v6only = reader.number<std::uint8_t>() != 0;
  listener.net_namespace = reader.number<std::uint64_t>();
  listener.file.device = reader.number<std::uint64_t>();
  listener.file.inode = reader.number<std::uint64_t>();
  const auto size = reader.number<std::uint16_t>();
  if (size > sizeof listener.address.storage) {
    return false;
  }
  const auto address = reader.take(size);
  if (!reader.ok()) {
    return false;
  }
  std::memcpy(&listener.address.storage, address.data(), address.size());
  listener.address.length = size;
  listener.bound_device = reader.text(reader.number<std::uint16_t>());
  listener.file.path = reader.text(reader.number<std::uint16_t>());
  return reader.ok() && reader.at_end() && listener.address.is_supported();
}

template <typename T>
bool take_number(Reader& value, T& target) {
  target = value.number<T>();
  return value.ok() && value.at_end();
}

bool take_text(Reader& value, std::string& target) {
  target = value.text(value.left());
  return value.ok();
}

template <typename T>
bool take_numbers(Reader& value, std::vector<T>& numbers) {
  while (!value.at_end()) {
    numbers.push_back(value.number<T>());
  }
  return value.ok();
}

bool take_state(Reader& value, HolderState& state) {
  const auto number = value.number<std::uint8_t>();
  state = static_cast<HolderState>(number);
  return value.ok() && value.at_end() &&
         number <= static_cast<std::uint8_t>(HolderState::on_probation);
}

bool take_phase(Reader& value, ReportedPhase& phase) {
  const auto number = value.number<std::uint8_t>();
  phase = number <= static_cast<std::uint8_t>(ReportedPhase::leaving)
              ? static_cast<ReportedPhase>(number)
              : ReportedPhase::none;
  return value.ok() && value.at_end();
}

bool take_evidence(Reader& value, Evidence& evidence) {
  const auto number = value.number<std::uint8_t>();
  evidence = number <= static_cast<std::uint8_t>(Evidence::said) ? static_cast<Evidence>(number)
                                                                 : Evidence::unknown;
  return value.ok() && value.at_end();
}

bool take_start(Reader& value, std::string& piece) {
  if (value.left() > max_start_piece) {
    return false;
  }
  const auto bytes = value.take(value.left());
  piece.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return true;
}

// What is said of restarts, by who has been asked; nothing: it is another field.
std::optional<bool> take_report(Tag tag, Reader& value, Message& message) {
  switch (tag) {
    case Tag::evidence:
      return take_evidence(value, message.evidence);
    case Tag::restarts:
      return take_number(value, message.restarts);
    case Tag::restart:
      return take_restart(value, message);
    case Tag::phase:
      return take_phase(value, message.phase);
    case Tag::members:
      return take_numbers(value, message.members);
    case Tag::start:
      return take_start(value, message.start);
    default:
      return std::nullopt;
  }
}

bool take_listener(std::span<const std::byte> value, Message& message) {
  return decode_listener(value, message.listeners.emplace_back());
}

// A field that is a list, or says what lists are welcome; nothing: it is another one.
std::optional<bool> take_list(Tag tag, Reader& value, Message& message) {
  switch (tag) {
    case Tag::ids:
      return take_numbers(value, message.ids);
    case Tag::inodes:
      return take_numbers(value, message.inodes);
    case Tag::replaced:
      return take_numbers(value, message.replaced);
    case Tag::narrowed:
      return take_numbers(value, message.narrowed);
    case Tag::named:
      return take_named(value, message);
    case Tag::features:
      return take_number(value, message.features);
    default:
      return std::nullopt;
  }
}

// 0, or the errno that says what is wrong with the field.
int take_field(std::uint16_t tag, std::span<const std::byte> bytes, Message& message) {
  Reader value(bytes);
  if (const auto list = take_list(static_cast<Tag>(tag), value, message); list) {
    return *list ? 0 : EPROTO;
  }
  if (const auto part = take_report(static_cast<Tag>(tag), value, message); part) {
    return *part ? 0 : EPROTO;
  }
  bool ok = true;
  switch (static_cast<Tag>(tag)) {
    case Tag::protocol_min:
      ok = take_number(value, message.protocol_min);
      break;
    case Tag::protocol_max:
      ok = take_number(value, message.protocol_max);
      break;
    case Tag::generation:
      ok = take_number(value, message.generation);
      break;
    case Tag::identity:
      ok = take_text(value, message.identity);
      break;
    case Tag::pid:
      ok = take_number(value, message.pid);
      break;
    case Tag::state:
      ok = take_state(value, message.state);
      break;
    case Tag::rival_pid:
      ok = take_number(value, message.rival_pid);
      break;
    case Tag::duration:
      ok = take_number(value, message.duration);
      break;
    case Tag::total:
      ok = take_number(value, message.total) && message.total <= max_listeners;
      break;
    case Tag::more:
      message.more = value.number<std::uint8_t>() != 0;
      ok = value.ok() && value.at_end();
      break;
    case Tag::listener:
      ok = take_listener(bytes, message);
      break;
    case Tag::fresh:
      message.fresh = value.number<std::uint8_t>() != 0;
      ok = value.ok() && value.at_end();
      break;
    case Tag::code:
      ok = take_number(value, message.code);
      break;
    case Tag::text:
      ok = take_text(value, message.text);
      break;
    default:
      return (tag & critical) != 0 ? EPROTONOSUPPORT : 0;
  }
  return ok ? 0 : EPROTO;
}

}  // namespace

std::size_t encoded_size(const Listener& listener) {
  return encode_listener(listener).size() + 4;
}

Result<std::vector<std::byte>> encode(const Message& message) {
  Writer body;
  body.field(Tag::protocol_min, message.protocol_min);
  body.field(Tag::protocol_max, message.protocol_max);
  body.field(Tag::generation, message.generation);
  body.field(Tag::identity, std::string_view(message.identity).substr(0, max_text));
  body.field(Tag::pid, message.pid);
  body.field(Tag::state, static_cast<std::uint8_t>(message.state));
  body.field(Tag::rival_pid, message.rival_pid);
  body.field(Tag::duration, message.duration);
  body.field(Tag::total, message.total);
  body.field(Tag::more, static_cast<std::uint8_t>(message.more ? 1 : 0));
  for (const Listener& listener : message.listeners) {
    body.field(Tag::listener, encode_listener(listener));
  }
  if (!body.field(Tag::ids, message.ids) || !body.field(Tag::inodes, message.inodes) ||
      !body.field(Tag::replaced, message.replaced) ||
      !body.field(Tag::narrowed, message.narrowed) || !body.field(Tag::members, message.members)) {
    return Error{"encode a message", EMSGSIZE};
  }
  body.field(Tag::features, message.features);
  for (const NamedDescriptor& one : message.named) {
    body.field(Tag::named, encode_named(one));
  }
  body.field(Tag::fresh, static_cast<std::uint8_t>(message.fresh ? 1 : 0));
  body.field(Tag::code, message.code);
  body.field(Tag::text, std::string_view(message.text).substr(0, max_text));
  body.field(Tag::evidence, static_cast<std::uint8_t>(message.evidence));
  body.field(Tag::restarts, message.restarts);
  for (const Restart& restart : message.journal) {
    body.field(Tag::restart, encode_restart(restart));
  }
  body.field(Tag::phase, static_cast<std::uint8_t>(message.phase));
  body.field(Tag::start, std::string_view(message.start).substr(0, max_start_piece));

  Writer whole;
  whole.number(magic);
  whole.number(static_cast<std::uint16_t>(message.type));
  whole.number(std::uint16_t{0});
  whole.number(static_cast<std::uint32_t>(body.bytes().size()));
  whole.number(message.sequence);
  whole.raw(body.bytes().data(), body.bytes().size());
  if (whole.bytes().size() > max_message_size) {
    return Error{"encode a message", EMSGSIZE};
  }
  return std::move(whole.bytes());
}

Result<Message> decode(std::span<const std::byte> bytes) {
  const Error broken{"read a message", EPROTO};
  Reader reader(bytes);
  Message message;
  if (bytes.size() < header_size || bytes.size() > max_message_size ||
      reader.number<std::uint32_t>() != magic) {
    return broken;
  }
  const auto type = reader.number<std::uint16_t>();
  reader.number<std::uint16_t>();  // flags: none yet
  const auto length = reader.number<std::uint32_t>();
  message.sequence = reader.number<std::uint32_t>();
  if (type < static_cast<std::uint16_t>(MessageType::hello) ||
      type > static_cast<std::uint16_t>(MessageType::report) || length != reader.left()) {
    return broken;
  }
  message.type = static_cast<MessageType>(type);
  while (!reader.at_end()) {
    const auto tag = reader.number<std::uint16_t>();
    const auto size = reader.number<std::uint16_t>();
    const auto value = reader.take(size);
    if (!reader.ok()) {
      return broken;
    }
    if (const int code = take_field(tag, value, message); code != 0) {
      return Error{"read a message", code};
    }
  }
  return message;
}

}  // namespace continuity
