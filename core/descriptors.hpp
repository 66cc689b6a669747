// What this process has open, looked up rather than remembered: descriptors
// are made, copied and closed behind our back.
#pragma once

#include "core/address.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"
#include "core/sys.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace continuity {

// What an epoll is asked: of a retired datagram socket, only the latter.
constexpr std::uint32_t about_reading =
    EPOLLIN | EPOLLPRI | EPOLLRDNORM | EPOLLRDBAND | EPOLLMSG | EPOLLRDHUP;
constexpr std::uint32_t about_writing = EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;

// A descriptor number that holds a listener.
struct Copy {
  int fd;
  std::uint64_t inode;
};

// That an epoll watches a listener under a descriptor number.
struct Registration {
  int epoll;
  int fd;
  std::uint32_t events;
  std::uint64_t data;
  std::uint64_t inode;
};

struct Holdings {
  std::vector<Copy> copies;
  std::vector<Registration> registrations;
  std::vector<int> small_epolls;  // so short a list that it may be read again in a hurry
  std::vector<int> rings;         // of io_uring, whatever they wait for
};

class Descriptors {
 public:
  // `proc` is an open /proc: after a chroot it cannot be opened any more.
  Descriptors(const Sys& sys, int proc) : sys_(&sys), proc_(proc) {}

  // Every number and every epoll registration of the sockets `inodes`, except
  // numbers for which `ours(fd)` says that they belong to the library.
  Result<Holdings> find(std::span<const std::uint64_t> inodes, bool (*ours)(int fd));

  // What the epoll `epoll` watches of `inodes`, appended to `found`; the size of
  // its list in bytes.
  Result<std::size_t> find_in_epoll(int epoll, std::span<const std::uint64_t> inodes,
                                    std::vector<Registration>& found);

  // One open connection that came through a listener at one of `addresses`, if
  // there is any, and how many there are.
  struct Connections {
    int example = -1;
    std::uint64_t example_inode = 0;
    unsigned count = 0;
  };
  Result<Connections> find_connections(std::span<const Address> addresses, bool (*ours)(int fd));

  // Shuts those of them for reading on which nothing is under way: the program
  // reads the end, and says goodbye itself.
  Status finish_idle(std::span<const Address> addresses, bool (*ours)(int fd));

 private:
  // Calls visit(fd) for each open connection that came through a listener at one
  // of `addresses`.
  template <typename Visit>
  Status for_each_connection(std::span<const Address> addresses, bool (*ours)(int fd), Visit visit);
  [[nodiscard]] OwnedFd open_own(const char* path) const;

  const Sys* sys_;
  int proc_;
};

// One line of /proc/self/fdinfo of an epoll: "tfd: 5 events: 19 data: 5 pos:0
// ino:1a2b sdev:8". Nothing for any other line.
std::optional<Registration> parse_epoll_line(std::string_view line);

}  // namespace continuity
