// CONTINUITY_REHEARSAL: a successor that says what it would take over, and ends.
#pragma once

#include "shim/process.hpp"

namespace continuity::shim {

// At the moment at which it would become the owner.
void tell_of_rehearsal(Process& process) noexcept;
// Its predecessor has noticed nothing but an attempt that ends.
[[noreturn]] void end_rehearsal(Process& process) noexcept;

}  // namespace continuity::shim
