#include "core/processes.hpp"

#include "core/directory.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/proc_text.hpp"
#include "core/ring_info.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unordered_set>

namespace continuity {
namespace {

// Fields of /proc/PID/stat, by their numbers in proc(5). The second, the name, may contain
// anything; after the last bracket there are only words.
constexpr int stat_state = 3;
constexpr int stat_parent = 4;
constexpr int stat_flags = 9;
constexpr int stat_threads = 20;
constexpr int stat_start_time = 22;
constexpr int stat_end = 52;

std::string_view stat_field(std::string_view stat, int number) {
  const std::size_t bracket = stat.rfind(')');
  if (bracket == std::string_view::npos) {
    return {};
  }
  stat.remove_prefix(bracket + 1);
  for (int i = stat_state; i < number; ++i) {
    take_word(stat);
  }
  std::string_view word = take_word(stat);
  if (word.ends_with('\n')) {
    word.remove_suffix(1);
  }
  return word;
}

template <typename Number>
bool read_field(std::string_view stat, int number, Number& value) {
  return read_number(stat_field(stat, number), value, 10);
}

// Whoever sends these wants the program to end.
bool asks_to_end(int signal) {
  return signal == SIGTERM || signal == SIGINT || signal == SIGQUIT || signal == SIGHUP;
}

// "0100007F:1F90": 32-bit words as they lie in memory, and the port.
bool parse_endpoint(std::string_view text, Address& address) {
  constexpr std::size_t word_digits = 8;
  const std::size_t colon = text.find(':');
  if (colon != word_digits && colon != 4 * word_digits) {
    return false;
  }
  std::array<std::uint32_t, 4> words{};
  for (std::size_t i = 0; i < colon / word_digits; ++i) {
    if (!read_number(text.substr(i * word_digits, word_digits), words.at(i), 16)) {
      return false;
    }
  }
  std::uint16_t port = 0;
  if (!read_number(text.substr(colon + 1), port, 16)) {
    return false;
  }
  if (colon == word_digits) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = words[0];
    address = Address(reinterpret_cast<const sockaddr*>(&v4), sizeof v4);
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    std::copy_n(reinterpret_cast<const unsigned char*>(words.data()), sizeof words,
                reinterpret_cast<unsigned char*>(&v6.sin6_addr));
    address = Address(reinterpret_cast<const sockaddr*>(&v6), sizeof v6);
  }
  return true;
}

// An address as NETLINK_SOCK_DIAG has it.
Address diag_address(int family, const __be32* address, __be16 port) {
  if (family == AF_INET) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = port;
    v4.sin_addr.s_addr = address[0];
    return {reinterpret_cast<const sockaddr*>(&v4), sizeof v4};
  }
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = port;
  std::memcpy(&v6.sin6_addr, address, sizeof v6.sin6_addr);
  return {reinterpret_cast<const sockaddr*>(&v6), sizeof v6};
}

}  // namespace

// "  1: 0100007F:1F90 0100007F:D2F4 01 00000000:00000000 00:00000000 00000000     0        0 12345
// ..."
std::optional<SocketLine> parse_tcp_line(std::string_view line) {
  constexpr std::string_view listening = "0A";
  SocketLine found;
  take_word(line);
  const bool has_address = parse_endpoint(take_word(line), found.local);
  const bool has_peer = parse_endpoint(take_word(line), found.peer);
  const std::string_view state = take_word(line);
  for (int i = 0; i < 5; ++i) {  // queues, timer, retransmissions, user, time-out
    take_word(line);
  }
  if (!has_address || !has_peer || state == listening ||
      !read_number(take_word(line), found.inode, 10) || found.inode == 0) {
    return std::nullopt;
  }
  return found;
}

// "0000000000000000: 00000003 00000000 00000000 0001 03 12345 /path"
std::optional<SocketLine> parse_unix_line(std::string_view line) {
  constexpr std::string_view connected = "03";
  SocketLine found;
  for (int i = 0; i < 5; ++i) {  // slot, references, protocol, flags, type
    take_word(line);
  }
  const bool is_connected = take_word(line) == connected;
  if (!read_number(take_word(line), found.inode, 10) || !is_connected || line.size() < 2) {
    return std::nullopt;
  }
  line.remove_prefix(1);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::min(line.size(), sizeof address.sun_path - 1);
  std::copy_n(line.data(), length, address.sun_path);
  const bool abstract = line.front() == '@';
  if (abstract) {
    address.sun_path[0] = '\0';
  }
  const std::size_t size = offsetof(sockaddr_un, sun_path) + length + (abstract ? 0 : 1);
  found.local = Address(reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size));
  return found;
}

// The name may contain anything, brackets and blanks too: the last bracket ends it.
pid_t parse_parent(std::string_view stat) {
  pid_t parent = 0;
  return read_field(stat, stat_parent, parent) ? parent : 0;
}

// Of all its threads: the first one may have ended before the others.
bool parse_remains(std::string_view stat) {
  unsigned threads = 0;
  return stat_field(stat, stat_state) == "Z" && read_field(stat, stat_threads, threads) &&
         threads <= 1;
}

bool is_running(const Sys& sys, pid_t process) {
  const OwnedFd handle(sys, sys.pidfd_open(process, 0));
  if (!handle.is_open()) {
    // Or no descriptor left, or no pidfds: then by its number, which it has until it has been
    // waited for.
    const bool is_gone = errno == ESRCH || errno == EINVAL || process <= 0;
    if (is_gone || (sys.kill(process, 0) != 0 && errno == ESRCH)) {
      return false;
    }
    const OwnedFd proc = open_proc(sys);
    return !proc.is_open() ||
           !parse_remains(read_proc(sys, proc.get(), compose("{}/stat", process)));
  }
  return !await_end_of(sys, handle.get(), 0);
}

// The kernel says so after it has closed the files (exit_files, exit_notify in
// kernel/exit.c).
bool await_end_of(const Sys& sys, int pidfd, Nanoseconds deadline) {
  pollfd end{.fd = pidfd, .events = POLLIN, .revents = 0};
  for (;;) {
    const timespec rest = to_timespec(deadline - now(sys));
    const int found = sys.ppoll(&end, 1, &rest);
    if (found >= 0 || errno != EINTR) {
      return found > 0;
    }
  }
}

void await_end(const Sys& sys, pid_t process, Nanoseconds deadline) {
  const OwnedFd handle(sys, process > 0 ? sys.pidfd_open(process, 0) : -1);
  if (handle.is_open()) {
    await_end_of(sys, handle.get(), deadline);
    return;
  }
  while (process > 0 && is_running(sys, process) && now(sys) < deadline) {
    pause_for(sys, millisecond);
  }
}

bool parse_ending(std::string_view stat) {
  constexpr unsigned exiting = 4;  // PF_EXITING in include/linux/sched.h
  unsigned flags = 0;
  return read_field(stat, stat_flags, flags) && (flags & exiting) != 0;
}

bool parse_stopped(std::string_view stat) {
  const std::string_view state = stat_field(stat, stat_state);
  return state == "T" || state == "t";
}

ProcessEnd parse_end(std::string_view stat) {
  const std::string_view state = stat_field(stat, stat_state);
  int status = 0;
  if ((state != "Z" && state != "X") || !read_field(stat, stat_end, status)) {
    return {};
  }
  return from_wait_status(status);
}

ProcessEnd from_wait_status(int status) {
  if (WIFSIGNALED(status)) {
    return {.how = ProcessEnd::How::killed, .value = WTERMSIG(status)};
  }
  return {.how = ProcessEnd::How::exited, .value = WEXITSTATUS(status)};
}

bool ProcessEnd::is_on_purpose() const {
  constexpr int from_handler = 128;
  switch (how) {
    case How::unknown:
      return false;
    case How::exited:
      return value == 0 || asks_to_end(value - from_handler);
    case How::killed:
      return asks_to_end(value);
  }
  return false;
}

std::string ProcessEnd::text() const {
  switch (how) {
    case How::unknown:
      break;
    case How::exited:
      return compose("ended with status {}", value);
    case How::killed:
      return compose("was killed by {}", signal_name(value));
  }
  return "ended";
}

OwnedFd open_proc(const Sys& sys) {
  return {sys, sys.openat(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)};
}

std::string read_link(const Sys& sys, int directory, const std::string& path) {
  std::array<char, PATH_MAX> target;  // NOLINT: filled as far as it is used
  const ssize_t length = sys.readlinkat(directory, path.c_str(), target.data(), target.size());
  return {target.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0))};
}

std::string read_proc(const Sys& sys, int proc, const std::string& path) {
  constexpr std::size_t longest_step = std::size_t{64} * 1024;
  std::string text;
  const OwnedFd file(sys, sys.openat(proc, path.c_str(), O_RDONLY | O_CLOEXEC, 0));
  if (!file.is_open()) {
    return text;
  }
  for (std::size_t used = 0;;) {
    if (used == text.size()) {
      text.resize(used + std::clamp(used, first_read, longest_step));
    }
    const ssize_t size = sys.read(file.get(), text.data() + used, text.size() - used);
    if (size <= 0) {
      text.resize(used);
      return text;
    }
    used += static_cast<std::size_t>(size);
  }
}

std::string Processes::read(const std::string& path) const {
  return read_proc(*sys_, proc_, path);
}

pid_t Processes::parent_of(pid_t process) const {
  return parse_parent(read(compose("{}/stat", process)));
}

std::uint64_t Processes::start_time(pid_t process) const {
  const std::string text = read(compose("{}/stat", process));
  std::uint64_t ticks = 0;
  return read_field(text, stat_start_time, ticks) ? ticks : 0;
}

ProcessEnd Processes::end_of(pid_t process) const {
  return parse_end(read(compose("{}/stat", process)));
}

bool Processes::is_below(pid_t process, const std::set<pid_t>& roots) const {
  constexpr int deepest = 64;
  for (int i = 0; i < deepest && process > 1; ++i) {
    process = parent_of(process);
    if (roots.contains(process)) {
      return true;
    }
  }
  return false;
}

std::optional<uid_t> Processes::user_of(pid_t process) const {
  struct stat status {};
  if (sys_->fstatat(proc_, std::to_string(process).c_str(), &status, 0) != 0) {
    return std::nullopt;
  }
  return status.st_uid;
}

std::vector<std::string> Processes::names_of(pid_t process) const {
  std::vector<std::string> names;
  const std::string path = read_link(*sys_, proc_, compose("{}/exe", process));
  if (!path.empty()) {
    std::string_view name(path);
    name.remove_prefix(name.rfind('/') + 1);
    constexpr std::string_view replaced = " (deleted)";  // by its next version
    if (name.ends_with(replaced)) {
      name.remove_suffix(replaced.size());
    }
    names.emplace_back(name);
  }
  std::string own = read(compose("{}/comm", process));
  own.resize(std::min(own.find('\n'), own.size()));
  if (!own.empty() && (names.empty() || names.front() != own)) {
    names.push_back(std::move(own));
  }
  return names;
}

bool Processes::is_ending(pid_t process) const {
  return parse_ending(read(compose("{}/stat", process))) || !is_running(*sys_, process);
}

bool Processes::is_at_work(pid_t process) const {
  const std::string stat = read(compose("{}/stat", process));
  return !stat.empty() && !parse_stopped(stat);
}

std::map<pid_t, pid_t> Processes::parents() const {
  std::map<pid_t, pid_t> parents;
  const OwnedFd directory(*sys_, sys_->openat(proc_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (directory.is_open()) {
    const auto read_all = for_each_number(*sys_, directory.get(), [&](int process) {
      if (const pid_t parent = parent_of(process); parent != 0) {
        parents[process] = parent;
      }
    });
    if (!read_all) {
      return {};
    }
  }
  return parents;
}

bool Processes::are_same_image(pid_t one, pid_t other) const {
  const std::string vector = read(compose("{}/auxv", one));
  if (vector.empty() || vector != read(compose("{}/auxv", other))) {
    return false;
  }
  // Where addresses are not drawn at random, the file must do.
  struct stat file {};
  struct stat other_file {};
  return sys_->fstatat(proc_, compose("{}/exe", one).c_str(), &file, 0) == 0 &&
         sys_->fstatat(proc_, compose("{}/exe", other).c_str(), &other_file, 0) == 0 &&
         file.st_dev == other_file.st_dev && file.st_ino == other_file.st_ino;
}

pid_t Processes::topmost(pid_t process) const {
  constexpr int deepest = 64;
  for (int i = 0; i < deepest; ++i) {
    const pid_t parent = parent_of(process);
    if (parent <= 1 || !are_same_image(parent, process)) {
      break;
    }
    process = parent;
  }
  return process;
}

std::vector<pid_t> Processes::below(const std::set<pid_t>& roots,
                                    const std::set<pid_t>& except) const {
  const auto all = parents();
  std::vector<pid_t> found;
  for (const auto& [process, parent] : all) {
    if (roots.contains(process)) {
      continue;
    }
    for (pid_t above = process;;) {
      if (except.contains(above)) {
        break;
      }
      const auto next = all.find(above);
      if (next == all.end() || next->second <= 1) {
        break;
      }
      above = next->second;
      if (roots.contains(above)) {
        found.push_back(process);
        break;
      }
    }
  }
  return found;
}

template <typename Visit>
bool Processes::for_each_file(pid_t process, Visit visit) const {
  const OwnedFd directory(*sys_, sys_->openat(proc_, compose("{}/fd", process).c_str(),
                                              O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  if (!directory.is_open()) {
    return errno == ENOENT;
  }
  const auto read_all = for_each_number(*sys_, directory.get(), [&](int fd) {
    std::array<char, 64> name{};
    const ssize_t size =
        sys_->readlinkat(directory.get(), std::to_string(fd).c_str(), name.data(), name.size());
    visit(fd, std::string_view(name.data(), size > 0 ? static_cast<std::size_t>(size) : 0));
  });
  return read_all.has_value();
}

template <typename Visit>
bool Processes::for_each_socket(pid_t process, Visit visit) const {
  return for_each_file(process, [&](int fd, std::string_view name) {
    if (const auto inode = socket_in_link(name); inode != 0) {
      visit(fd, inode);
    } else if (name == ring_name) {
      for (const FixedSocket& one : ring_info(process, fd).sockets) {
        visit(fd, one.inode);
      }
    }
  });
}

RingInfo Processes::ring_info(pid_t process, int fd) const {
  return parse_ring_info(read(compose("{}/fdinfo/{}", process, fd)));
}

template <typename Visit>
void Processes::for_each_ring(pid_t process, Visit visit) const {
  for_each_file(process, [&](int fd, std::string_view name) {
    struct stat status {};
    if (name == ring_name &&
        sys_->fstatat(proc_, compose("{}/fd/{}", process, fd).c_str(), &status, 0) == 0) {
      visit(fd, std::uint64_t{status.st_ino});
    }
  });
}

std::set<std::uint64_t> Processes::rings_of(const std::set<pid_t>& processes) const {
  std::set<std::uint64_t> rings;
  for (const pid_t process : processes) {
    for_each_ring(process, [&](int, std::uint64_t inode) { rings.insert(inode); });
  }
  return rings;
}

bool Processes::waits_by_ring(pid_t process, const std::set<std::uint64_t>& except,
                              bool datagrams) const {
  bool waits = false;
  for_each_ring(process, [&](int fd, std::uint64_t inode) {
    waits = waits || (!except.contains(inode) && ring_info(process, fd).waits_for_work(datagrams));
  });
  return waits;
}

// The tables in /proc have a line for every connection of the last minute: on a
// busy machine they take seconds to read. Here the kernel leaves those out.
template <typename Visit>
bool Processes::for_each_connection(int family, Visit visit) const {
  constexpr unsigned wanted = 1U << TCP_ESTABLISHED | 1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2 |
                              1U << TCP_CLOSE_WAIT | 1U << TCP_LAST_ACK | 1U << TCP_CLOSING;
  const OwnedFd netlink(*sys_,
                        sys_->socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  struct {
    nlmsghdr header{};
    inet_diag_req_v2 body{};
  } request;
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.sdiag_family = static_cast<__u8>(family);
  request.body.sdiag_protocol = IPPROTO_TCP;
  request.body.idiag_states = wanted;
  iovec part{.iov_base = &request, .iov_len = sizeof request};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!netlink.is_open() || sys_->sendmsg(netlink.get(), &message, 0) < 0) {
    return false;
  }
  alignas(nlmsghdr) std::array<char, 32 * 1024> buffer;  // NOLINT: the kernel fills it
  for (;;) {
    part = {.iov_base = buffer.data(), .iov_len = buffer.size()};
    message.msg_flags = 0;
    const ssize_t size = sys_->recvmsg(netlink.get(), &message, 0);
    if (size < 0 && errno == EINTR) {
      continue;
    }
    if (size <= 0 || (message.msg_flags & MSG_TRUNC) != 0) {
      return false;
    }
    for (std::size_t at = 0; at + sizeof(nlmsghdr) <= static_cast<std::size_t>(size);) {
      nlmsghdr answer{};
      std::memcpy(&answer, buffer.data() + at, sizeof answer);
      if (answer.nlmsg_type == NLMSG_DONE) {
        return true;
      }
      inet_diag_msg found{};
      if (answer.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
          answer.nlmsg_len < NLMSG_HDRLEN + sizeof found ||
          answer.nlmsg_len > static_cast<std::size_t>(size) - at) {
        return false;
      }
      std::memcpy(&found, buffer.data() + at + NLMSG_HDRLEN, sizeof found);
      at += NLMSG_ALIGN(answer.nlmsg_len);
      if (found.idiag_inode != 0) {
        visit(SocketLine{
            .local = diag_address(found.idiag_family, found.id.idiag_src, found.id.idiag_sport),
            .peer = diag_address(found.idiag_family, found.id.idiag_dst, found.id.idiag_dport),
            .inode = found.idiag_inode});
      }
    }
  }
}

Processes::Connections Processes::connections_through(std::span<const Address> addresses) const {
  Connections found;
  const CameThrough through(addresses);
  const auto collect = [&](const std::optional<SocketLine>& socket) {
    if (socket && through(socket->local)) {
      found.emplace(socket->inode, socket->peer);
    }
  };
  const auto any = [&](int family) {
    return std::any_of(addresses.begin(), addresses.end(),
                       [&](const Address& address) { return address.family() == family; });
  };
  if (any(AF_INET) || any(AF_INET6)) {
    // Both: a listener of IPv6 may have connections of IPv4.
    for (const auto& [family, table] :
         {std::pair{AF_INET, "thread-self/net/tcp"}, {AF_INET6, "thread-self/net/tcp6"}}) {
      if (!for_each_connection(family, collect)) {
        for_each_line(read(table), [&](std::string_view line) { collect(parse_tcp_line(line)); });
      }
    }
  }
  if (any(AF_UNIX)) {
    for_each_line(read("thread-self/net/unix"),
                  [&](std::string_view line) { collect(parse_unix_line(line)); });
  }
  return found;
}

void Processes::look_for(const Connections& connections, pid_t process, Held& held) const {
  for_each_socket(process, [&](int fd, std::uint64_t inode) {
    if (const auto found = connections.find(inode); found != connections.end()) {
      held = {.process = process,
              .fd = fd,
              .inode = inode,
              .count = held.count + 1,
              .peer = found->second};
    }
  });
}

unsigned Processes::count_connections(std::span<const std::uint64_t> sockets,
                                      std::span<const Address> addresses) const {
  const Connections connections = connections_through(addresses);
  return static_cast<unsigned>(
      std::count_if(sockets.begin(), sockets.end(),
                    [&](std::uint64_t one) { return connections.contains(one); }));
}

Processes::Held Processes::find_connections_of(pid_t process,
                                               std::span<const Address> addresses) const {
  Held held;
  look_for(connections_through(addresses), process, held);
  return held;
}

Processes::Held Processes::find_connections(std::span<const Address> addresses,
                                            const std::set<pid_t>& roots,
                                            const std::set<pid_t>& except) const {
  Held held;
  const auto processes = below(roots, except);
  if (processes.empty()) {
    return held;
  }
  // The table first: what is accepted afterwards is not one of the old ones, and
  // what is passed on meanwhile is found with whom it had or with whom it has.
  const auto connections = connections_through(addresses);
  if (connections.empty()) {
    return held;
  }
  for (const pid_t process : processes) {
    look_for(connections, process, held);
  }
  return held;
}

bool Processes::still_holds(const Held& held) const {
  std::array<char, 64> name{};
  const ssize_t size =
      held.process == 0
          ? -1
          : sys_->readlinkat(proc_, compose("{}/fd/{}", held.process, held.fd).c_str(), name.data(),
                             name.size());
  return size > 0 && socket_in_link({name.data(), static_cast<std::size_t>(size)}) == held.inode;
}

std::vector<pid_t> Processes::find_holders(std::span<const std::uint64_t> inodes,
                                           const std::set<pid_t>& roots,
                                           const std::set<pid_t>& except) const {
  std::vector<pid_t> holders;
  const std::unordered_set<std::uint64_t> wanted(inodes.begin(), inodes.end());
  for (const pid_t process : below(roots, except)) {
    bool holds = false;
    for_each_socket(process,
                    [&](int, std::uint64_t inode) { holds = holds || wanted.contains(inode); });
    if (holds) {
      holders.push_back(process);
    }
  }
  return holders;
}

// "7f0c12a00000-7f0c12a21000 r-xp 00001000 08:01 4711    /usr/lib/libcontinuity.so"
std::string Processes::file_at(std::uintptr_t address) const {
  std::string name;
  for_each_line(read("thread-self/maps"), [&](std::string_view line) {
    // Replaced on the disk since it was mapped: who starts now has the new one.
    constexpr std::string_view replaced = " (deleted)";
    if (line.ends_with(replaced)) {
      line.remove_suffix(replaced.size());
    }
    const std::string_view range = line.substr(0, line.find(' '));
    const std::size_t dash = range.find('-');
    const std::size_t slash = line.rfind('/');
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    if (dash != std::string_view::npos && slash != std::string_view::npos &&
        read_number(range.substr(0, dash), begin, 16) &&
        read_number(range.substr(dash + 1), end, 16) && begin <= address && address < end) {
      name = line.substr(slash);
    }
  });
  return name;
}

bool Processes::has_mapped(pid_t process, std::string_view name) const {
  bool mapped = false;
  for_each_line(read(compose("{}/maps", process)),
                [&](std::string_view line) { mapped = mapped || line.ends_with(name); });
  return mapped;
}

}  // namespace continuity
