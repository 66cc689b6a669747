// Everything that can happen, to either side, at every moment of a conversation.
#pragma once

#include "core/wire.hpp"

#include <string>
#include <vector>

namespace continuity::test {

enum class Side { predecessor, successor };

struct Cell {
  Side victim;
  std::string when;  // "before", "after", "got", "swap"; "later": in the probation
  MessageType message;
  std::string action;
  // Of several processes the one that acts ("leader"), "main", or another ("other"); of
  // one process there is nothing to choose.
  std::string who{};

  // "successor:before:READY:kill", "predecessor/leader:got:READY:stop"
  [[nodiscard]] std::string name() const { return row() + ":" + action; }
  // Without the action.
  [[nodiscard]] std::string row() const;
};

std::vector<Cell> all_cells();
const std::vector<std::string>& all_actions();

}  // namespace continuity::test
