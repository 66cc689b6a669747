// Real sockets, files and epolls for the tests, on the loopback and in a fresh
// directory.
#pragma once

#include "core/address.hpp"
#include "core/clock.hpp"
#include "core/listener.hpp"
#include "core/owned_fd.hpp"

#include <string>
#include <vector>

namespace continuity::test {

// The errno of a failure, 0 of a success.
template <typename T>
int code_of(const Result<T>& result) {
  return result ? 0 : result.error().code;
}

// A new directory, removed with everything in it.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::vector<std::string> entries() const;

 private:
  std::string path_;
};

OwnedFd own(int fd);
OwnedFd open_directory(const TempDirectory& directory);
OwnedFd open_proc();
OwnedFd copy_of(int fd);
Address address(std::string_view text);  // parse_address of what must be well-formed
Address name_of(int fd);                 // getsockname

// Listens at "127.0.0.1:0", "[::1]:0", "unix:/path", ...; `flags`: SOCK_NONBLOCK.
OwnedFd listen_at(std::string_view text, int flags = 0, int type = SOCK_STREAM);
// With SO_REUSEPORT, so that others may have it too. False: the kernel refuses.
bool listen_in_group(const OwnedFd& fd, const Address& where);
// Closed if nobody answers within a second.
OwnedFd connect_to(const Address& address, int type = SOCK_STREAM);

Listener described(int fd);
bool has_ipv6();
bool same_socket(int one, int other);

// Waits until `fd` is readable, at most so long.
bool becomes_readable(int fd, Nanoseconds longest = second);

OwnedFd make_epoll();
void watch(int epoll, int fd, std::uint32_t events, std::uint64_t data);
// What /proc says the epoll watches, line by line, in an order of its own.
std::vector<std::string> registrations_of(int epoll);

// Every descriptor of this process.
std::vector<int> open_descriptors();

}  // namespace continuity::test
