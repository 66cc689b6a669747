#include "core/socket_options.hpp"

#include "core/owned_fd.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>

namespace continuity {
namespace {

enum class Kind {
  plain,    // any value of at most 16 bytes
  buffer,   // the kernel doubles what is set, and stops tuning
  only_on,  // may be switched on later, never off: others rely on it
};

struct Option {
  int level;
  int name;
  Kind kind;
};

constexpr auto options = std::to_array<Option>({
    {SOL_SOCKET, SO_KEEPALIVE, Kind::plain},
    {SOL_SOCKET, SO_LINGER, Kind::plain},
    {SOL_SOCKET, SO_OOBINLINE, Kind::plain},
    {SOL_SOCKET, SO_DONTROUTE, Kind::plain},
    {SOL_SOCKET, SO_MARK, Kind::plain},
    {SOL_SOCKET, SO_RCVLOWAT, Kind::plain},
    {SOL_SOCKET, SO_RCVTIMEO, Kind::plain},
    {SOL_SOCKET, SO_SNDTIMEO, Kind::plain},
    {SOL_SOCKET, SO_PASSCRED, Kind::plain},
    {SOL_SOCKET, SO_BUSY_POLL, Kind::plain},
    {SOL_SOCKET, SO_TIMESTAMP, Kind::plain},
    {SOL_SOCKET, SO_RCVBUF, Kind::buffer},
    {SOL_SOCKET, SO_SNDBUF, Kind::buffer},
    {SOL_SOCKET, SO_REUSEADDR, Kind::only_on},
    {SOL_SOCKET, SO_REUSEPORT, Kind::only_on},
    {IPPROTO_IP, IP_TOS, Kind::plain},
    {SOL_SOCKET, SO_PRIORITY, Kind::plain},  // after IP_TOS, which sets it too
    {IPPROTO_IP, IP_TTL, Kind::plain},
    {IPPROTO_IP, IP_TRANSPARENT, Kind::plain},
    {IPPROTO_IP, IP_FREEBIND, Kind::plain},
    {IPPROTO_IP, IP_MTU_DISCOVER, Kind::plain},
    {IPPROTO_IPV6, IPV6_TCLASS, Kind::plain},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, Kind::plain},
    {IPPROTO_IPV6, IPV6_TRANSPARENT, Kind::plain},
    {IPPROTO_IPV6, IPV6_FREEBIND, Kind::plain},
    {IPPROTO_TCP, TCP_NODELAY, Kind::plain},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, Kind::plain},
    {IPPROTO_TCP, TCP_KEEPIDLE, Kind::plain},
    {IPPROTO_TCP, TCP_KEEPINTVL, Kind::plain},
    {IPPROTO_TCP, TCP_KEEPCNT, Kind::plain},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, Kind::plain},
    {IPPROTO_TCP, TCP_SYNCNT, Kind::plain},
    {IPPROTO_TCP, TCP_LINGER2, Kind::plain},
    {IPPROTO_TCP, TCP_FASTOPEN, Kind::plain},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, Kind::plain},
    {IPPROTO_TCP, TCP_CONGESTION, Kind::plain},
});

// Of datagram sockets besides: to ask for them is not free, and there may be thousands of
// listeners.
constexpr auto datagram_options = std::to_array<Option>({
    {SOL_SOCKET, SO_BROADCAST, Kind::plain},
    {SOL_SOCKET, SO_TIMESTAMPNS, Kind::plain},
    {SOL_SOCKET, SO_RXQ_OVFL, Kind::plain},
    {IPPROTO_IP, IP_PKTINFO, Kind::plain},
    {IPPROTO_IP, IP_RECVORIGDSTADDR, Kind::plain},
    {IPPROTO_IP, IP_RECVTOS, Kind::plain},
    {IPPROTO_IP, IP_RECVTTL, Kind::plain},
    {IPPROTO_IP, IP_RECVERR, Kind::plain},
    {IPPROTO_IP, IP_MULTICAST_TTL, Kind::plain},
    {IPPROTO_IP, IP_MULTICAST_LOOP, Kind::plain},
    {IPPROTO_IP, IP_MULTICAST_ALL, Kind::plain},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, Kind::plain},
    {IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, Kind::plain},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, Kind::plain},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, Kind::plain},
    {IPPROTO_IPV6, IPV6_RECVERR, Kind::plain},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, Kind::plain},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, Kind::plain},
    {IPPROTO_UDP, UDP_GRO, Kind::plain},
    {IPPROTO_UDP, UDP_SEGMENT, Kind::plain},
});

struct Value {
  std::array<std::byte, 16> bytes{};
  socklen_t size = 0;

  bool operator==(const Value& other) const {
    return size == other.size &&
           std::equal(bytes.begin(), bytes.begin() + size, other.bytes.begin());
  }
  [[nodiscard]] int as_int() const {
    int number = 0;
    std::memcpy(&number, bytes.data(), std::min<std::size_t>(size, sizeof number));
    return number;
  }
};

bool get(const Sys& sys, int fd, const Option& option, Value& value) {
  value.size = static_cast<socklen_t>(value.bytes.size());
  return sys.getsockopt(fd, option.level, option.name, value.bytes.data(), &value.size) == 0;
}

OwnedFd pristine_twin(const Sys& sys, int fd) {
  int domain = 0;
  int type = 0;
  int protocol = 0;
  socklen_t size = sizeof domain;
  sys.getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  sys.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  sys.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
  return {sys, sys.socket(domain, type | SOCK_CLOEXEC, protocol)};
}

// What to set to make the listener's value the model's; false: nothing.
bool difference(const Sys& sys, const Option& option, int model, int listener, int pristine,
                Value& value) {
  Value current;
  Value fresh;
  if (!get(sys, model, option, value) || !get(sys, listener, option, current) || value == current) {
    return false;
  }
  switch (option.kind) {
    case Kind::plain:
      return true;
    case Kind::only_on:
      return value.as_int() != 0;
    case Kind::buffer: {
      if (!get(sys, pristine, option, fresh) || fresh == value) {
        return false;
      }
      const int half = value.as_int() / 2;
      std::memcpy(value.bytes.data(), &half, sizeof half);
      return true;
    }
  }
  return false;
}

// Calls visit(option) for each that a socket of this kind may have.
template <typename Visit>
void for_each_option(const Sys& sys, int fd, Visit visit) {
  std::for_each(options.begin(), options.end(), visit);
  int type = 0;
  socklen_t size = sizeof type;
  if (sys.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM) {
    std::for_each(datagram_options.begin(), datagram_options.end(), visit);
  }
}

}  // namespace

bool is_carried_over(int level, int name) {
  const auto is_it = [&](const Option& option) {
    return option.level == level && option.name == name;
  };
  return std::any_of(options.begin(), options.end(), is_it) ||
         std::any_of(datagram_options.begin(), datagram_options.end(), is_it);
}

std::vector<OptionChange> compare_options(const Sys& sys, int model, int listener) {
  std::vector<OptionChange> changes;
  const OwnedFd pristine = pristine_twin(sys, model);
  for_each_option(sys, model, [&](const Option& option) {
    Value before;
    Value after;
    if (difference(sys, option, model, listener, pristine.get(), after) &&
        get(sys, listener, option, before)) {
      changes.push_back({.level = option.level,
                         .name = option.name,
                         .before = before.as_int(),
                         .after = after.as_int()});
    }
  });
  return changes;
}

CarriedOver carry_over(const Sys& sys, int model, int listener) {
  CarriedOver result;
  const OwnedFd pristine = pristine_twin(sys, model);
  for_each_option(sys, model, [&](const Option& option) {
    Value value;
    if (difference(sys, option, model, listener, pristine.get(), value)) {
      const bool set =
          sys.setsockopt(listener, option.level, option.name, value.bytes.data(), value.size) == 0;
      ++(set ? result.changed : result.failed);
    }
  });
  const CarriedOver blocking = carry_over_blocking(sys, model, listener);
  return {.changed = result.changed + blocking.changed, .failed = result.failed + blocking.failed};
}

CarriedOver carry_over_blocking(const Sys& sys, int model, int listener) {
  CarriedOver result;
  const int wanted = sys.fcntl(model, F_GETFL, 0);
  const int current = sys.fcntl(listener, F_GETFL, 0);
  if (wanted >= 0 && current >= 0 && ((wanted ^ current) & O_NONBLOCK) != 0) {
    ++(sys.fcntl(listener, F_SETFL, wanted) == 0 ? result.changed : result.failed);
  }
  return result;
}

}  // namespace continuity
