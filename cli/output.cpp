#include "cli/output.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sys/ioctl.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

// Bytes that begin a character: what a column counts.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U;
  }));
}

// At most so many characters. Half an address must not look like another one.
std::string cut(std::string_view text, std::size_t width) {
  if (width_of(text) <= width) {
    return std::string(text);
  }
  width = std::max<std::size_t>(width, 1) - 1;
  std::size_t end = 0;
  std::size_t count = 0;
  while (end < text.size()) {
    const bool begins = (static_cast<unsigned char>(text[end]) & 0xc0U) != 0x80U;
    if (begins && count++ == width) {
      break;
    }
    ++end;
  }
  return std::string(text.substr(0, end)) + "\u2026";
}

}  // namespace

Exit complain(Exit exit, std::string_view sentence) {
  std::fputs(compose("continuity: {}\n", sentence).c_str(), stderr);
  return exit;
}

std::string visible(std::string_view text) {
  std::string result(text);
  std::replace_if(
      result.begin(), result.end(),
      [](char byte) { return static_cast<unsigned char>(byte) < ' ' || byte == '\x7f'; }, '?');
  return result;
}

bool is_for_people() {
  static const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  return terminal;
}

std::string paint(Colour colour, std::string_view text) {
  static const bool coloured = [] {
    const char* no = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    return is_for_people() && (no == nullptr || *no == '\0') &&
           (terminal == nullptr || std::string_view(terminal) != "dumb");
  }();
  return coloured && colour != Colour::none
             ? compose("\x1b[{}m{}\x1b[0m", static_cast<int>(colour), text)
             : std::string(text);
}

std::size_t terminal_width() {
  winsize size{};
  return is_for_people() && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

Table::Table(std::vector<std::string> head) {
  auto& row = rows_.emplace_back();
  for (std::string& title : head) {
    row.push_back({.text = std::move(title), .colour = Colour::bold});
  }
}

std::string Table::to_string() const {
  std::vector<std::size_t> widths(rows_.front().size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i].text));
    }
  }
  const std::size_t terminal = terminal_width();
  std::string text;
  for (const auto& row : rows_) {
    std::size_t column = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i + 1 < row.size()) {
        text += paint(row[i].colour, row[i].text);
        text.append(widths[i] - width_of(row[i].text) + 2, ' ');
        column += widths[i] + 2;
      } else {
        const std::size_t room = terminal > column ? terminal - column : row[i].text.size();
        text += paint(row[i].colour, cut(row[i].text, room));
      }
    }
    text += '\n';
  }
  return text;
}

}  // namespace continuity::cli
