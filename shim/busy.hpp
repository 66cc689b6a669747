// What a server calls for each request, and what is looked at there, is in one page each (the
// linker's part: layout.ld). Where the kernel is kept apart from the program, a processor has
// forgotten after each system call where the program's pages are, and looks for each anew.
#pragma once

#define CONTINUITY_BUSY_CODE __attribute__((section(".text.busy")))
#define CONTINUITY_BUSY_DATA __attribute__((section(".bss.busy")))
// What is larger than a page: its beginning is in the same.
#define CONTINUITY_BUSY_BEGINNING __attribute__((section(".bss.busy_last")))
