// A thread that libc does not know of.
//
// As soon as libc knows of a second thread it is slower for good: each call that can be
// cancelled says twice where its thread is, malloc and stdio take locks, and fork takes them
// all (glibc 2.36: a recv 50 instructions more and two locked ones, a fork 8 of 40 µs). A
// program that has one thread is not to pay for ours.
//
// So what runs in such a thread may not do what libc believes only one thread does: allocate
// by malloc, take libc's locks, look up symbols, use stdio. Ours does not: what it needs of
// libc are system calls, text and memory functions, and its own new, delete and exceptions
// are in the library. Users and groups are a thread's own in the kernel, and libc changes
// those of the threads that it knows: see Agent::follow_user.
#pragma once

#include <cstddef>
#include <sched.h>
#include <span>

namespace continuity::shim {

// What makes a child of clone a thread of this process, which has its thread-local memory from
// who makes it.
constexpr int thread_flags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;

// Runs function(argument) on this stack, with all that the calling thread has blocked blocked.
// Returns whether it was started. It is not where this is not the libc and machine we know how
// to do that on, where the program has a second thread anyway, or where calls of libc are
// somebody else's (sanitizers, other preloaded libraries), which may want to know its threads.
// The caller holds no lock of libc's, and is in no signal handler. The function must not return
// to what needs the thread's stack or memory to be given back: they never are.
bool start_unlisted_thread(std::span<std::byte> stack, int (*function)(void*),
                           void* argument) noexcept;

// Sanitizers are in this process: they want to know its threads.
bool has_sanitizer() noexcept;

}  // namespace continuity::shim
