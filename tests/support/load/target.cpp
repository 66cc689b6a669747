#include "target.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <stdexcept>
#include <sys/un.h>

namespace continuity::load {
namespace {

Endpoint parse_unix(std::string_view path) {
  Endpoint endpoint;
  // sockaddr_storage is large enough and aligned for every family.
  auto* address = reinterpret_cast<sockaddr_un*>(&endpoint.address);
  if (path.size() >= sizeof address->sun_path) {
    throw std::invalid_argument(fmt::format("{} is too long for a UNIX socket", path));
  }
  address->sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), static_cast<char*>(address->sun_path));
  const bool is_abstract = path.front() == '@';
  if (is_abstract) {
    address->sun_path[0] = '\0';
  }
  endpoint.length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (is_abstract ? 0 : 1));
  return endpoint;
}

Endpoint resolve(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int problem = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (problem != 0) {
    throw std::invalid_argument(fmt::format("{}:{}: {}", host, port, ::gai_strerror(problem)));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  Endpoint endpoint;
  std::memcpy(&endpoint.address, found->ai_addr, found->ai_addrlen);
  endpoint.length = found->ai_addrlen;
  return endpoint;
}

// The character after a backslash; moves `rest` behind what it read.
char take_escape(std::string_view& rest) {
  constexpr std::string_view letters = "rnt0\\";
  constexpr std::string_view meanings("\r\n\t\0\\", 5);
  const auto known = rest.empty() ? std::string_view::npos : letters.find(rest.front());
  if (known != std::string_view::npos) {
    rest.remove_prefix(1);
    return meanings[known];
  }
  unsigned value = 0;
  if (rest.size() >= 3 && rest.front() == 'x' &&
      std::from_chars(rest.data() + 1, rest.data() + 3, value, 16).ptr == rest.data() + 3) {
    rest.remove_prefix(3);
    return static_cast<char>(value);
  }
  throw std::invalid_argument(fmt::format("cannot read the escape \\{}", rest.substr(0, 3)));
}

}  // namespace

const sockaddr* Endpoint::get() const {
  return reinterpret_cast<const sockaddr*>(&address);
}
sockaddr* Endpoint::get() {
  return reinterpret_cast<sockaddr*>(&address);
}

Endpoint parse_endpoint(const std::string& text) {
  if (text.starts_with('@') || text.find('/') != std::string::npos) {
    return parse_unix(text);
  }
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    throw std::invalid_argument(
        fmt::format("{} is neither HOST:PORT nor a path with a slash", text));
  }
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  return resolve(host, text.substr(colon + 1));
}

Exchange http_exchange(const std::string& host, const std::string& path, int status) {
  const std::string head = fmt::format("GET {} HTTP/1.1\r\nHost: {}\r\n", path, host);
  return {.is_http = true,
          .status = status,
          .expect = {},
          .request = head + "Connection: close\r\n\r\n",
          .kept_request = head + "Connection: keep-alive\r\n\r\n"};
}

Exchange text_exchange(const std::string& send, const std::string& expect) {
  return {.is_http = false, .status = 0, .expect = expect, .request = send, .kept_request = send};
}

Target parse_url(std::string_view url, int status) {
  constexpr std::string_view scheme = "http://";
  if (!url.starts_with(scheme)) {
    throw std::invalid_argument(fmt::format("{} does not begin with http://", url));
  }
  url.remove_prefix(scheme.size());
  const auto slash = std::min(url.find('/'), url.size());
  const std::string host(url.substr(0, slash));
  const std::string path(slash < url.size() ? url.substr(slash) : "/");
  const bool has_port = host.rfind(':') != std::string::npos && !host.ends_with(']');
  return {parse_endpoint(has_port ? host : host + ":80"), http_exchange(host, path, status)};
}

std::string unescape(std::string_view text) {
  std::string plain;
  while (!text.empty()) {
    const char first = text.front();
    text.remove_prefix(1);
    plain += first == '\\' ? take_escape(text) : first;
  }
  return plain;
}

}  // namespace continuity::load
