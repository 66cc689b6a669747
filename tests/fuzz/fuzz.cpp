#include "fuzz.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

namespace continuity::fuzz {

void require(bool condition, const char* what) {
  if (!condition) {
    static_cast<void>(std::fprintf(stderr, "does not hold: %s\n", what));
    std::abort();
  }
}

std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ssize_t put_entry(void* buffer, std::string_view name) {
  // struct linux_dirent64: inode, offset, then these.
  constexpr std::size_t length_at = 16;
  constexpr std::size_t name_at = 19;
  const auto size = static_cast<unsigned short>((name_at + name.size() + 8) / 8 * 8);
  auto* bytes = static_cast<char*>(buffer);
  std::fill_n(bytes, size, '\0');
  std::memcpy(bytes + length_at, &size, sizeof size);
  std::copy(name.begin(), name.end(), bytes + name_at);
  return size;
}

char Script::step() {
  if (text_.empty()) {
    return 0;
  }
  const char next = text_.front();
  text_.remove_prefix(1);
  return next;
}

unsigned Script::number() {
  const char next = step();
  return next >= '0' && next <= '9' ? static_cast<unsigned>(next - '0')
                                    : static_cast<unsigned char>(next);
}

std::string_view Script::bytes() {
  const auto all = text_.substr(std::min<std::size_t>(text_.size(), 1));
  const auto taken = all.substr(0, number());
  text_ = all.substr(taken.size());
  return taken;
}

std::string_view Script::until(char end) {
  const auto taken = text_.substr(0, text_.find(end));
  text_.remove_prefix(std::min(taken.size() + 1, text_.size()));
  return taken;
}

namespace {

// In the order of MessageType, which begins with 1.
constexpr std::string_view message_types = "HICGOFRDYBAJWQP";

}  // namespace

bool Script::is_message(char type) {
  return type != 0 && message_types.find(type) != std::string_view::npos;
}

Message Script::message(char type, std::span<const Listener> known) {
  Message message{.type = static_cast<MessageType>(message_types.find(type) + 1)};
  for (char name = 0; (name = step()) != 0 && name != ';';) {
    field(name, message, known);
  }
  return message;
}

void Script::field(char name, Message& message, std::span<const Listener> known) {
  constexpr std::size_t most = 64;
  const auto add = [&](std::vector<std::uint32_t>& ids) {
    if (ids.size() < most) {
      ids.push_back(number());
    }
  };
  const auto add_listener = [&](std::size_t index) {
    if (index < known.size() && message.listeners.size() < most) {
      message.listeners.push_back(known[index]);
      message.listeners.back().id = number();
    }
  };
  switch (name) {
    case 'v':
      message.protocol_min = static_cast<std::uint16_t>(number());
      message.protocol_max = static_cast<std::uint16_t>(number());
      break;
    case 'g':
      message.generation = number();
      break;
    case 'n':
      message.identity = bytes();
      break;
    case 'p':
      message.pid = static_cast<std::int32_t>(number()) - 1;
      break;
    case 's':
      message.state = static_cast<HolderState>(number() % 3);
      break;
    case 'y':
      message.rival_pid = static_cast<std::int32_t>(number());
      break;
    case 'd':
      message.duration = (static_cast<Nanoseconds>(number()) - 1) * second;
      break;
    case 't':
      message.total = number();
      break;
    case 'm':
      message.more = true;
      break;
    case 'f':
      message.fresh = true;
      break;
    case 'c':
      message.code = static_cast<std::int32_t>(number());
      break;
    case 'x':
      message.text = bytes();
      break;
    case 'i':
      add(message.ids);
      break;
    case 'r':
      add(message.replaced);
      break;
    case 'w':
      add(message.narrowed);
      break;
    case 'o':
      message.inodes.push_back(number());
      break;
    case 'l':
      add_listener(0);
      break;
    case 'k':
      add_listener(1);
      break;
    case 'e':
      message.evidence = static_cast<Evidence>(number() % 9);
      break;
    case 'h':
      message.restarts = number();
      if (message.journal.size() < Journal::room) {
        message.journal.push_back({.successor = static_cast<pid_t>(number())});
      }
      break;
    case 'q':
      message.features = number();
      break;
    default:
      break;
  }
}

}  // namespace continuity::fuzz

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  continuity::fuzz::run({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
