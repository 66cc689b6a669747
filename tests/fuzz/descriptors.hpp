// Descriptors that a peer may send: those it should, and others.
#pragma once

#include "fuzz.hpp"
#include "unit/fake_sys.hpp"
#include "unit/sockets.hpp"

#include <array>
#include <vector>

namespace continuity::fuzz {

constexpr std::size_t most_descriptors = 253;  // what the kernel takes

// Made once, since that takes longer than all else.
class Descriptors {
 public:
  Descriptors();
  // Of the kind `which`, counted round and round.
  [[nodiscard]] int at(std::size_t which) const { return fds_[which % fds_.size()]; }
  // TCP listeners, of which some message may speak.
  [[nodiscard]] int listener() const { return at(0); }
  [[nodiscard]] int other_listener() const { return at(1); }

 private:
  std::span<const int> fds_;
};

// False: the kernel refuses.
bool send_with(int socket, std::string_view bytes, std::span<const int> fds);

}  // namespace continuity::fuzz
