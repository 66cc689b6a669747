// A program's listener that nobody hands over: named, made and bound.
#pragma once

#include "core/address.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"

#include <optional>
#include <string_view>

namespace continuity {

// What a program that asks calls a listener: parse_address(), and "udp:host:port",
// "unix-dgram:/path" and "unix-seqpacket:/path".
struct ListenerName {
  Address address;
  int type = SOCK_STREAM;
};
std::optional<ListenerName> parse_listener_name(std::string_view text);

// A socket of that kind, close-on-exec, which may follow another at its address.
Result<OwnedFd> make_socket(const Sys& sys, const ListenerName& name);

// The same, bound there, and listening if its kind does. A socket file at which nobody
// listens any more gives way.
Result<OwnedFd> make_listener(const Sys& sys, const ListenerName& name, int backlog);

}  // namespace continuity
