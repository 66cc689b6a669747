// The threads of a server, as they are seen from outside.
#pragma once

#include "place.hpp"

#include <set>
#include <string>
#include <sys/types.h>

namespace continuity::test {

// Where each has a directory of its own.
std::string threads_below(pid_t process);
// What is in a directory; nothing, if there is none any more.
std::set<std::string> names_in(const std::string& directory);
std::size_t threads_of(pid_t process);
// As which different users and groups they run.
std::set<std::string> identities_of(pid_t process);

// Runs `program ARGUMENT...` under `preloaded`, in a rendezvous directory that other users
// may pass through.
Process start_alone(const std::string& program, const Arguments& arguments,
                    const std::string& preloaded, const TempDir& directory);

}  // namespace continuity::test
