// Which signal well-known servers want if they are to finish what they have in
// hand and then end. For most of them SIGTERM is not it.
#pragma once

#include <string_view>

namespace continuity {

// For a program of this name; 0: nothing is known of it.
int graceful_signal(std::string_view program);

}  // namespace continuity
