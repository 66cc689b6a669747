#include "connection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/time.h>
#include <utility>

namespace continuity::load {
namespace {

using std::chrono::ceil;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

// Whether one of the events comes in time.
bool await(int fd, short events, Deadline deadline) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  while (true) {
    const auto rest = std::max(ceil<milliseconds>(deadline - Clock::now()), milliseconds{0});
    const int ready = ::poll(&entry, 1, static_cast<int>(rest.count()));
    if (ready >= 0 || errno != EINTR) {
      return ready > 0;
    }
  }
}

int enable(int fd, int level, int option) {
  const int on = 1;
  return ::setsockopt(fd, level, option, &on, sizeof on);
}

}  // namespace

Verdict Connection::connect(const Endpoint& endpoint, Sources& sources, Deadline deadline) {
  fd_ = Fd(::socket(endpoint.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd_.is_open()) {
    return {Outcome::client_error, verdict_of_errno(errno, "socket").detail};
  }
  if (endpoint.family() == AF_UNIX) {
    return connect_unix(endpoint, deadline);
  }
  if (auto bound = bind_source(endpoint, sources); !bound.is_ok()) {
    return bound;
  }
  return connect_inet(endpoint, deadline);
}

Verdict Connection::bind_source(const Endpoint& endpoint, Sources& sources) const {
  const auto* address = reinterpret_cast<const sockaddr_in*>(endpoint.get());
  if (endpoint.family() != AF_INET || ntohl(address->sin_addr.s_addr) >> 24U != IN_LOOPBACKNET) {
    return {};
  }
  sockaddr_in source{};
  source.sin_family = AF_INET;
  source.sin_addr.s_addr = htonl(sources.next());
  // The port is chosen at connect, where ports in use towards others do not count.
  if (enable(fd_.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) != 0 ||
      ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&source), sizeof source) != 0) {
    return {Outcome::client_error, verdict_of_errno(errno, "bind").detail};
  }
  return {};
}

Verdict Connection::connect_inet(const Endpoint& endpoint, Deadline deadline) const {
  // A request comes in two writes: the second must not wait for an acknowledgement.
  enable(fd_.get(), IPPROTO_TCP, TCP_NODELAY);
  ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  if (::connect(fd_.get(), endpoint.get(), endpoint.length) == 0) {
    return {};
  }
  if (errno != EINPROGRESS) {
    return verdict_of_errno(errno, "connect");
  }
  if (!await(fd_.get(), POLLOUT, deadline)) {
    return {Outcome::timeout, "not connected in time"};
  }
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? Verdict{} : verdict_of_errno(error, "connect");
}

// A non-blocking connect to a UNIX socket with a full backlog fails at once,
// without a way to wait for room; the blocking one minds SO_SNDTIMEO.
Verdict Connection::connect_unix(const Endpoint& endpoint, Deadline deadline) const {
  const auto rest = std::max<nanoseconds>(deadline - Clock::now(), milliseconds{1});
  const auto whole = std::chrono::floor<seconds>(rest);
  const timeval limit{.tv_sec = whole.count(), .tv_usec = (rest - whole).count() / 1000};
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (::connect(fd_.get(), endpoint.get(), endpoint.length) != 0) {
    return verdict_of_errno(errno, "connect");
  }
  ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  return {};
}

Verdict Connection::send(std::string_view bytes, Deadline deadline) const {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EPIPE) {
      return {};  // the peer has closed: what there is to receive tells how
    } else if (errno != EAGAIN && errno != EINTR) {
      return verdict_of_errno(errno, "send");
    } else if (!await(fd_.get(), POLLOUT, deadline)) {
      return {Outcome::timeout, "not sent in time"};
    }
  }
  return {};
}

Verdict Connection::receive(Answer& answer, Deadline deadline) const {
  std::array<char, 1U << 16U> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  while (!answer.is_decided()) {
    const ssize_t received = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (received > 0) {
      answer.add({buffer.data(), static_cast<std::size_t>(received)});
    } else if (received == 0) {
      break;
    } else if (errno != EAGAIN && errno != EINTR) {
      return verdict_of_errno(errno, fmt::format("after {} bytes of an answer", answer.size()));
    } else if (!await(fd_.get(), POLLIN, deadline)) {
      return {Outcome::timeout, fmt::format("{} bytes of an answer in time", answer.size())};
    }
  }
  return answer.verdict();
}

Verdict Connection::look_at_idle() const {
  char byte = 0;
  const ssize_t received = ::recv(fd_.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (received == 0) {
    return {Outcome::closed_idle, "closed between two requests"};
  }
  if (received > 0) {
    return {Outcome::other, "bytes that nobody asked for"};
  }
  return errno == EAGAIN ? Verdict{} : verdict_of_errno(errno, "between two requests");
}

bool Connection::peer_closes_within(Clock::duration time) const {
  pollfd entry{.fd = fd_.get(), .events = POLLRDHUP, .revents = 0};
  const timespec limit{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(time).count()};
  return ::ppoll(&entry, 1, &limit, nullptr) > 0;
}

}  // namespace continuity::load
