// What continuity doctor has found.
#pragma once

#include <string>
#include <vector>

namespace continuity::cli {

struct Finding {
  enum class Verdict { good, doubtful, bad };
  Verdict verdict;
  std::string subject;
  std::string text;
  std::string remedy{};
};

// What the settings of a unit of systemd's, as `systemctl show` prints them, mean for a restart.
// `has_directory`: CONTINUITY_DIR is set.
std::vector<Finding> look_at_unit_settings(const std::string& shown, bool has_directory);

}  // namespace continuity::cli
