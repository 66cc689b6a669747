// Socket addresses: what a program binds, in the form the kernel tells it.
#pragma once

#include "core/sys.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unordered_map>
#include <vector>

namespace continuity {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  Address() = default;
  // Takes what a program passed to bind; longer than any address is cut.
  Address(const sockaddr* address, socklen_t size);

  [[nodiscard]] int family() const { return storage.ss_family; }
  [[nodiscard]] const sockaddr* get() const;
  [[nodiscard]] sockaddr* get();

  // Well-formed and of a family we hand over: IPv4, IPv6, UNIX.
  [[nodiscard]] bool is_supported() const;
  // Host order; 0 for UNIX.
  [[nodiscard]] std::uint16_t port() const;
  [[nodiscard]] bool is_unix() const { return family() == AF_UNIX; }
  // Accepts for every local address of its family.
  [[nodiscard]] bool is_wildcard() const;
  // The path of a UNIX address; empty for abstract and unnamed ones.
  [[nodiscard]] std::string_view unix_path() const;
  // A UNIX name that is no path. It may have no characters at all.
  [[nodiscard]] bool is_abstract() const;
  // The name of an abstract UNIX address, without its leading zero.
  [[nodiscard]] std::string_view abstract_name() const;
};

// `::ffff:1.2.3.4` as `1.2.3.4`, everything else unchanged.
Address without_mapping(const Address& address);

// The same address, port and (for link-local ones) scope, after mapping.
bool same_endpoint(const Address& one, const Address& other);

// Whether a connection with this local address can have come through a
// listener with that one: equal, or the listener is a wildcard on its port.
bool came_through(const Address& local, const Address& listener);

// The same of one of many listeners, of which there may be thousands. They are kept by
// who asks.
class CameThrough {
 public:
  explicit CameThrough(std::span<const Address> listeners);
  bool operator()(const Address& local) const;

 private:
  std::unordered_multimap<std::size_t, const Address*> by_endpoint_;
  std::vector<const Address*> others_;  // wildcards, and UNIX
};

// The same number for two that are the same endpoint; of IP addresses.
std::size_t endpoint_hash(const Address& address);

// "127.0.0.1:80", "[::1]:80", "unix:/path", "unix:@name".
std::string to_string(const Address& address);

// The reverse, for the library: also "*:80" (IPv4, every address). No names
// are looked up. Nothing for text that cannot be read.
std::optional<Address> parse_address(std::string_view text);

}  // namespace continuity
