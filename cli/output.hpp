// What people see: sentences on standard error, tables and colours on a terminal.
#pragma once

#include "cli/command.hpp"

#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace continuity::cli {

// One line on standard error, "continuity: ..."; gives the status back.
Exit complain(Exit exit, std::string_view sentence);

// Without what a terminal takes for commands: others choose names and paths.
std::string visible(std::string_view text);

// Whether descriptor 1 is a terminal.
bool is_for_people();

// A colour by its number of ANSI, on a terminal that wants colours (NO_COLOR); elsewhere the
// text alone.
enum class Colour : int { none = 0, bold = 1, red = 31, green = 32, yellow = 33 };
std::string paint(Colour colour, std::string_view text);

// Columns of the terminal that a descriptor is; 0: as many as needed.
std::size_t terminal_width(int fd = STDOUT_FILENO);

// Lines that are longer than that are broken between words, and go on with an indent.
std::string folded(std::string_view text, std::size_t width);

// Writes it to standard output, folded for the terminal.
void print_lines(const std::string& text);

// Rows of cells, each column as wide as what is in it. On a terminal the last one is cut where
// that ends, and has a line of its own where nothing useful would be left.
class Table {
 public:
  struct Cell {
    std::string text{};
    Colour colour = Colour::none;
  };
  explicit Table(std::vector<std::string> head);
  void add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] std::string to_string(std::size_t terminal = terminal_width()) const;

 private:
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace continuity::cli
