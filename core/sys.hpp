// The kernel, as core sees it: a table of functions that core is handed.
//
// The preload hands over the *real* functions (not its own wrappers), the
// library and the command hand over libc's, the tests hand over fakes and
// functions that fail on demand. Each behaves like the libc function of that
// name: a negative result means failure and errno tells why. `number` is ours:
// a descriptor as the kernel numbers it, for paths below /proc/self/fd.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

namespace continuity {

struct Sys {
#define SYS_CALL(result, name, parameters, arguments) result(*name) parameters;
#include "core/sys_calls.def"
#undef SYS_CALL
};

// libc's functions.
const Sys& libc_sys();

}  // namespace continuity
