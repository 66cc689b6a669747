// How a process that was not forked from its generation finds it: one that has
// executed another program, or was given a listener by somebody. It belongs to
// whoever has the listener that it has.
#pragma once

#include "core/log.hpp"
#include "core/owned_fd.hpp"
#include "core/processes.hpp"
#include "core/rendezvous.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace continuity {

struct Joined {
  enum class How {
    alone,     // nobody has what it has
    welcome,   // `ties` are what ties it to its generation
    outlived,  // its generation has handed over, and it executed itself since
  };
  How how = How::alone;
  std::uint64_t generation = 0;
  std::vector<OwnedFd> ties{};  // page, bell, offers, offering, door
};

constexpr std::size_t tie_count = 5;

// Asks everybody at the rendezvous. `inodes`: the listeners this process has.
// Of those that have them it is the one that this process descends from. Without
// `inodes`: the one that was forked from the same image. `fresh`: who started this
// program is not its generation.
Joined join(const Sys& sys, Log& log, Rendezvous& rendezvous, const Processes& processes,
            std::span<const std::uint64_t> inodes, bool fresh);

}  // namespace continuity
