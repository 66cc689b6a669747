// What a listening socket is, re-derived from the kernel each time: records of
// past calls are hints, descriptors tell the truth.
#pragma once

#include "core/address.hpp"
#include "core/result.hpp"
#include "core/sys.hpp"

#include <optional>
#include <string>

namespace continuity {

// Where the file of a UNIX listener lives. A path alone is not an identity:
// it may be relative, or lead elsewhere by now.
struct SocketFile {
  std::string path;  // absolute as seen by the process that bound it; empty: none
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
};

struct Listener {
  std::uint32_t id = 0;  // names it within one conversation
  int type = 0;
  int protocol = 0;
  bool v6only = false;
  Address address;
  std::string bound_device;         // SO_BINDTODEVICE
  std::uint64_t net_namespace = 0;  // SO_NETNS_COOKIE, 0 where the kernel is older than 5.14
  SocketFile file;

  [[nodiscard]] bool is_datagram() const { return type == SOCK_DGRAM; }
};

// What the kernel says of a socket: its kind, options that decide which peers
// reach it, and `address` (or, where that is null, the one it is bound to).
Result<Listener> describe_socket(const Sys& sys, int fd, const Address* address = nullptr);

// A stream or seqpacket socket that listens.
bool is_listening(const Sys& sys, int fd);

// A socket on which work arrives from anybody: one that listens, or a datagram
// socket that has an address and no peer.
bool receives_work(const Sys& sys, int fd);

// Connections to be accepted, or datagrams to be received.
bool has_queued(const Sys& sys, int fd);
// How many connections a TCP listener's queue may hold; -1: that is not to be known.
int queue_limit(const Sys& sys, int fd);

// Inode number of a socket, which all its copies share; 0 for anything else.
std::uint64_t socket_inode(const Sys& sys, int fd);

// The file at `path`, if it is a socket now.
std::optional<SocketFile> find_socket_file(const Sys& sys, std::string_view path);

// Whether a program that wants `wanted` may be given `held` instead: the same
// kind of socket, on the same address, reached by the same set of peers.
bool matches(const Listener& held, const Listener& wanted);

// Whether a socket that came from somebody is the one that it was said to be.
bool is_as_announced(const Listener& truth, const Listener& announced);

// Whether nobody has the address of `wanted`, and it could be bound: the kernel is asked
// by doing so. False for UNIX paths, of which the file tells.
bool is_free(const Sys& sys, const Listener& wanted);

// The same number for all that match: to look them up by.
std::size_t match_hash(const Listener& listener);

// Two TCP listeners on one port that do not match, and that some peers reach both of.
// With SO_REUSEPORT on both the kernel lets them be, and gives such a peer to one.
enum class Overlap : std::uint8_t {
  none,
  held_first,    // to `held`: as long as it listens
  wanted_first,  // to `wanted`: from when it listens
};
Overlap overlap(const Listener& held, const Listener& wanted);

}  // namespace continuity
