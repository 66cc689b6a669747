#include "core/stand_in.hpp"

#include "core/log.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <limits>
#include <linux/filter.h>
#include <netinet/in.h>
#include <span>
#include <sys/file.h>
#include <sys/un.h>

namespace continuity {
namespace {

bool set_least_hops(const Sys& sys, int fd, int family, int hops) {
  const bool is_v6 = family == AF_INET6;
  return sys.setsockopt(fd, is_v6 ? IPPROTO_IPV6 : IPPROTO_IP, is_v6 ? IPV6_MINHOPCOUNT : IP_MINTTL,
                        &hops, sizeof hops) == 0;
}

// What passes is what the kernel sees of a packet from its TCP header on.
Status filter_packets(const Sys& sys, int fd, int family, std::span<sock_filter> program) {
  const sock_fprog filter{.len = static_cast<unsigned short>(program.size()),
                          .filter = program.data()};
  if (sys.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0) {
    return Done{};
  }
  // Some kernels leave filters to root. A packet that has not passed a single
  // hop and began with the highest hop count there is, is not to be expected.
  constexpr int most_hops = 255;
  if (!set_least_hops(sys, fd, family, most_hops)) {
    return last_error("close a socket to everybody");
  }
  return Done{};
}

// A port of the loopback that nobody can reach, even before it has an address.
Status bind_unreachable(const Sys& sys, int fd, int family) {
  std::array drop{sock_filter{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 0}};
  if (auto closed = filter_packets(sys, fd, family, drop); !closed) {
    return closed;
  }
  const int on = 1;
  sys.setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof on);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_addr = in6addr_loopback;
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool is_v6 = family == AF_INET6;
  if (sys.bind(fd, is_v6 ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4),
               is_v6 ? sizeof v6 : sizeof v4) != 0) {
    return last_error("bind a stand-in");
  }
  return Done{};
}

// An abstract name could be connected to by anybody; a path that is gone, in a
// directory that only we may enter, by nobody.
Status bind_unlinked(const Sys& sys, int fd, int directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto name = compose("{}{}.{}", stand_in_prefix, sys.getpid(), sys.number(fd));
  const auto path = compose("/proc/self/fd/{}/{}", sys.number(directory), name);
  std::memcpy(address.sun_path, path.data(), path.size());
  sys.unlinkat(directory, name.c_str(), 0);  // left over by one that was killed just here
  if (sys.bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return last_error("bind a stand-in");
  }
  sys.unlinkat(directory, name.c_str(), 0);
  return Done{};
}

}  // namespace

namespace {

// The kernel passes a member of a group over that has a peer (5.4,
// reuseport_select_sock_by_hash in net/core/sock_reuseport.c): itself will do.
Status leave_group(const Sys& sys, int fd, const Address& address) {
  int grouped = 0;
  socklen_t size = sizeof grouped;
  if (sys.getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &grouped, &size) != 0 || grouped == 0) {
    return Error{"take a datagram socket out of its group", ENOTSUP};
  }
  if (sys.connect(fd, address.get(), address.length) != 0) {
    return last_error("take a datagram socket out of its group");
  }
  return Done{};
}

// As if it were bound to a network device that does not exist: whoever comes finds the
// next listener that fits (compute_score in net/ipv4/inet_hashtables.c), and who has
// begun is known by his own entry, without a device. Linux 5.0.
constexpr int so_bindtoifindex = 62;
constexpr int no_device = std::numeric_limits<int>::max();

bool bind_to_device(const Sys& sys, int fd, int device) {
  return sys.setsockopt(fd, SOL_SOCKET, so_bindtoifindex, &device, sizeof device) == 0;
}

// It is free to everybody, but only CAP_NET_RAW takes it back (sock_bindtoindex_locked).
bool may_leave_devices(const Sys& sys) {
  const OwnedFd probe(sys, sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return probe.is_open() && bind_to_device(sys, probe.get(), no_device) &&
         bind_to_device(sys, probe.get(), 0);
}

}  // namespace

namespace {

bool is_set(const Sys& sys, int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return sys.getsockopt(fd, level, name, &value, &size) == 0 && value != 0;
}

void set(const Sys& sys, int fd, int level, int name, bool value) {
  const int number = value ? 1 : 0;
  sys.setsockopt(fd, level, name, &number, sizeof number);
}

// An IPv4 address as an IPv6 socket binds it.
sockaddr_in6 as_mapped(const Address& address) {
  sockaddr_in6 mapped{};
  mapped.sin6_family = AF_INET6;
  mapped.sin6_port = htons(address.port());
  sockaddr_in own{};
  std::memcpy(&own, address.get(), sizeof own);
  constexpr std::size_t prefix = 12;
  mapped.sin6_addr.s6_addr[prefix - 2] = mapped.sin6_addr.s6_addr[prefix - 1] = 0xff;
  std::memcpy(&mapped.sin6_addr.s6_addr[prefix], &own.sin_addr, sizeof own.sin_addr);
  return mapped;
}

}  // namespace

// Of two sockets with one address the kernel gives a datagram to the better one, and of two
// alike to the first of its list (compute_score and udp4_lib_lookup2 in net/ipv4/udp.c, and
// the same in net/ipv6/udp.c). To an IPv4 peer an IPv6 socket is the worse one. And among
// IPv6 sockets one with SO_REUSEPORT is put at the end of the list (udp_lib_get_port).
// Whether they may share the address is asked when one is bound, and only then.
OwnedFd make_answering(const Sys& sys, int fd, const Listener& listener, bool several) {
  const Address& address = listener.address;
  const bool is_v4 = address.family() == AF_INET;
  if (address.is_unix() || (!is_v4 && is_set(sys, fd, SOL_SOCKET, SO_REUSEPORT))) {
    return {};
  }
  OwnedFd answering(sys, sys.socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!answering.is_open()) {
    return {};
  }
  if (!listener.bound_device.empty()) {
    sys.setsockopt(answering.get(), SOL_SOCKET, SO_BINDTODEVICE, listener.bound_device.c_str(),
                   static_cast<socklen_t>(listener.bound_device.size()));
  }
  set(sys, answering.get(), IPPROTO_IPV6, IPV6_V6ONLY, !is_v4 && listener.v6only);
  set(sys, answering.get(), SOL_SOCKET, SO_REUSEADDR, true);
  set(sys, answering.get(), SOL_SOCKET, SO_REUSEPORT, !is_v4 || several);
  const bool is_shared = is_set(sys, fd, SOL_SOCKET, SO_REUSEADDR);
  const sockaddr_in6 mapped = is_v4 ? as_mapped(address) : sockaddr_in6{};
  set(sys, fd, SOL_SOCKET, SO_REUSEADDR, true);
  const bool bound =
      sys.bind(answering.get(), is_v4 ? reinterpret_cast<const sockaddr*>(&mapped) : address.get(),
               is_v4 ? sizeof mapped : address.length) == 0;
  set(sys, fd, SOL_SOCKET, SO_REUSEADDR, is_shared);
  set(sys, answering.get(), SOL_SOCKET, SO_REUSEADDR, false);
  set(sys, answering.get(), SOL_SOCKET, SO_BROADCAST, is_set(sys, fd, SOL_SOCKET, SO_BROADCAST));
  if (!bound) {
    return {};
  }
  return answering;
}

bool is_passed_over(const Sys& sys, int fd) {
  int device = 0;
  socklen_t size = sizeof device;
  return sys.getsockopt(fd, SOL_SOCKET, so_bindtoifindex, &device, &size) == 0 &&
         device == no_device;
}

Status close_to_newcomers(const Sys& sys, int fd, const Listener& listener, bool grouped) {
  const int family = listener.address.family();
  if (listener.address.is_unix()) {
    return Error{"close a UNIX socket to newcomers", ENOTSUP};
  }
  if (listener.is_datagram()) {
    return leave_group(sys, fd, listener.address);
  }
  if (is_passed_over(sys, fd)) {
    return Done{};
  }
  // Of a group the kernel takes a member without another look at it.
  if (!grouped && listener.bound_device.empty() && may_leave_devices(sys) &&
      bind_to_device(sys, fd, no_device)) {
    return Done{};
  }
  // Of a connection only the first packet has SYN and no ACK. What follows is let
  // through: who has begun is still to be served.
  constexpr unsigned flags_at = 13;
  constexpr unsigned syn = 0x02;
  constexpr unsigned ack = 0x10;
  constexpr unsigned everything = 0xffffffff;
  std::array first_packets{
      sock_filter{.code = BPF_LD | BPF_B | BPF_ABS, .jt = 0, .jf = 0, .k = flags_at},
      sock_filter{.code = BPF_ALU | BPF_AND | BPF_K, .jt = 0, .jf = 0, .k = syn | ack},
      sock_filter{.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 0, .jf = 1, .k = syn},
      sock_filter{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 0},
      sock_filter{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = everything}};
  return filter_packets(sys, fd, family, first_packets);
}

void open_to_newcomers(const Sys& sys, int fd, const Listener& listener) {
  const int nothing = 0;
  if (is_passed_over(sys, fd)) {
    bind_to_device(sys, fd, nothing);
    return;
  }
  if (sys.setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof nothing) == 0) {
    return;
  }
  set_least_hops(sys, fd, listener.address.family(), nothing);
}

// What is set on the listener for that, and set back, is shared.
OwnedFd StandIns::answering_for(int fd, const Listener& listener) const {
  const OwnedFd turn(*sys_, sys_->openat(directory_, ".", O_RDONLY | O_CLOEXEC, 0));
  while (turn.is_open() && sys_->flock(turn.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  return make_answering(*sys_, fd, listener, true);
}

Result<OwnedFd> StandIns::make(int family, int type) const {
  OwnedFd fd(*sys_, sys_->socket(family, type | SOCK_CLOEXEC, 0));
  if (!fd.is_open()) {
    return last_error("make a stand-in");
  }
  if (type == SOCK_DGRAM) {
    return fd;  // without an address nobody can send to it
  }
  const auto bound = family == AF_UNIX ? bind_unlinked(*sys_, fd.get(), directory_)
                                       : bind_unreachable(*sys_, fd.get(), family);
  if (!bound) {
    return bound.error();
  }
  if (sys_->listen(fd.get(), 1) != 0) {
    return last_error("listen on a stand-in");
  }
  return fd;
}

Result<int> StandIns::get(int fd, const Listener& listener, bool blocking) {
  timeval timeout{};
  socklen_t length = sizeof timeout;
  sys_->getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &length);
  const int family = listener.address.family();
  for (const Made& made : made_) {
    if (made.family == family && made.type == listener.type && made.blocking == blocking &&
        made.timeout.tv_sec == timeout.tv_sec && made.timeout.tv_usec == timeout.tv_usec) {
      return made.fd.get();
    }
  }
  auto stand_in = make(family, listener.type);
  if (!stand_in) {
    return stand_in.error();
  }
  sys_->setsockopt(stand_in->get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  if (!blocking && sys_->fcntl(stand_in->get(), F_SETFL, O_NONBLOCK) != 0) {
    return last_error("make a stand-in non-blocking");
  }
  const int number = stand_in->get();
  made_.push_back({family, listener.type, timeout, blocking, std::move(*stand_in)});
  return number;
}

}  // namespace continuity
