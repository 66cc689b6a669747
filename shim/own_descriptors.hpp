// The library's own descriptors: out of the program's way, and known as ours.
#pragma once

#include "core/sys.hpp"

#include <span>

namespace continuity::shim {

// The kernel for core, by real functions. Every descriptor that core is given
// is moved to a high number below 64 (256, or 1,024), and marked as ours: fork copies
// the table up to its highest number, and programs care for low ones.
// What core holds are handles, far above any number: Sys::number tells the
// number of one.
const Sys& real_sys();

// Between making a descriptor of ours and knowing it as ours, and between forgetting
// and closing it, the process must not be forked: the child would have it without
// knowing. Taken after all other locks, for a few calls.
void lock_own_descriptors() noexcept;
void unlock_own_descriptors() noexcept;

// In a forked child: what belonged to its parent's agent is closed. `kept`:
// handles that the child goes on using.
void close_own_descriptors(std::span<const int> kept) noexcept;

// The program wants this number of ours for itself: ours goes elsewhere, and
// the number still holds what it held. False: there is no room.
bool move_own_descriptor(int number) noexcept;

// The program's numbers have come up to this one. Those of ours that it would soon have to go
// round move above all that it may have, or as far as four times that: a program may count on
// having so many, and refuse a client that comes by a number too high (haproxy), or be refused
// one by the kernel before its limit. False: nothing has moved.
bool make_way(int number) noexcept;

}  // namespace continuity::shim
