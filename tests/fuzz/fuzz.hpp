// What every fuzz target has in common. A target is one function that is handed bytes
// of any kind, again and again; it must come back, whatever they are. What it finds
// out about the result it states with require().
#pragma once

#include "core/wire.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>

namespace continuity::fuzz {

using Bytes = std::span<const std::byte>;

// The target: each program has its own.
void run(Bytes input);

// Ends the run as a finding.
void require(bool condition, const char* what);

std::string_view as_text(Bytes bytes);

// One entry of a directory, as getdents gives it: how many bytes it has.
ssize_t put_entry(void* buffer, std::string_view name);

// Input as a list of steps, one character each, some with arguments: a person can read
// and write it, and most changes of a byte lead to another list.
class Script {
 public:
  explicit Script(Bytes bytes) : text_(as_text(bytes)) {}

  [[nodiscard]] bool at_end() const { return text_.empty(); }
  // The next step; 0 at the end.
  char step();
  // "0" to "9" are these numbers, another byte is its own.
  unsigned number();
  // Bytes, their number first.
  std::string_view bytes();
  // What comes before the next `end`, which is taken, too.
  std::string_view until(char end);

  // A message, of which the first character was `type`: fields up to a ";". `known` are
  // listeners that it may speak of.
  Message message(char type, std::span<const Listener> known = {});
  static bool is_message(char type);

 private:
  void field(char name, Message& message, std::span<const Listener> known);

  std::string_view text_;
};

}  // namespace continuity::fuzz
