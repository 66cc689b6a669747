// Whether the library would be loaded into a program, and would see what that does: by its
// file, as continuity-run looks at it.
#pragma once

#include <string>

namespace continuity::cli {

// Why not, and what to do; empty: it would.
struct Obstacle {
  std::string what{};
  std::string remedy{};
};
Obstacle obstacle_in(const std::string& command);

// As execvp finds it, which looks in the current directory for an empty part of PATH; a name
// with a slash is what it is. Empty: it is nowhere.
std::string find_in_path(const std::string& command);

// All of a file; empty: it cannot be read.
std::string read_file(const std::string& path);

}  // namespace continuity::cli
