#include "cli/output.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
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

// Where a line goes on: below what comes behind its title ("good      kernel: ..."), or a little
// further to the right than it begins.
std::size_t indent_of(std::string_view line, std::size_t width) {
  const std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
  const std::size_t gap = line.find("  ", begin);
  const std::size_t title = gap == std::string_view::npos ? gap : line.find_first_not_of(' ', gap);
  const std::size_t indent = title == std::string_view::npos ? begin + 2 : title;
  return indent > width / 2 ? 2 : indent;
}

// Breaks it where a word would not fit; colours have no width.
void fold_line(std::string_view line, std::size_t width, std::string& result) {
  std::string plain;
  std::vector<std::size_t> places;  // of each byte of `plain`, in the line
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\x1b') {
      i = std::min(line.find('m', i), line.size() - 1);
    } else if ((static_cast<unsigned char>(line[i]) & 0xc0U) != 0x80U && line[i] != '\n') {
      plain += line[i];
      places.push_back(i);
    }
  }
  const std::size_t indent = indent_of(plain, width);
  std::size_t from = 0;    // what follows is to be written
  std::size_t column = 0;  // of the first character of `plain` that is looked at
  for (std::size_t at = 0; plain.size() - at + column > width;) {
    std::size_t space = plain.rfind(' ', at + width - column);
    if (space == std::string::npos || space <= at || column + space - at <= indent) {
      space = plain.find(' ', at + width - column);  // one that is too long stays whole
    }
    if (space == std::string::npos) {
      break;
    }
    result.append(line.substr(from, places[space] - from)).append("\n").append(indent, ' ');
    from = places[space] + 1;
    at = space + 1;
    column = indent;
  }
  result.append(line.substr(from));
}

}  // namespace

Exit complain(Exit exit, std::string_view sentence) {
  std::fputs(folded(compose("continuity: {}\n", sentence), terminal_width(STDERR_FILENO)).c_str(),
             stderr);
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

std::size_t terminal_width(int fd) {
  winsize size{};
  return ::isatty(fd) == 1 && ::ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

std::string folded(std::string_view text, std::size_t width) {
  std::string result;
  while (width > 0 && !text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    fold_line(text.substr(0, end), width, result);
    text.remove_prefix(end);
  }
  return result.append(text);
}

void print_lines(const std::string& text) {
  std::fputs(folded(text, terminal_width()).c_str(), stdout);
  std::fflush(stdout);
}

Table::Table(std::vector<std::string> head) {
  auto& row = rows_.emplace_back();
  for (std::string& title : head) {
    row.push_back({.text = std::move(title), .colour = Colour::bold});
  }
}

std::string Table::to_string(std::size_t terminal) const {
  constexpr std::size_t least_last = 20;  // an address
  constexpr std::size_t least = 8;
  const std::size_t last = rows_.front().size() - 1;
  std::vector<std::size_t> widths(last + 1);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], width_of(row[i].text));
    }
  }
  constexpr std::size_t gap = 2;
  const auto before_last = [&] {
    return std::accumulate(widths.begin(), widths.begin() + static_cast<std::ptrdiff_t>(last),
                           last * gap);
  };
  // Where there is no room for it the last cell has a line of its own.
  const bool breaks = terminal > 0 && before_last() + std::min(widths[last], least_last) > terminal;
  while (breaks && before_last() - gap > terminal) {
    const auto widest =
        std::max_element(widths.begin(), widths.begin() + static_cast<std::ptrdiff_t>(last));
    if (*widest <= least) {
      break;
    }
    --*widest;
  }
  const std::size_t indent = breaks ? gap : before_last();
  const std::size_t room = terminal == 0 ? widths[last] : std::max(terminal, indent) - indent;
  std::string text;
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < last; ++i) {
      const std::string shown = cut(row[i].text, widths[i]);
      text += paint(row[i].colour, shown);
      text.append(breaks && i + 1 == last ? 0 : widths[i] - width_of(shown) + gap, ' ');
    }
    text += breaks ? "\n  " : "";
    text += paint(row[last].colour, cut(row[last].text, room));
    text += '\n';
  }
  return text;
}

}  // namespace continuity::cli
