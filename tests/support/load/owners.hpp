// Which process serves a connection, found from outside: the kernel says which
// socket is at its other end (NETLINK_SOCK_DIAG), /proc says who holds that.
// Nothing is asked of the server, so nothing that it believes matters.
#pragma once

#include "connection.hpp"
#include "fd.hpp"
#include "outcome.hpp"

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <sys/types.h>
#include <vector>

namespace continuity::load {

using SocketInode = std::uint32_t;

// The processes that may serve. Looked at by all clients, changed by commands.
class Watched {
 public:
  void add(std::span<const pid_t> pids);
  // Watches these, and from now on no other of those watched so far should
  // serve, unless it descends from one of these. Who is watched later may.
  void restrict_to(std::span<const pid_t> pids);

  // Those that should not serve. Taken when a connection begins, to judge it by.
  std::vector<pid_t> retired();

  // The watched process that holds this socket, or of which a descendant does;
  // the one watched last is asked first. 0: nobody.
  pid_t holder_of(SocketInode socket);

 private:
  std::mutex mutex_;
  std::vector<pid_t> pids_;  // the newest last
  std::vector<pid_t> retired_;
  std::map<pid_t, std::uint64_t> starts_;
};

// One per thread.
class OwnerFinder {
 public:
  // Throws std::system_error where the kernel does not tell.
  explicit OwnerFinder(Watched& watched);

  // Waits until somebody has accepted the connection. 0: it ended before, or
  // the deadline came, or none of the watched processes has it.
  pid_t find(const Connection& connection, Deadline deadline);

 private:
  std::optional<SocketInode> peer_of(const Connection& connection);
  std::optional<SocketInode> peer_of_inet(int fd, const Endpoint& local);
  std::optional<SocketInode> peer_of_unix(int fd);

  Watched& watched_;
  Fd netlink_;
};

}  // namespace continuity::load
