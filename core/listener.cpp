#include "core/listener.hpp"

#include "core/owned_fd.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

namespace continuity {
namespace {

// linux/socket.h of 5.14; Debian 12's libc headers have it, older ones do not.
constexpr int so_netns_cookie = 71;

constexpr std::size_t longest_path = 4096;  // what a message may carry

template <typename T>
bool get_option(const Sys& sys, int fd, int level, int name, T& value) {
  socklen_t length = sizeof value;
  return sys.getsockopt(fd, level, name, &value, &length) == 0;
}

// V6ONLY does not matter for an IPv4-mapped address: it accepts IPv4 alone.
bool effective_v6only(const Listener& listener) {
  return listener.address.family() == AF_INET6 && listener.v6only;
}

bool same_socket_file(const Listener& held, const Listener& wanted) {
  if (held.address.is_abstract() || wanted.address.is_abstract()) {
    return same_endpoint(held.address, wanted.address);
  }
  return held.file.inode != 0 && held.file.inode == wanted.file.inode &&
         held.file.device == wanted.file.device;
}

// Whether what one of them is bound to says nothing to the other at all.
bool are_apart(const Listener& held, const Listener& wanted) {
  return held.type != wanted.type || held.protocol != wanted.protocol ||
         held.net_namespace != wanted.net_namespace || held.bound_device != wanted.bound_device;
}

// A socket for IPv6 alone cannot have an IPv4-mapped address.
bool is_impossible(const Listener& listener) {
  return listener.address.family() == AF_INET6 && listener.v6only &&
         without_mapping(listener.address).family() == AF_INET;
}

bool is_any(const Listener& listener) {
  return without_mapping(listener.address).is_wildcard();
}

// How much the kernel prefers a listener for a peer of this family: compute_score() in
// net/ipv4/inet_hashtables.c and net/ipv6/inet6_hashtables.c. 0: does not reach it.
int preference(const Listener& listener, int family) {
  constexpr int any_of_both = 1;
  constexpr int any_of_this = 2;
  constexpr int this_address = 3;
  const int own = without_mapping(listener.address).family();
  if (is_impossible(listener)) {
    return 0;
  }
  if (!is_any(listener)) {
    return own == family ? this_address : 0;
  }
  if (own == family) {
    return listener.address.family() == AF_INET ? any_of_this : any_of_both;
  }
  return own == AF_INET6 && !effective_v6only(listener) ? any_of_both : 0;
}

}  // namespace

Result<Listener> describe_socket(const Sys& sys, int fd, const Address* address) {
  Listener listener;
  if (!get_option(sys, fd, SOL_SOCKET, SO_TYPE, listener.type) ||
      !get_option(sys, fd, SOL_SOCKET, SO_PROTOCOL, listener.protocol)) {
    return last_error("ask a socket for its kind");
  }
  if (address != nullptr) {
    listener.address = *address;
  } else {
    listener.address.length = sizeof listener.address.storage;
    if (sys.getsockname(fd, listener.address.get(), &listener.address.length) != 0) {
      return last_error("ask a socket for its address");
    }
  }
  if (listener.address.family() == AF_INET6) {
    int v6only = 0;
    get_option(sys, fd, IPPROTO_IPV6, IPV6_V6ONLY, v6only);
    listener.v6only = v6only != 0;
  }
  // The kernel wants room for IFNAMSIZ, and includes the zero.
  std::array<char, IFNAMSIZ + 1> device{};
  socklen_t size = IFNAMSIZ;
  if (sys.getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.data(), &size) == 0) {
    listener.bound_device = device.data();
  }
  get_option(sys, fd, SOL_SOCKET, so_netns_cookie, listener.net_namespace);
  return listener;
}

bool is_listening(const Sys& sys, int fd) {
  int accepts = 0;
  return get_option(sys, fd, SOL_SOCKET, SO_ACCEPTCONN, accepts) && accepts != 0;
}

bool receives_work(const Sys& sys, int fd) {
  int type = 0;
  if (!get_option(sys, fd, SOL_SOCKET, SO_TYPE, type)) {
    return false;
  }
  if (type != SOCK_DGRAM) {
    return is_listening(sys, fd);
  }
  Address own;
  own.length = sizeof own.storage;
  if (sys.getsockname(fd, own.get(), &own.length) != 0 || !own.is_supported()) {
    return false;
  }
  const bool named = own.is_unix() ? own.length > sizeof(sa_family_t) : own.port() != 0;
  Address peer;
  peer.length = sizeof peer.storage;
  return named && sys.getpeername(fd, peer.get(), &peer.length) != 0;
}

bool has_queued(const Sys& sys, int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  // For a listener this is the length of its queue (tcp_get_info).
  if (sys.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0) {
    return info.tcpi_unacked > 0;
  }
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  const timespec at_once{};
  return fd >= 0 && sys.ppoll(&entry, 1, &at_once) > 0 && (entry.revents & POLLIN) != 0;
}

int queue_limit(const Sys& sys, int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  // For a listener tcpi_sacked is the length its queue may have (tcp_get_info).
  return sys.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0
             ? static_cast<int>(info.tcpi_sacked)
             : -1;
}

std::uint64_t socket_inode(const Sys& sys, int fd) {
  struct stat status {};
  if (sys.fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) {
    return 0;
  }
  return status.st_ino;
}

std::optional<SocketFile> find_socket_file(const Sys& sys, std::string_view path) {
  SocketFile file{.path = std::string(path)};
  struct stat status {};
  if (file.path.empty() || sys.fstatat(AT_FDCWD, file.path.c_str(), &status, 0) != 0 ||
      !S_ISSOCK(status.st_mode)) {
    return std::nullopt;
  }
  if (file.path.front() != '/') {
    std::array<char, 4096> directory{};
    const ssize_t size =
        sys.readlinkat(AT_FDCWD, "/proc/self/cwd", directory.data(), directory.size());
    if (size > 0) {
      file.path = std::string(directory.data(), static_cast<std::size_t>(size)) + "/" + file.path;
    }
  }
  if (file.path.size() > longest_path) {
    file.path.clear();  // device and inode tell which file it is
  }
  file.device = status.st_dev;
  file.inode = status.st_ino;
  return file;
}

bool matches(const Listener& held, const Listener& wanted) {
  if (are_apart(held, wanted)) {
    return false;
  }
  if (held.address.is_unix() || wanted.address.is_unix()) {
    return held.address.family() == wanted.address.family() && same_socket_file(held, wanted);
  }
  if (held.address.port() == 0 || wanted.address.port() == 0 ||
      !same_endpoint(held.address, wanted.address)) {
    return false;
  }
  if (is_impossible(held) || is_impossible(wanted)) {
    return false;
  }
  // [::] takes IPv4 peers or not, by V6ONLY: two different sets of peers. A
  // specific IPv6 address takes IPv6 peers alone, whatever V6ONLY says.
  return !held.address.is_wildcard() || effective_v6only(held) == effective_v6only(wanted);
}

bool is_as_announced(const Listener& truth, const Listener& announced) {
  return truth.type == announced.type && truth.protocol == announced.protocol &&
         truth.v6only == announced.v6only && truth.net_namespace == announced.net_namespace &&
         truth.bound_device == announced.bound_device &&
         same_endpoint(truth.address, announced.address);
}

bool is_free(const Sys& sys, const Listener& wanted) {
  if (wanted.address.is_unix() && !wanted.address.is_abstract()) {
    return false;
  }
  const OwnedFd probe(sys, sys.socket(wanted.address.family(), wanted.type | SOCK_CLOEXEC,
                                      wanted.address.is_unix() ? 0 : wanted.protocol));
  const int v6only = wanted.v6only ? 1 : 0;
  // Then connections of earlier do not count, and who listens still does. A datagram
  // socket would be let in beside another.
  const int reuse = wanted.type == SOCK_STREAM ? 1 : 0;
  if (!probe.is_open() ||
      sys.setsockopt(probe.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse) != 0 ||
      (wanted.address.family() == AF_INET6 &&
       sys.setsockopt(probe.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only) != 0) ||
      (!wanted.bound_device.empty() &&
       sys.setsockopt(probe.get(), SOL_SOCKET, SO_BINDTODEVICE, wanted.bound_device.c_str(),
                      static_cast<socklen_t>(wanted.bound_device.size())) != 0)) {
    return false;
  }
  return sys.bind(probe.get(), wanted.address.get(), wanted.address.length) == 0;
}

std::size_t match_hash(const Listener& listener) {
  const Address& address = listener.address;
  if (address.is_unix()) {
    return address.is_abstract() ? std::hash<std::string_view>{}(address.abstract_name())
                                 : listener.file.inode;
  }
  return endpoint_hash(address);
}

Overlap overlap(const Listener& held, const Listener& wanted) {
  if (are_apart(held, wanted) || held.type != SOCK_STREAM || held.address.is_unix() ||
      wanted.address.is_unix() || held.address.port() == 0 ||
      held.address.port() != wanted.address.port() || matches(held, wanted)) {
    return Overlap::none;
  }
  const bool specific = !is_any(held) && !is_any(wanted);
  for (const int family : {AF_INET, AF_INET6}) {
    const int to_held = preference(held, family);
    const int to_wanted = preference(wanted, family);
    if (to_held > 0 && to_wanted > 0 && !specific) {
      // Of two that it likes alike it finds the older one first: [::] with V6ONLY and without.
      return to_held >= to_wanted ? Overlap::held_first : Overlap::wanted_first;
    }
  }
  return Overlap::none;
}

}  // namespace continuity
