#include "owners.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <utility>

namespace continuity::load {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

bool holds(pid_t pid, const std::string& link) {
  std::error_code gone;
  std::filesystem::directory_iterator entry(fmt::format("/proc/{}/fd", pid), gone);
  for (; !gone && entry != std::filesystem::directory_iterator{}; entry.increment(gone)) {
    std::error_code closed;
    if (std::filesystem::read_symlink(entry->path(), closed) == link) {
      return true;
    }
  }
  return false;
}

std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  std::error_code gone;
  std::filesystem::directory_iterator task(fmt::format("/proc/{}/task", pid), gone);
  for (; !gone && task != std::filesystem::directory_iterator{}; task.increment(gone)) {
    std::ifstream list(task->path() / "children");
    for (pid_t child = 0; list >> child;) {
      children.push_back(child);
    }
  }
  return children;
}

// `others` have been asked for themselves. One of them that had not got its number for
// the connection yet, and is a child of this process, may have it by now.
bool has_descendant_that_holds(pid_t pid, const std::string& link,
                               const std::vector<pid_t>& others) {
  std::vector<pid_t> family = children_of(pid);
  for (std::size_t i = 0; i < family.size(); ++i) {
    if (std::find(others.begin(), others.end(), family[i]) != others.end()) {
      continue;
    }
    if (holds(family[i], link)) {
      return true;
    }
    const auto younger = children_of(family[i]);
    family.insert(family.end(), younger.begin(), younger.end());
  }
  return false;
}

// A number out of /proc/PID/stat, counted as in proc(5); 0 if there is none.
std::uint64_t stat_field(pid_t pid, int field) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  // After the command, which may contain anything, comes field 3.
  const auto end = line.rfind(')');
  std::istringstream words(end == std::string::npos ? "" : line.substr(end + 1));
  std::string word;
  for (int i = 3; i <= field && words >> word; ++i) {
  }
  return words ? std::strtoull(word.c_str(), nullptr, 10) : 0;
}

pid_t parent_of(pid_t pid) {
  constexpr int field = 4;
  return static_cast<pid_t>(stat_field(pid, field));
}

// Tells a process from others that had, or will have, its number.
std::uint64_t start_of(pid_t pid) {
  constexpr int field = 22;
  return stat_field(pid, field);
}

// Or is one of them.
bool descends_from(pid_t pid, std::span<const pid_t> ancestors) {
  while (pid > 0 && std::find(ancestors.begin(), ancestors.end(), pid) == ancestors.end()) {
    pid = parent_of(pid);
  }
  return pid > 0;
}

// The answer to a request for one socket; nothing if there is no such socket.
template <typename Request>
std::optional<std::span<const char>> ask(int netlink, const Request& body, std::span<char> buffer) {
  struct {
    nlmsghdr header;
    Request body;
  } request{{.nlmsg_len = sizeof request,
             .nlmsg_type = SOCK_DIAG_BY_FAMILY,
             .nlmsg_flags = NLM_F_REQUEST,
             .nlmsg_seq = 0,
             .nlmsg_pid = 0},
            body};
  if (::send(netlink, &request, sizeof request, 0) < 0) {
    return std::nullopt;
  }
  const ssize_t received = ::recv(netlink, buffer.data(), buffer.size(), 0);
  const auto* answer = reinterpret_cast<const nlmsghdr*>(buffer.data());
  if (received < static_cast<ssize_t>(NLMSG_HDRLEN) ||
      answer->nlmsg_len > static_cast<std::size_t>(received) ||
      answer->nlmsg_type != SOCK_DIAG_BY_FAMILY) {
    return std::nullopt;
  }
  return buffer.subspan(NLMSG_HDRLEN, answer->nlmsg_len - NLMSG_HDRLEN);
}

struct AddressAndPort {
  std::array<__be32, 4> address{};
  __be16 port = 0;
};

AddressAndPort split(const Endpoint& endpoint) {
  AddressAndPort parts;
  if (endpoint.family() == AF_INET) {
    const auto* address = reinterpret_cast<const sockaddr_in*>(endpoint.get());
    parts.address[0] = address->sin_addr.s_addr;
    parts.port = address->sin_port;
  } else {
    const auto* address = reinterpret_cast<const sockaddr_in6*>(endpoint.get());
    std::memcpy(parts.address.data(), &address->sin6_addr, sizeof address->sin6_addr);
    parts.port = address->sin6_port;
  }
  return parts;
}

}  // namespace

void Watched::add(std::span<const pid_t> pids) {
  const std::lock_guard lock(mutex_);
  // Those that have ended would be asked for every connection, a thousand restarts later too.
  std::erase_if(pids_, [&](pid_t pid) { return start_of(pid) != starts_.at(pid); });
  for (const pid_t pid : pids) {
    std::erase(pids_, pid);
    std::erase(retired_, pid);  // another process, which got the number of a dead one
    pids_.push_back(pid);
    starts_[pid] = start_of(pid);
  }
}

void Watched::restrict_to(std::span<const pid_t> pids) {
  add(pids);
  const std::lock_guard lock(mutex_);
  retired_.clear();
  std::copy_if(pids_.begin(), pids_.end(), std::back_inserter(retired_),
               [&](pid_t pid) { return !descends_from(pid, pids); });
}

std::vector<pid_t> Watched::retired() {
  const std::lock_guard lock(mutex_);
  return retired_;
}

pid_t Watched::holder_of(SocketInode socket) {
  std::vector<pid_t> pids;
  {
    const std::lock_guard lock(mutex_);
    // A server that forks a lot uses the numbers of its predecessors again.
    std::copy_if(pids_.rbegin(), pids_.rend(), std::back_inserter(pids),
                 [&](pid_t pid) { return start_of(pid) == starts_.at(pid); });
  }
  const std::string link = fmt::format("socket:[{}]", socket);
  const auto holder =
      std::find_if(pids.begin(), pids.end(), [&](pid_t pid) { return holds(pid, link); });
  if (holder != pids.end()) {
    return *holder;
  }
  const auto elder = std::find_if(pids.begin(), pids.end(), [&](pid_t pid) {
    return has_descendant_that_holds(pid, link, pids);
  });
  return elder != pids.end() ? *elder : 0;
}

OwnerFinder::OwnerFinder(Watched& watched)
    : watched_(watched),
      netlink_(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)) {
  if (!netlink_.is_open()) {
    throw std::system_error(errno, std::generic_category(), "NETLINK_SOCK_DIAG");
  }
}

// Nothing announces to us that a connection has been accepted, hence the
// looking again; what is announced is its end.
pid_t OwnerFinder::find(const Connection& connection, Deadline deadline) {
  bool is_accepted = false;
  for (auto pause = microseconds{20};; pause = std::min(2 * pause, microseconds{4000})) {
    if (const auto peer = peer_of(connection)) {
      if (const pid_t holder = watched_.holder_of(*peer); holder != 0) {
        return holder;
      }
      // The number comes before the descriptor does, and the descriptor may
      // still travel to another process; but not for long.
      if (!std::exchange(is_accepted, true)) {
        deadline = std::min(deadline, Clock::now() + seconds{1});
      }
    }
    if (connection.peer_closes_within(pause) || Clock::now() >= deadline) {
      return 0;
    }
  }
}

std::optional<SocketInode> OwnerFinder::peer_of(const Connection& connection) {
  Endpoint local;
  local.length = sizeof local.address;
  if (::getsockname(connection.fd(), local.get(), &local.length) != 0) {
    return std::nullopt;
  }
  const auto found = local.family() == AF_UNIX ? peer_of_unix(connection.fd())
                                               : peer_of_inet(connection.fd(), local);
  return found.value_or(0) != 0 ? found : std::nullopt;  // 0: nobody has accepted it yet
}

std::optional<SocketInode> OwnerFinder::peer_of_inet(int fd, const Endpoint& local) {
  Endpoint remote;
  remote.length = sizeof remote.address;
  if (::getpeername(fd, remote.get(), &remote.length) != 0) {
    return std::nullopt;
  }
  const auto source = split(remote);
  const auto destination = split(local);
  inet_diag_req_v2 request{};
  request.sdiag_family = static_cast<__u8>(local.family());
  request.sdiag_protocol = IPPROTO_TCP;
  request.id.idiag_sport = source.port;
  request.id.idiag_dport = destination.port;
  std::copy_n(source.address.begin(), 4, request.id.idiag_src);
  std::copy_n(destination.address.begin(), 4, request.id.idiag_dst);
  std::fill_n(request.id.idiag_cookie, 2, INET_DIAG_NOCOOKIE);

  alignas(nlmsghdr) std::array<char, 4096> buffer{};
  const auto answer = ask(netlink_.get(), request, buffer);
  if (!answer || answer->size() < sizeof(inet_diag_msg)) {
    return std::nullopt;
  }
  const auto* found = reinterpret_cast<const inet_diag_msg*>(answer->data());
  // Where the connection has no socket yet (SYN cookies), the kernel finds the listener.
  return found->idiag_state == TCP_LISTEN ? std::nullopt : std::optional(found->idiag_inode);
}

std::optional<SocketInode> OwnerFinder::peer_of_unix(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return std::nullopt;
  }
  unix_diag_req request{};
  request.sdiag_family = AF_UNIX;
  request.udiag_states = ~0U;
  request.udiag_ino = static_cast<SocketInode>(status.st_ino);
  request.udiag_show = UDIAG_SHOW_PEER;
  std::fill_n(request.udiag_cookie, 2, INET_DIAG_NOCOOKIE);

  alignas(nlmsghdr) std::array<char, 4096> buffer{};
  auto rest = ask(netlink_.get(), request, buffer);
  if (!rest || rest->size() < NLMSG_ALIGN(sizeof(unix_diag_msg))) {
    return std::nullopt;
  }
  for (*rest = rest->subspan(NLMSG_ALIGN(sizeof(unix_diag_msg))); rest->size() >= sizeof(rtattr);) {
    const auto* attribute = reinterpret_cast<const rtattr*>(rest->data());
    if (attribute->rta_type == UNIX_DIAG_PEER &&
        attribute->rta_len >= RTA_LENGTH(sizeof(SocketInode))) {
      SocketInode peer = 0;
      std::memcpy(&peer, RTA_DATA(attribute), sizeof peer);
      return peer;
    }
    *rest = rest->subspan(
        std::clamp<std::size_t>(RTA_ALIGN(attribute->rta_len), sizeof(rtattr), rest->size()));
  }
  return std::nullopt;
}

}  // namespace continuity::load
