// Who comes to the rendezvous, told at the moment at which they come, and of those too that
// have gone before anybody could look.
#pragma once

#include "core/owned_fd.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace continuity::cli {

class Arrivals {
 public:
  // Of one user's directory. Not open: there is nobody who would tell.
  Arrivals(const Sys& sys, const std::string& directory);
  // Readable when there is something to take.
  [[nodiscard]] int fd() const { return fd_.get(); }
  // The generations that have been announced since this was last asked.
  std::vector<std::uint64_t> take();

 private:
  const Sys* sys_;
  OwnedFd fd_;
};

}  // namespace continuity::cli
