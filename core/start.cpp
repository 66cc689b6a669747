#include "core/start.hpp"

#include "core/log.hpp"

#include <array>
#include <charconv>

namespace continuity {
namespace {

void add(std::string& text, char kind, std::string_view item) {
  text += kind;
  text += item;
  text += '\0';
}

// The numbers of "7:1024:4096". False: it is something else.
template <std::size_t count>
bool read_numbers(std::string_view item, std::array<std::uint64_t, count>& numbers, int base = 10) {
  const char* at = item.data();
  const char* const end = at + item.size();
  for (std::size_t i = 0; i < count; ++i) {
    const auto [next, error] = std::from_chars(at, end, numbers.at(i), base);
    const bool last = i + 1 == count;
    if (error != std::errc{} || (last ? next != end : next == end || *next != ':')) {
      return false;
    }
    at = next + 1;
  }
  return true;
}

bool read_item(char kind, std::string_view item, Start& start) {
  std::array<std::uint64_t, 1> number{};
  switch (kind) {
    case 'p':
      start.program = item;
      return true;
    case 'd':
      start.directory = item;
      return true;
    case 'a':
      start.arguments.emplace_back(item);
      return true;
    case 'e':
      start.environment.emplace_back(item);
      return true;
    case 'm':
      if (!read_numbers(item, number, 8)) {
        return false;
      }
      start.mask = static_cast<mode_t>(number[0] & 0777U);
      return true;
    case 'u':
      if (!read_numbers(item, number)) {
        return false;
      }
      start.user = static_cast<uid_t>(number[0]);
      return true;
    case 'l': {
      std::array<std::uint64_t, 3> limit{};
      constexpr std::uint64_t most_resources = 64;
      if (!read_numbers(item, limit) || limit[0] >= most_resources) {
        return false;
      }
      start.limits.push_back(
          {.resource = static_cast<int>(limit[0]), .soft = limit[1], .hard = limit[2]});
      return true;
    }
    default:
      return true;  // of a later release
  }
}

// So that what is written is not moved, and each of its places is memory for good.
std::size_t likely_size(const Start& start) {
  constexpr std::size_t limit = 48;
  constexpr std::size_t others = 32;
  std::size_t size = start.program.size() + start.directory.size() + others;
  size += start.limits.size() * limit;
  for (const auto* items : {&start.arguments, &start.environment}) {
    for (const std::string& item : *items) {
      size += item.size() + 2;
    }
  }
  return size;
}

}  // namespace

std::string write_start(const Start& start) {
  std::string text;
  text.reserve(likely_size(start));
  add(text, 'p', start.program);
  add(text, 'd', start.directory);
  add(text, 'm', compose("{:o}", start.mask));
  add(text, 'u', compose("{}", start.user));
  for (const Start::Limit& limit : start.limits) {
    add(text, 'l', compose("{}:{}:{}", limit.resource, limit.soft, limit.hard));
  }
  for (const std::string& argument : start.arguments) {
    add(text, 'a', argument);
  }
  for (const std::string& variable : start.environment) {
    add(text, 'e', variable);
  }
  return text;
}

std::optional<Start> read_start(std::string_view text) {
  Start start;
  while (!text.empty()) {
    const auto end = text.find('\0');
    if (end == std::string_view::npos || end == 0 ||
        !read_item(text.front(), text.substr(1, end - 1), start)) {
      return std::nullopt;
    }
    text.remove_prefix(end + 1);
  }
  if (start.program.empty() || start.arguments.empty()) {
    return std::nullopt;
  }
  return start;
}

}  // namespace continuity
