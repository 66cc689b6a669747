// Only in the test build of the preload library: kernel calls that fail.
#pragma once

#include "core/sys.hpp"

namespace continuity::shim {

// By CONTINUITY_TEST_FAIL="n:errno" (both numbers) a Sys whose n-th call fails, counting
// those that can; by "pidfd_open:38" one that does not have this call at all. Without it,
// `sys`.
Sys with_faults(const Sys& sys);

}  // namespace continuity::shim
