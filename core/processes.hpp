// Other processes of this machine, as /proc tells: whose children they are, and
// which connections they hold.
#pragma once

#include "core/address.hpp"
#include "core/clock.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"
#include "core/ring_info.hpp"
#include "core/sys.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace continuity {

// How a process has ended, that need not be a child of ours.
struct ProcessEnd {
  enum class How { unknown, exited, killed };
  How how = How::unknown;
  int value = 0;  // its exit status, or the signal that killed it

  bool operator==(const ProcessEnd&) const = default;

  // Whether somebody wanted it to: status 0, and SIGTERM, SIGINT, SIGQUIT and SIGHUP, also
  // where a handler has made 128 and the signal of it, as shells and Java do. Not SIGKILL:
  // that is what the kernel does when memory is short.
  [[nodiscard]] bool is_on_purpose() const;
  // "was killed by SIGSEGV", "ended with status 1"; "ended" if that is all we know.
  [[nodiscard]] std::string text() const;
};

// From what wait() says.
ProcessEnd from_wait_status(int status);

// Whether it has not ended. One that nobody has waited for yet has its pid still,
// and can be sent signals.
bool is_running(const Sys& sys, pid_t process);
// Waits until the process of a pidfd has ended: then all that it had open is closed. False:
// not by then.
bool await_end_of(const Sys& sys, int pidfd, Nanoseconds deadline);
// The same of a pid, if there is such a process.
void await_end(const Sys& sys, pid_t process, Nanoseconds deadline);

OwnedFd open_proc(const Sys& sys);
// All of a file in /proc, which is open as `proc`; nothing where it cannot be read.
std::string read_proc(const Sys& sys, int proc, const std::string& path);
// Where a link below an open directory leads; empty: it cannot be read.
std::string read_link(const Sys& sys, int directory, const std::string& path);

class Processes {
 public:
  // `proc` is an open /proc.
  Processes(const Sys& sys, int proc) : sys_(&sys), proc_(proc) {}

  // Every process and its parent.
  [[nodiscard]] std::map<pid_t, pid_t> parents() const;
  [[nodiscard]] pid_t parent_of(pid_t process) const;
  // When it was started, in the kernel's ticks since boot; 0 if that cannot be told.
  [[nodiscard]] std::uint64_t start_time(pid_t process) const;
  [[nodiscard]] bool is_below(pid_t process, const std::set<pid_t>& roots) const;
  // What its program is called: the executable, and as the kernel has it, which of
  // a script is the script's name.
  [[nodiscard]] std::vector<std::string> names_of(pid_t process) const;
  // Its effective user; nothing if there is no such process.
  [[nodiscard]] std::optional<uid_t> user_of(pid_t process) const;

  // Whether it has ended or is about to: its memory has gone already, and its
  // files go last.
  [[nodiscard]] bool is_ending(pid_t process) const;
  // Whether it is not stopped; false if that cannot be told.
  [[nodiscard]] bool is_at_work(pid_t process) const;

  // How it has ended, if nobody has waited for it yet. To who may not look at the process
  // the kernel says 0 (do_task_stat in fs/proc/array.c).
  [[nodiscard]] ProcessEnd end_of(pid_t process) const;

  // Whether one of them was forked from the other, or both from a third, and
  // none has executed anything since: addresses that the kernel draws at random
  // at each exec are the same. False where it cannot be told.
  [[nodiscard]] bool are_same_image(pid_t one, pid_t other) const;

  // The topmost of `process` and its ancestors that is the same image.
  [[nodiscard]] pid_t topmost(pid_t process) const;

  // What is held below `roots`, roots and the subtree of `except` left out.
  struct Held {
    pid_t process = 0;  // one that holds any
    int fd = -1;
    std::uint64_t inode = 0;
    unsigned count = 0;
    Address peer{};  // of the one at `fd`
  };
  // Connections that came through listeners at `addresses`, in processes below
  // the `roots` that are not themselves in `roots`.
  [[nodiscard]] Held find_connections(std::span<const Address> addresses,
                                      const std::set<pid_t>& roots,
                                      const std::set<pid_t>& except) const;
  // The same in one process.
  [[nodiscard]] Held find_connections_of(pid_t process, std::span<const Address> addresses) const;
  // How many of these sockets are such connections.
  [[nodiscard]] unsigned count_connections(std::span<const std::uint64_t> sockets,
                                           std::span<const Address> addresses) const;
  // Whether what has been found is there still.
  [[nodiscard]] bool still_holds(const Held& held) const;

  // Processes below `roots`, and neither in them nor below `except`, that hold one
  // of these sockets.
  [[nodiscard]] std::vector<pid_t> find_holders(std::span<const std::uint64_t> inodes,
                                                const std::set<pid_t>& roots,
                                                const std::set<pid_t>& except) const;

  // The rings (io_uring) that these have open, by inode.
  [[nodiscard]] std::set<std::uint64_t> rings_of(const std::set<pid_t>& processes) const;
  // Whether the process waits for connections, or for datagrams as well, just now, by a ring
  // that is none of these.
  [[nodiscard]] bool waits_by_ring(pid_t process, const std::set<std::uint64_t>& except,
                                   bool datagrams) const;

  // The name of the file that is mapped at this address of the calling process, with
  // the slash before it; empty: none that has a name.
  [[nodiscard]] std::string file_at(std::uintptr_t address) const;
  // Whether a file whose name ends in `name` is mapped into the process.
  [[nodiscard]] bool has_mapped(pid_t process, std::string_view name) const;

 private:
  [[nodiscard]] std::string read(const std::string& path) const;
  [[nodiscard]] std::vector<pid_t> below(const std::set<pid_t>& roots,
                                         const std::set<pid_t>& except) const;
  // By inode, with the address of the peer.
  using Connections = std::map<std::uint64_t, Address>;
  [[nodiscard]] Connections connections_through(std::span<const Address> addresses) const;
  void look_for(const Connections& connections, pid_t process, Held& held) const;
  // Calls visit(SocketLine) for each TCP connection that somebody has. False: the
  // kernel does not tell all of them.
  template <typename Visit>
  bool for_each_connection(int family, Visit visit) const;
  [[nodiscard]] RingInfo ring_info(pid_t process, int fd) const;
  // Calls visit(fd, name) for each descriptor of a process. False: it may not be looked at.
  template <typename Visit>
  bool for_each_file(pid_t process, Visit visit) const;
  // Calls visit(fd, inode) for each ring of a process.
  template <typename Visit>
  void for_each_ring(pid_t process, Visit visit) const;
  // Calls visit(fd, inode) for each socket of a process. False: it may not be
  // looked at.
  template <typename Visit>
  bool for_each_socket(pid_t process, Visit visit) const;

  const Sys* sys_;
  int proc_;
};

// A line of /proc/net/tcp, tcp6 or unix: a socket that is connected.
struct SocketLine {
  Address local;
  Address peer;  // not of UNIX sockets
  std::uint64_t inode = 0;
};
std::optional<SocketLine> parse_tcp_line(std::string_view line);
std::optional<SocketLine> parse_unix_line(std::string_view line);

// "4711 (a name) S 1 ...": the parent; 0 if it is none of these.
pid_t parse_parent(std::string_view stat);
// Whether such a line is of a process on its way out.
bool parse_ending(std::string_view stat);
// Whether it is stopped, by a signal or by who traces it.
bool parse_stopped(std::string_view stat);
// Whether it has ended, and nobody has waited for it.
bool parse_remains(std::string_view stat);
// How it has ended; unknown if it has not, or the line is none, or cut short.
ProcessEnd parse_end(std::string_view stat);

}  // namespace continuity
