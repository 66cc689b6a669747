// The connections that servers have, and which process has each: looked up once, for all.
#pragma once

#include "cli/servers.hpp"
#include "core/address.hpp"

#include <map>
#include <optional>
#include <set>
#include <vector>

namespace continuity::cli {

struct Connection {
  Address local{};
  Address peer{};
  std::uint64_t inode = 0;
  pid_t pid = 0;
  int fd = -1;
  std::optional<std::int64_t> idle{};  // milliseconds since anything came or went
};

// How full the queue of a listener is, and how long it may get.
struct Queue {
  std::uint32_t length = 0;
  std::uint32_t limit = 0;
};

class Connections {
 public:
  Connections();

  // Those of a server's processes, and of what these have started, that came through its
  // listeners; the most idle first.
  [[nodiscard]] std::vector<Connection> of(const Server& server) const;
  // Its processes, those included that only it has started.
  [[nodiscard]] std::set<pid_t> processes_of(const Server& server) const;
  [[nodiscard]] std::optional<Queue> queue_at(const Address& listener) const;

 private:
  void read_tcp(int family);
  void read_unix();

  OwnedFd proc_;
  std::map<std::uint64_t, Connection> by_inode_;
  std::map<std::string, Queue> queues_;
  std::multimap<pid_t, pid_t> children_;
};

}  // namespace continuity::cli
