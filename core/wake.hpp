// Waking a thread out of a blocking accept, unseen by the program.
#pragma once

#include "core/sys.hpp"

#include <cstdint>

namespace continuity {

// The signal that wakes: glibc's own where its handler is installed, else a
// real-time signal nobody handles, for which a handler is installed. 0: none.
int choose_wake_signal(const Sys& sys);

// What a thread does that gets a signal for which the handler is ours.
void set_wake_action(void (*action)());
// Such a signal: the one above, or, where libc has taken that back for itself, another one
// that nobody handles. 0: none.
int choose_acting_signal(const Sys& sys);

// False: there is no such thread any more.
bool wake_thread(const Sys& sys, pid_t thread, int signal);

// Whether a signal that was sent to this thread alone has not reached it yet.
bool is_pending(const Sys& sys, int proc, pid_t thread, int signal);

constexpr int no_thread = -1;
constexpr int running = -2;  // not asleep in any; or not to be known

// The system call a thread sleeps in, as /proc tells.
struct SleepingCall {
  long number;  // or no_thread, or running
  long first_argument;
};
SleepingCall find_call(const Sys& sys, int proc, pid_t thread);

// The descriptor number on which a thread sleeps inside accept, or `running`,
// which may mean that it is on its way in, or out.
constexpr int not_in_accept = -1;
int find_accept(const Sys& sys, int proc, pid_t thread);

// Makes an eventfd readable. Async-signal-safe.
inline void ring(const Sys& sys, int event) {
  const std::uint64_t one = 1;
  sys.write(event, &one, sizeof one);
}

}  // namespace continuity
