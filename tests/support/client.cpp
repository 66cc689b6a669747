#include "support/client.hpp"

#include "support/waiting.hpp"

#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <netinet/in.h>
#include <random>
#include <stdexcept>
#include <unistd.h>

namespace continuity::test {
namespace {

std::string error_name() {
  return errno == EAGAIN || errno == EINPROGRESS ? "timeout" : ::strerrorname_np(errno);
}

in_port_t port_of(const std::string& text) {
  return htons(static_cast<in_port_t>(std::stoi(text.substr(text.rfind(':') + 1))));
}

}  // namespace

SocketAddress::SocketAddress(const std::string& text) {
  if (text.front() == '/' || text.front() == '@') {
    auto& path = reinterpret_cast<sockaddr_un&>(storage);
    path.sun_family = AF_UNIX;
    text.copy(path.sun_path, sizeof path.sun_path - 1);
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size());
    if (text.front() == '@') {
      path.sun_path[0] = '\0';
    } else {
      ++length;
    }
  } else if (text.front() == '[') {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = port_of(text);
    ::inet_pton(AF_INET6, text.substr(1, text.find(']') - 1).c_str(), &v6.sin6_addr);
    length = sizeof v6;
  } else {
    auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
    v4.sin_family = AF_INET;
    v4.sin_port = port_of(text);
    ::inet_pton(AF_INET, text.substr(0, text.rfind(':')).c_str(), &v4.sin_addr);
    length = sizeof v4;
  }
}

Connection::Connection(const std::string& address, int type) {
  const SocketAddress target(address);
  fd_ = ::socket(target.storage.ss_family, type | SOCK_CLOEXEC, 0);
  const timeval longest{.tv_sec = patience.count(), .tv_usec = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &longest, sizeof longest);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof longest);
  if (::connect(fd_, target.get(), target.length) != 0) {
    problem_ = error_name();
  }
}

Connection::~Connection() {
  ::close(fd_);
}

void Connection::send(const std::string& text) const {
  ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
}

std::string Connection::receive_line() {
  std::array<char, 512> buffer{};
  std::size_t end = 0;
  while (problem_.empty() && (end = partial_.find('\n')) == std::string::npos) {
    const ssize_t size = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (size <= 0) {
      problem_ = size == 0 ? "closed" : error_name();
    } else {
      partial_.append(buffer.data(), static_cast<std::size_t>(size));
    }
  }
  if (!problem_.empty()) {
    return problem_;
  }
  std::string line = partial_.substr(0, end);
  partial_.erase(0, end + 1);
  return line;
}

std::string Connection::ask(const std::string& line) {
  send(line + "\n");
  return receive_line();
}

std::string answer_from(const std::string& address, const std::string& line) {
  return Connection(address).ask(line);
}

namespace {

// Below those that the kernel gives to clients (ip_local_port_range): a client's
// datagram socket may get a port on which only a TCP socket is bound.
int some_port() {
  constexpr int lowest = 20'000;
  constexpr int highest = 32'000;
  static std::mt19937 random{std::random_device{}()};
  return std::uniform_int_distribution(lowest, highest)(random);
}

bool binds(int fd, const SocketAddress& address) {
  return ::bind(fd, address.get(), address.length) == 0;
}

}  // namespace

ReservedPort::ReservedPort(int family) : fd_(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  constexpr int attempts = 1000;
  const std::string host = family == AF_INET6 ? "[::1]:" : "127.0.0.1:";
  for (int i = 0; i < attempts && number_ == 0; ++i) {
    const int number = some_port();
    const SocketAddress address(host + std::to_string(number));
    const int datagrams = ::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    number_ = binds(datagrams, address) && binds(fd_, address) ? number : 0;
    ::close(datagrams);
  }
  if (number_ == 0) {
    throw std::runtime_error("no port: " + error_name());
  }
  // Only now: another one that is looking for a port must not get this one.
  const int on = 1;
  ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  address_ = host + std::to_string(number_);
}

ReservedPort::~ReservedPort() {
  ::close(fd_);
}

}  // namespace continuity::test
