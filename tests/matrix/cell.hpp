// One restart, to which something happens.
#pragma once

#include "cells.hpp"

namespace continuity::test {

struct Result {
  // Who serves in the end.
  enum class Fate : char {
    taken_over = 'C',  // the successor: committed
    kept = 'P',        // the predecessor: rolled back, or refused
    ended = 'D',       // nobody: the owner has ended, on purpose or after its probation
    frozen = 'F',      // nobody for a time: the owner was stopped, or hung
    unknown = '?',
  };
  Fate fate = Fate::unknown;
  long lost = 0;          // requests that failed, but for those
  long accepted = 0;      // that a process had accepted which was ended
  std::string problem{};  // what should not be
};

struct Conditions {
  std::string without{};    // what this kernel does not have
  std::string probation{};  // instead of what a cell needs
};

Result run(const Cell& cell, const Conditions& conditions);
// The same of a server of several processes.
Result run_family(const Cell& cell, const Conditions& conditions);

}  // namespace continuity::test
