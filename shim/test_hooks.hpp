// Only in the test build of the preload library: kernel calls that fail.
#pragma once

#include "core/sys.hpp"

namespace continuity::shim {

// A Sys whose n-th call fails, by CONTINUITY_TEST_FAIL="n:errno" (both
// numbers); without it, `sys`. Calls that cannot fail are not counted.
Sys with_faults(const Sys& sys);

}  // namespace continuity::shim
