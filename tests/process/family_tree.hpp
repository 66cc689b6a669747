// Servers of several processes: who belongs to whom.
#pragma once

#include "place.hpp"

#include <set>
#include <string>
#include <sys/types.h>

namespace continuity::test {

// Ends what its servers leave behind: processes that no parent of theirs is
// there to end.
struct FamilyPlace : Place {
  FamilyPlace() = default;
  explicit FamilyPlace(const std::string& variable) { environment = {variable}; }
  FamilyPlace(const FamilyPlace&) = delete;
  FamilyPlace& operator=(const FamilyPlace&) = delete;
  ~FamilyPlace();
};

// All processes of servers of ours that descend from this test.
std::set<pid_t> server_processes();
// Those of them that descend from this one, and itself.
std::set<pid_t> family_of(pid_t elder);

// Waits until all of them have ended.
bool have_ended(const std::set<pid_t>& processes);

// Waits until no server of ours is left but this one and those that descend from it.
bool none_is_left_but(pid_t elder);

// Waits until a thread of it is in accept.
bool comes_to_accept(pid_t process);
// Waits until it is stopped, as by SIGSTOP.
bool comes_to_stop(pid_t process);
// Who answers, asked until so many have or patience ends.
std::set<pid_t> who_answers(const std::string& address, std::size_t count);

}  // namespace continuity::test
