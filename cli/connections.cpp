#include "cli/connections.hpp"

#include "core/directory.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

constexpr unsigned listens = 1U << 10U;  // TCP_LISTEN of the kernel's net/tcp_states.h
constexpr unsigned is_ending = 1U << 3U | 1U << 6U | 1U << 7U;  // nobody has it any more

Address address_of(int family, const __be32 (&words)[4], __be16 port) {
  if (family == AF_INET) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = port;
    std::memcpy(&address.sin_addr, words, sizeof address.sin_addr);
    return {reinterpret_cast<const sockaddr*>(&address), sizeof address};
  }
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = port;
  std::memcpy(&address.sin6_addr, words, sizeof address.sin6_addr);
  return {reinterpret_cast<const sockaddr*>(&address), sizeof address};
}

// What the kernel tells about a connection beyond its addresses: how long nothing has come
// and nothing has gone. It does not tell how old it is.
std::optional<std::int64_t> idle_time(const inet_diag_msg& message, std::size_t length) {
  const char* at = reinterpret_cast<const char*>(&message) + NLMSG_ALIGN(sizeof message);
  const char* const end = reinterpret_cast<const char*>(&message) + length;
  while (at + sizeof(rtattr) <= end) {
    rtattr attribute{};
    std::memcpy(&attribute, at, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || at + attribute.rta_len > end) {
      break;
    }
    if (attribute.rta_type == INET_DIAG_INFO) {
      tcp_info info{};
      std::memcpy(&info, at + RTA_LENGTH(0),
                  std::min<std::size_t>(sizeof info, attribute.rta_len - RTA_LENGTH(0)));
      return std::min(info.tcpi_last_data_recv, info.tcpi_last_data_sent);
    }
    at += RTA_ALIGN(attribute.rta_len);
  }
  return std::nullopt;
}

}  // namespace

Connections::Connections() : proc_(open_proc(libc_sys())) {
  read_tcp(AF_INET);
  read_tcp(AF_INET6);
  read_unix();
  for (const auto& [process, parent] : Processes(libc_sys(), proc_.get()).parents()) {
    children_.emplace(parent, process);
  }
}

void Connections::read_tcp(int family) {
  const OwnedFd diag(libc_sys(),
                     ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  struct {
    nlmsghdr header;
    inet_diag_req_v2 question;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.question.sdiag_family = static_cast<__u8>(family);
  request.question.sdiag_protocol = IPPROTO_TCP;
  request.question.idiag_ext = 1U << (INET_DIAG_INFO - 1U);
  request.question.idiag_states = ~is_ending;
  if (!diag.is_open() || ::send(diag.get(), &request, sizeof request, 0) < 0) {
    return;
  }
  std::vector<char> buffer(std::size_t{64} * 1024);
  for (;;) {
    const ssize_t size = ::recv(diag.get(), buffer.data(), buffer.size(), 0);
    if (size <= 0) {
      return;
    }
    auto rest = static_cast<std::size_t>(size);
    const char* at = buffer.data();
    while (rest >= sizeof(nlmsghdr)) {
      nlmsghdr header{};
      std::memcpy(&header, at, sizeof header);
      if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR ||
          header.nlmsg_len < sizeof header || header.nlmsg_len > rest) {
        return;
      }
      const auto& message = *reinterpret_cast<const inet_diag_msg*>(at + NLMSG_HDRLEN);
      const Address local = address_of(family, message.id.idiag_src, message.id.idiag_sport);
      if (1U << message.idiag_state == listens) {
        queues_[to_string(local)] = {message.idiag_rqueue, message.idiag_wqueue};
      } else if (message.idiag_inode != 0) {
        by_inode_[message.idiag_inode] = {
            .local = local,
            .peer = address_of(family, message.id.idiag_dst, message.id.idiag_dport),
            .inode = message.idiag_inode,
            .idle = idle_time(message, header.nlmsg_len - NLMSG_HDRLEN)};
      }
      const std::size_t step = std::min<std::size_t>(NLMSG_ALIGN(header.nlmsg_len), rest);
      at += step;
      rest -= step;
    }
  }
}

void Connections::read_unix() {
  for_each_line(read_proc(libc_sys(), proc_.get(), "net/unix"), [&](std::string_view line) {
    if (const auto socket = parse_unix_line(line); socket) {
      by_inode_[socket->inode] = {.local = socket->local, .inode = socket->inode};
    }
  });
}

// What a server has started under another name, and what has taken over from it, is not
// below its members: a successor that it has started itself is.
std::set<pid_t> Connections::processes_of(const Server& server) const {
  std::set<pid_t> processes(server.report.members.begin(), server.report.members.end());
  processes.insert(server.pid);
  std::erase_if(processes, [](pid_t process) { return process <= 0; });
  std::vector<pid_t> to_visit(processes.begin(), processes.end());
  while (!to_visit.empty()) {
    const pid_t parent = to_visit.back();
    to_visit.pop_back();
    const auto [begin, end] = children_.equal_range(parent);
    for (auto child = begin; child != end; ++child) {
      if (child->second != server.report.rival_pid && processes.insert(child->second).second) {
        to_visit.push_back(child->second);
      }
    }
  }
  return processes;
}

std::vector<Connection> Connections::of(const Server& server) const {
  std::vector<Address> listeners;
  for (const Listener& listener : server.report.listeners) {
    if (!listener.is_datagram()) {
      listeners.push_back(listener.address);
    }
  }
  const CameThrough through(listeners);
  std::map<std::uint64_t, Connection> found;
  for (const pid_t process : processes_of(server)) {
    const std::string path = std::to_string(process) + "/fd";
    const OwnedFd directory(libc_sys(), libc_sys().openat(proc_.get(), path.c_str(),
                                                          O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    if (!directory.is_open()) {
      continue;
    }
    static_cast<void>(for_each_number(libc_sys(), directory.get(), [&](int fd) {
      const std::uint64_t inode =
          socket_in_link(read_link(libc_sys(), directory.get(), std::to_string(fd)));
      const auto connection = by_inode_.find(inode);
      if (inode != 0 && connection != by_inode_.end() && through(connection->second.local) &&
          found.emplace(inode, connection->second).second) {
        found[inode].pid = process;
        found[inode].fd = fd;
      }
    }));
  }
  std::vector<Connection> connections;
  for (const auto& [inode, connection] : found) {
    connections.push_back(connection);
  }
  std::stable_sort(connections.begin(), connections.end(),
                   [](const Connection& one, const Connection& other) {
                     return one.idle.value_or(-1) > other.idle.value_or(-1);
                   });
  return connections;
}

std::optional<Queue> Connections::queue_at(const Address& listener) const {
  const auto found = queues_.find(to_string(listener));
  return found == queues_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace continuity::cli
