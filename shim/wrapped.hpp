// How a wrapper is declared, in the files that hold them.
#pragma once

#include "shim/placement.hpp"

#ifdef CONTINUITY_WRAP
#define WRAPPED(name) __wrap_##name
#else
#define WRAPPED(name) name
#endif
// What comes before a wait at times, so that a wrapper at all others is a tail call.
#define NOT_INLINED __attribute__((noinline))
#define CONTINUITY_EXPORT extern "C" __attribute__((visibility("default")))
#define CONTINUITY_BUSY CONTINUITY_EXPORT CONTINUITY_BUSY_CODE
