// Servers of several processes are restarted, and nobody is left.
#pragma once

#include "family_tree.hpp"
#include "restarts.hpp"

#include <functional>
#include <set>
#include <string>
#include <sys/types.h>

namespace continuity::test {

// Those that descend from it, and not itself: once there are so many.
std::set<pid_t> workers_of(const Process& master, std::size_t count);
// "continuity[4711]: ...": who has logged the line.
pid_t logged_by(const std::string& line);
// "... in 0.412 ms"
double milliseconds_in(const std::string& line);

// Under load; the predecessor's processes all end.
void restarts_family_without_loss(const Arguments& arguments, const Place& place, int usually = 3);

}  // namespace continuity::test
