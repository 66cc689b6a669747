// Waits of a successor whose own word it is that it is ready (CONTINUITY_READY=notify),
// before it has said so.
//
// Its program must go on, for it may have more to do until then, and it must see nothing
// of what it has claimed, which its predecessor serves. The number holds the inherited
// socket already. So an accept or a receive finds nothing there, or sleeps elsewhere; poll
// and select leave it out (deaf_waits.cpp); and what an epoll is to watch is noted, and
// asked for at the take-over.
#pragma once

#include "shim/process.hpp"

namespace continuity::shim {

// Something has been claimed. Where the program says itself when it is ready, it waits
// early from now on.
void begin_early_waits(Process& process);
// Nobody of the generation has said that it is ready.
[[nodiscard]] bool must_wait_early(const Process& process);
// What was claimed is the program's own. The caller is in the slow path.
void end_early_waits(Process& process);
void forget_early_watches(Process& process, int fd);

// Readable, or gone, once early waits are over; threads sleep there. -1: they are over.
int early_bed_number() noexcept;

// As epoll_ctl of a number that is claimed. `not_early`: nothing has been done.
constexpr int not_early = -2;
int control_early_epoll(int epoll, int operation, int fd, const epoll_event* event) noexcept;

}  // namespace continuity::shim
