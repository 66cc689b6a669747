#include "core/own_listener.hpp"

#include <fcntl.h>
#include <string>

namespace continuity {
namespace {

// Whoever was killed leaves its file behind, and its next run is not to fail for that.
bool remove_if_dead(const Sys& sys, const Address& address) {
  const std::string path(address.unix_path());
  struct stat status {};
  if (path.empty() || sys.fstatat(AT_FDCWD, path.c_str(), &status, 0) != 0 ||
      !S_ISSOCK(status.st_mode)) {
    return false;
  }
  // Non-blocking: a listener whose queue is full is alive.
  const OwnedFd probe(sys, sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return probe.is_open() && sys.connect(probe.get(), address.get(), address.length) != 0 &&
         errno == ECONNREFUSED && sys.unlinkat(AT_FDCWD, path.c_str(), 0) == 0;
}

}  // namespace

std::optional<ListenerName> parse_listener_name(std::string_view text) {
  constexpr std::string_view udp = "udp:";
  const bool is_datagram = text.substr(0, udp.size()) == udp;
  const auto address = parse_address(is_datagram ? text.substr(udp.size()) : text);
  if (!address || (is_datagram && address->is_unix())) {
    return std::nullopt;
  }
  return ListenerName{.address = *address, .type = is_datagram ? SOCK_DGRAM : SOCK_STREAM};
}

Result<OwnedFd> make_listener(const Sys& sys, const ListenerName& name, int backlog) {
  const Address& address = name.address;
  OwnedFd fd(sys, sys.socket(address.family(), name.type | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) {
    return last_error("socket");
  }
  const bool is_stream = name.type == SOCK_STREAM;
  if (is_stream && !address.is_unix()) {
    const int on = 1;
    sys.setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  const auto bind = [&] { return sys.bind(fd.get(), address.get(), address.length) == 0; };
  if (!bind()) {
    const int code = errno;
    if (code != EADDRINUSE || !remove_if_dead(sys, address)) {
      return Error{"bind", code};
    }
    if (!bind()) {
      return last_error("bind");
    }
  }
  if (is_stream && sys.listen(fd.get(), backlog) != 0) {
    return last_error("listen");
  }
  return fd;
}

}  // namespace continuity
