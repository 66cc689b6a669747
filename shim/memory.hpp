// The memory of the library's own objects, which is not the program's heap.
//
// The agent would get an arena of its own from malloc, or whatever another allocator
// keeps for each thread: two mappings, page tables and a lock that each fork of the
// program copies, takes and gives back, in parent and child.
#pragma once

#include <cstddef>

namespace continuity::shim {

// Null: there is none.
void* allocate(std::size_t size) noexcept;
void give_back(void* memory) noexcept;

// Nobody is inside these: a child that is forked now inherits it whole.
void lock_memory() noexcept;
void unlock_memory() noexcept;

}  // namespace continuity::shim
