#include "core/address.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <functional>
#include <netinet/in.h>
#include <sys/un.h>

namespace continuity {
namespace {

constexpr std::size_t path_offset = offsetof(sockaddr_un, sun_path);

template <typename T>
T as(const Address& address) {
  T specific{};
  std::memcpy(&specific, &address.storage, sizeof specific);
  return specific;
}

template <typename T>
Address from(const T& specific, std::size_t size = sizeof(T)) {
  Address address;
  std::memcpy(&address.storage, &specific, sizeof specific);
  address.length = static_cast<socklen_t>(size);
  return address;
}

bool is_link_local(const in6_addr& address) {
  return address.s6_addr[0] == 0xfe && (address.s6_addr[1] & 0xc0U) == 0x80;
}

bool same_ipv6(const sockaddr_in6& one, const sockaddr_in6& other) {
  return one.sin6_port == other.sin6_port &&
         std::memcmp(&one.sin6_addr, &other.sin6_addr, sizeof one.sin6_addr) == 0 &&
         (!is_link_local(one.sin6_addr) || one.sin6_scope_id == other.sin6_scope_id);
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty()) {
    return std::nullopt;
  }
  return port;
}

std::optional<Address> parse_unix(std::string_view name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.empty() || name.size() >= sizeof address.sun_path) {
    return std::nullopt;
  }
  const bool abstract = name.front() == '@';
  std::copy(name.begin(), name.end(), address.sun_path);
  if (abstract) {
    address.sun_path[0] = '\0';
  }
  return from(address, path_offset + name.size() + (abstract ? 0 : 1));
}

std::optional<Address> parse_ipv4(std::string_view host, std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (host != "*" && ::inet_pton(AF_INET, std::string(host).c_str(), &address.sin_addr) != 1) {
    return std::nullopt;
  }
  return from(address);
}

std::optional<Address> parse_ipv6(std::string_view host, std::uint16_t port) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  if (const auto percent = host.find('%'); percent != std::string_view::npos) {
    const std::string_view scope = host.substr(percent + 1);
    const auto [end, error] =
        std::from_chars(scope.data(), scope.data() + scope.size(), address.sin6_scope_id);
    if (error != std::errc{} || end != scope.data() + scope.size()) {
      return std::nullopt;
    }
    host = host.substr(0, percent);
  }
  if (::inet_pton(AF_INET6, std::string(host).c_str(), &address.sin6_addr) != 1) {
    return std::nullopt;
  }
  return from(address);
}

}  // namespace

Address::Address(const sockaddr* address, socklen_t size)
    : length(std::min<socklen_t>(size, sizeof storage)) {
  std::memcpy(&storage, address, length);
}

const sockaddr* Address::get() const {
  return reinterpret_cast<const sockaddr*>(&storage);
}
sockaddr* Address::get() {
  return reinterpret_cast<sockaddr*>(&storage);
}

bool Address::is_supported() const {
  switch (family()) {
    case AF_INET:
      return length >= sizeof(sockaddr_in);
    case AF_INET6:
      // The kernel takes the form without a scope id (RFC 2133), too.
      return length >= offsetof(sockaddr_in6, sin6_scope_id);
    case AF_UNIX:
      return length > path_offset && length <= sizeof(sockaddr_un) + 1;
    default:
      return false;
  }
}

std::uint16_t Address::port() const {
  switch (family()) {
    case AF_INET:
      return ntohs(as<sockaddr_in>(*this).sin_port);
    case AF_INET6:
      return ntohs(as<sockaddr_in6>(*this).sin6_port);
    default:
      return 0;
  }
}

bool Address::is_wildcard() const {
  switch (family()) {
    case AF_INET:
      return as<sockaddr_in>(*this).sin_addr.s_addr == INADDR_ANY;
    case AF_INET6: {
      const auto address = as<sockaddr_in6>(*this);
      return IN6_IS_ADDR_UNSPECIFIED(&address.sin6_addr);
    }
    default:
      return false;
  }
}

std::string_view Address::unix_path() const {
  if (!is_unix() || length <= path_offset) {
    return {};
  }
  const char* path = reinterpret_cast<const char*>(&storage) + path_offset;
  return {path, ::strnlen(path, length - path_offset)};
}

bool Address::is_abstract() const {
  return is_unix() && length > path_offset && unix_path().empty();
}

std::string_view Address::abstract_name() const {
  if (!is_abstract()) {
    return {};
  }
  const char* name = reinterpret_cast<const char*>(&storage) + path_offset;
  return {name + 1, length - path_offset - 1};
}

Address without_mapping(const Address& address) {
  if (address.family() != AF_INET6) {
    return address;
  }
  const auto mapped = as<sockaddr_in6>(address);
  if (!IN6_IS_ADDR_V4MAPPED(&mapped.sin6_addr)) {
    return address;
  }
  sockaddr_in plain{};
  plain.sin_family = AF_INET;
  plain.sin_port = mapped.sin6_port;
  std::memcpy(&plain.sin_addr, &mapped.sin6_addr.s6_addr[12], sizeof plain.sin_addr);
  return from(plain);
}

bool same_endpoint(const Address& one, const Address& other) {
  const Address a = without_mapping(one);
  const Address b = without_mapping(other);
  if (a.family() != b.family()) {
    return false;
  }
  switch (a.family()) {
    case AF_INET: {
      const auto x = as<sockaddr_in>(a);
      const auto y = as<sockaddr_in>(b);
      return x.sin_port == y.sin_port && x.sin_addr.s_addr == y.sin_addr.s_addr;
    }
    case AF_INET6:
      return same_ipv6(as<sockaddr_in6>(a), as<sockaddr_in6>(b));
    case AF_UNIX:
      return a.is_abstract() == b.is_abstract() && a.unix_path() == b.unix_path() &&
             a.abstract_name() == b.abstract_name();
    default:
      return false;
  }
}

bool came_through(const Address& local, const Address& listener) {
  if (local.is_unix() || listener.is_unix() || !without_mapping(listener).is_wildcard()) {
    return same_endpoint(local, listener);
  }
  // An IPv6 wildcard takes IPv4 peers too, unless V6ONLY: then no connection
  // with a mapped address exists, and there is no harm in saying yes.
  return local.port() == listener.port() &&
         (local.family() == listener.family() || listener.family() == AF_INET6);
}

std::size_t endpoint_hash(const Address& address) {
  const Address own = without_mapping(address);
  std::string_view host;
  if (own.family() == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(own.storage);
    host = {reinterpret_cast<const char*>(&in.sin_addr), sizeof in.sin_addr};
  } else {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(own.storage);
    host = {reinterpret_cast<const char*>(&in.sin6_addr), sizeof in.sin6_addr};
  }
  constexpr std::size_t spread = 65'599;
  return std::hash<std::string_view>{}(host) + own.port() * spread;
}

CameThrough::CameThrough(std::span<const Address> listeners) {
  for (const Address& listener : listeners) {
    if (listener.is_unix() || without_mapping(listener).is_wildcard()) {
      others_.push_back(&listener);
    } else {
      by_endpoint_.emplace(endpoint_hash(listener), &listener);
    }
  }
}

bool CameThrough::operator()(const Address& local) const {
  if (!local.is_unix()) {
    const auto [begin, end] = by_endpoint_.equal_range(endpoint_hash(local));
    if (std::any_of(begin, end,
                    [&](const auto& one) { return came_through(local, *one.second); })) {
      return true;
    }
  }
  return std::any_of(others_.begin(), others_.end(),
                     [&](const Address* one) { return came_through(local, *one); });
}

std::string to_string(const Address& address) {
  std::array<char, INET6_ADDRSTRLEN> host{};
  switch (address.family()) {
    case AF_INET: {
      const auto specific = as<sockaddr_in>(address);
      ::inet_ntop(AF_INET, &specific.sin_addr, host.data(), host.size());
      return std::string(host.data()) + ":" + std::to_string(address.port());
    }
    case AF_INET6: {
      const auto specific = as<sockaddr_in6>(address);
      ::inet_ntop(AF_INET6, &specific.sin6_addr, host.data(), host.size());
      std::string text = "[";
      text += host.data();
      if (is_link_local(specific.sin6_addr)) {
        text += "%" + std::to_string(specific.sin6_scope_id);
      }
      return text + "]:" + std::to_string(address.port());
    }
    case AF_UNIX:
      if (address.is_abstract()) {
        return "unix:@" + std::string(address.abstract_name());
      }
      return "unix:" + std::string(address.unix_path());
    default:
      return "an address of family " + std::to_string(address.family());
  }
}

std::optional<Address> parse_address(std::string_view text) {
  constexpr std::string_view unix_prefix = "unix:";
  // Only an abstract name goes on behind a zero.
  if (!text.starts_with("unix:@") && text.find('\0') != std::string_view::npos) {
    return std::nullopt;
  }
  if (text.substr(0, unix_prefix.size()) == unix_prefix) {
    return parse_unix(text.substr(unix_prefix.size()));
  }
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return std::nullopt;
  }
  const auto port = parse_port(text.substr(colon + 1));
  std::string_view host = text.substr(0, colon);
  if (!port) {
    return std::nullopt;
  }
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    return parse_ipv6(host.substr(1, host.size() - 2), *port);
  }
  return parse_ipv4(host, *port);
}

}  // namespace continuity
