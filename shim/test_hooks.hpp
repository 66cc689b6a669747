// Only in the test build of the preload library: kernel calls that fail, and processes
// to which something happens in the middle of a conversation.
#pragma once

#include "core/sys.hpp"

namespace continuity::shim {

// `sys`, or what these variables make of it:
//
// CONTINUITY_TEST_FAIL="n:errno" (both numbers): the n-th call fails, counting those that
// can. "pidfd_open:38": there is no such call at all. So with what newer kernels only have,
// or not for everybody: "pidfd_info", "netns_cookie", "socket_filter", "sock_diag".
//
// CONTINUITY_TEST_AT="WHEN:MESSAGE:ACTION": once, in one process of all that are forked from
// each other, WHEN the MESSAGE (its number) is about to
// be sent ("before"), has been sent ("after") or has come ("got"), or at the first number
// that changes its file after that ("swap"). ACTION: "kill", "stop", "segv", "exit0",
// "exit1"; "hang", of that thread; "emfile", "enomem", "enospc", of the calls of the next second;
// and of a message that is about to be sent "garbage", "truncate", "more", "fewer" or
// "others": its descriptors. Standard error tells when it happens, and to which process.
Sys with_faults(const Sys& sys);

}  // namespace continuity::shim
