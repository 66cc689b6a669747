// Options of a listener that a program sets before it may touch the listener.
//
// Until the take-over a claimed listener belongs to the predecessor too:
// options, flags and backlog are its as much as ours. What the program sets
// meanwhile goes to its own, unshared socket, the *model*; at the take-over
// what the model says is applied to the listener.
#pragma once

#include "core/result.hpp"
#include "core/sys.hpp"

#include <cstddef>
#include <vector>

namespace continuity {

// An option that cannot be read back from the model.
struct RecordedOption {
  int level = 0;
  int name = 0;
  std::vector<std::byte> value;
};

// True if carry_over finds this option out by itself.
bool is_carried_over(int level, int name);

struct CarriedOver {
  int changed = 0;  // options that differ now from what they were
  int failed = 0;   // options the kernel would not change
};

// Makes `listener` like `model`: O_NONBLOCK and every option that differs, one after the
// other, since some change others: IP_TOS the priority, SO_TIMESTAMP its twin. A fresh socket of
// the same kind tells which buffer sizes the program chose: setting one ends the kernel's own
// tuning, and cannot be undone. Takes a hundred calls to find out.
CarriedOver carry_over(const Sys& sys, int model, int listener);
// The part of it that is no option: O_NONBLOCK.
CarriedOver carry_over_blocking(const Sys& sys, int model, int listener);

// What carry_over would change, and nothing is: numbers as the kernel has them, of a longer
// value its beginning.
struct OptionChange {
  int level = 0;
  int name = 0;
  int before = 0;
  int after = 0;
};
std::vector<OptionChange> compare_options(const Sys& sys, int model, int listener);

}  // namespace continuity
