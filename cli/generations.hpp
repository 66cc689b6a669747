// Who is at the rendezvous, as whoever asks is told: nobody is claimed from.
#pragma once

#include "core/channel.hpp"
#include "core/rendezvous.hpp"

#include <string>
#include <vector>

namespace continuity::cli {

struct SeenGeneration {
  std::uint64_t generation = 0;
  std::string identity{};
  pid_t pid = 0;  // of the process that leads it
  HolderState state = HolderState::active;
  pid_t rival = 0;                    // busy: to whom it hands over
  std::vector<Listener> listeners{};  // which it serves; none: it has handed over
  Channel channel{};                  // greeted

  [[nodiscard]] bool serves() const { return !listeners.empty(); }
};

// All that answer within 200 ms. `features` is what we say of ourselves.
std::vector<SeenGeneration> look_around(const Sys& sys, Rendezvous& rendezvous, Log& log,
                                        std::uint32_t features = 0);

// Copies of these of its listeners; as many as it gives. It must have been told that we
// are a keeper.
std::vector<OwnedFd> copy_listeners(SeenGeneration& generation,
                                    const std::vector<std::uint32_t>& ids);

}  // namespace continuity::cli
