// Where things lie in the library's memory (the linker's part: layout.ld).
#pragma once

// What a server calls for each request, and what is looked at there, is in one page each. Where
// the kernel is kept apart from the program, a processor has forgotten after each system call
// where the program's pages are, and looks for each anew.

#define CONTINUITY_BUSY_CODE __attribute__((section(".text.busy")))
#define CONTINUITY_BUSY_DATA __attribute__((section(".bss.busy")))
// What is larger than a page: its beginning is in the same.
#define CONTINUITY_BUSY_BEGINNING __attribute__((section(".bss.busy_last")))
// What is large comes last, so that all the rest fits into one page: each that is written to
// is memory of the process's own, and costs a program that starts a page fault.
#define CONTINUITY_LARGE_DATA __attribute__((section(".bss.large")))
