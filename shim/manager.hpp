// Who manages this program as a service, and is told by it how far it is: systemd, at
// NOTIFY_SOCKET.
#pragma once

#include <sys/types.h>

namespace continuity::shim {

// The service goes on in this process, as one that systemd believes says.
void tell_main_process(pid_t main) noexcept;

}  // namespace continuity::shim
