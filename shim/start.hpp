// How this program was started, for whoever is to start it once more.
#pragma once

#include "core/start.hpp"
#include "core/sys.hpp"

namespace continuity::shim {

// What the constructor has kept, and what it leaves to the first bind: only then is it
// known that anybody may ask. `proc` is an open /proc.
Start how_started(const Sys& sys, int proc);

}  // namespace continuity::shim
