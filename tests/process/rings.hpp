// Servers that wait by io_uring: whether there is one here, and when they can be followed.
#pragma once

#include "place.hpp"

namespace continuity::test {

// False, and said, where io_uring is forbidden (kernel.io_uring_disabled, seccomp) or
// not in the kernel.
bool has_rings();

// Nobody tells the library of the first accept, or receive: such a server can answer a
// little before it can be followed.
void await_announcement(const Place& place);

}  // namespace continuity::test
