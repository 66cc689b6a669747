// What `cmake --install` puts somewhere, and building with it as a user does.
#pragma once

#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <string>
#include <vector>

namespace continuity::test {

// Runs a command to its end, which may take a compiler's time. Throws if it fails.
void run_to_end(const std::vector<std::string>& command, const Environment& environment = {});

struct Prefix {
  Prefix();
  [[nodiscard]] std::string operator/(const std::string& name) const { return directory / name; }
  // Runs a shell's command in which pkg-config finds what is installed here.
  void run_shell(const std::string& command) const;

  TempDir directory{};
};

}  // namespace continuity::test
