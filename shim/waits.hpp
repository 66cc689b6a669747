// The first wait for work: when a successor becomes the owner, and when a
// program without a predecessor becomes one that can be followed.
#pragma once

#include "shim/process.hpp"

namespace continuity::shim {

// The generation owns its listeners: in this process too they are listeners like
// any others.
void adopt_settled(Process& process) noexcept;
// The same where the slow path is held.
void adopt_settled_here(Process& process);

// Another process of the generation waits for work on what this one has claimed.
void settle_for_others(Process& process) noexcept;

// The program has sent READY=1. The caller is in the slow path, and there is a page.
void note_said_ready(Process& process);
// Another process may have: what this one has claimed is asked for.
void settle_said(Process& process) noexcept;

// The program listens, and may wait for work by an io_uring, which no wrapper sees: then
// the agent looks for it. The caller is in the slow path.
void expect_rings(Process& process);
// A ring of this process waits for connections: the first wait for work.
void settle_for_ring(Process& process) noexcept;
// Whether there is anything on which a wait would be one for work; with these flags besides.
bool has_listener(std::uint8_t of_kind = 0);

// `copy` is a new number for what `fd` holds; negative: the copying failed.
void note_copy(int fd, int copy) noexcept;

}  // namespace continuity::shim
