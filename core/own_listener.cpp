#include "core/own_listener.hpp"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <string>

namespace continuity {
namespace {

// Whoever was killed leaves its file behind, and its next run is not to fail for that.
bool remove_if_dead(const Sys& sys, const ListenerName& name) {
  const Address& address = name.address;
  const std::string path(address.unix_path());
  struct stat status {};
  if (path.empty() || sys.fstatat(AT_FDCWD, path.c_str(), &status, 0) != 0 ||
      !S_ISSOCK(status.st_mode)) {
    return false;
  }
  // Non-blocking: a listener whose queue is full is alive.
  const OwnedFd probe(sys, sys.socket(AF_UNIX, name.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe.is_open() && sys.connect(probe.get(), address.get(), address.length) != 0 &&
         errno == ECONNREFUSED && sys.unlinkat(AT_FDCWD, path.c_str(), 0) == 0;
}

}  // namespace

std::optional<ListenerName> parse_listener_name(std::string_view text) {
  struct Kind {
    std::string_view prefix;
    std::string_view family;  // what is parsed begins with it
    int type;
  };
  constexpr std::array kinds{
      Kind{"udp:", "", SOCK_DGRAM},
      Kind{"unix-dgram:", "unix:", SOCK_DGRAM},
      Kind{"unix-seqpacket:", "unix:", SOCK_SEQPACKET},
      Kind{"", "", SOCK_STREAM},
  };
  const auto* kind = std::find_if(kinds.begin(), kinds.end(),
                                  [&](const Kind& one) { return text.starts_with(one.prefix); });
  const std::string name = std::string(kind->family).append(text.substr(kind->prefix.size()));
  const auto address = parse_address(name);
  if (!address || (kind->prefix == "udp:" && address->is_unix())) {
    return std::nullopt;
  }
  return ListenerName{.address = *address, .type = kind->type};
}

Result<OwnedFd> make_socket(const Sys& sys, const ListenerName& name) {
  OwnedFd fd(sys, sys.socket(name.address.family(), name.type | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) {
    return last_error("socket");
  }
  if (name.type == SOCK_STREAM && !name.address.is_unix()) {
    const int on = 1;
    sys.setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  return fd;
}

Result<OwnedFd> make_listener(const Sys& sys, const ListenerName& name, int backlog) {
  const Address& address = name.address;
  auto made = make_socket(sys, name);
  if (!made) {
    return made.error();
  }
  OwnedFd fd = std::move(*made);
  const auto bind = [&] { return sys.bind(fd.get(), address.get(), address.length) == 0; };
  if (!bind()) {
    const int code = errno;
    if (code != EADDRINUSE || !remove_if_dead(sys, name)) {
      return Error{"bind", code};
    }
    if (!bind()) {
      return last_error("bind");
    }
  }
  if (name.type != SOCK_DGRAM && sys.listen(fd.get(), backlog) != 0) {
    return last_error("listen");
  }
  return fd;
}

}  // namespace continuity
