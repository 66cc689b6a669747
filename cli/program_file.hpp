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

}  // namespace continuity::cli
