// A program's listener that nobody hands over: named, made and bound.
#pragma once

#include "core/address.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"

#include <optional>
#include <string_view>

namespace continuity {

// What a program that asks calls a listener: parse_address(), and "udp:host:port".
struct ListenerName {
  Address address;
  int type = SOCK_STREAM;
};
std::optional<ListenerName> parse_listener_name(std::string_view text);

// A socket, close-on-exec, that is bound there and listens, if its kind does. A socket
// file at which nobody listens any more gives way.
Result<OwnedFd> make_listener(const Sys& sys, const ListenerName& name, int backlog);

}  // namespace continuity
