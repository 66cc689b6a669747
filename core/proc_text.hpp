// Reading what /proc writes: lines, words, numbers.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace continuity {

// How much is read of a file at first. Most are short, and each page that is written to for
// the first time costs more than another read; what one has had, the next finds there.
constexpr std::size_t first_read = 2048;

// The next word of a line of words, taken off its front.
inline std::string_view take_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  const std::string_view word = line.substr(0, line.find_first_of(" \t"));
  line.remove_prefix(word.size());
  return word;
}

template <typename Number>
bool read_number(std::string_view text, Number& number, int base) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc{} && end == text.data() + text.size();
}

template <typename Visit>
void for_each_line(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    visit(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// The parts of a text in which each ends with a zero byte, as arguments and environments do.
inline std::vector<std::string> split_at_zeros(std::string_view text) {
  std::vector<std::string> parts;
  parts.reserve(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\0')));
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\0'), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

// The inode in "socket:[4711]"; 0 for any other name.
inline std::uint64_t socket_in_link(std::string_view link) {
  constexpr std::string_view prefix = "socket:[";
  std::uint64_t inode = 0;
  if (!link.starts_with(prefix) || !link.ends_with(']') ||
      !read_number(link.substr(prefix.size(), link.size() - prefix.size() - 1), inode, 10)) {
    return 0;
  }
  return inode;
}

// As /proc/PID/fd names it.
constexpr std::string_view ring_name = "anon_inode:[io_uring]";

}  // namespace continuity
