// One restart under load, as every face and every shape of server has to stand it.
#pragma once

#include "place.hpp"
#include "support/datagrams.hpp"
#include "support/load_driver.hpp"

namespace continuity::test {

// How many restarts a test makes: `usually` so many, or what CONTINUITY_TEST_RESTARTS
// says, which scripts/soak sets.
int restarts_to_make(int usually);

// How a predecessor shows that it has gone because nothing was left to do.
using Leaving = bool (*)(Process& predecessor);

// `server` is followed by a run of the place's program, with requests in its
// hands, and becomes that run once it has left. A server of one connection at a
// time ("loop") has one request in its hands, or none.
void restart_under_load(const Place& place, const Arguments& arguments, Load& load, Process& server,
                        Leaving leaving = left_by_itself);

// What all clients of `load` have seen in so many restarts.
void check_nothing_was_lost(Load& load, int times);

void restarts_without_loss(const Arguments& arguments, const Place& place = {},
                           Leaving leaving = left_by_itself);

// The same of clients that send datagrams: at least so many answers came, and each once.
void nothing_went_astray(DatagramLoad& load, std::uint64_t least);

// Without a hand-over a second start fails, and stopping first loses.
void check_it_loses(const Arguments& arguments, const Place& place);

}  // namespace continuity::test
