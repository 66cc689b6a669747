// Cases that only root can run.
#pragma once

#include <catch2/catch.hpp>

#include <unistd.h>

namespace continuity::test {

// Nobody else becomes another user, or makes a namespace. Whoever gets true returns: CTest
// calls the whole case skipped, by what is said here (SKIP_REGULAR_EXPRESSION), so this is not
// for a case of which something has been tried.
inline bool needs_root() {
  if (::geteuid() == 0) {
    return false;
  }
  WARN("skipped: not root");
  return true;
}

}  // namespace continuity::test
