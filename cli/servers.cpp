#include "cli/servers.hpp"

#include "cli/output.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <set>
#include <sys/socket.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

// Who has made the door, and listens there, need not be who answers.
Result<Message> receive(Channel& channel, Nanoseconds deadline, Credentials& sender) {
  const Sys& sys = libc_sys();
  pollfd entry{.fd = channel.fd(), .events = POLLIN, .revents = 0};
  const timespec patience = to_timespec(deadline - now(sys));
  if (sys.ppoll(&entry, 1, &patience) <= 0) {
    return Error{"receive a report", ETIMEDOUT};
  }
  std::vector<std::byte> body(max_message_size);
  iovec part{.iov_base = body.data(), .iov_len = body.size()};
  // Descriptors have no place here: the kernel closes them.
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(ucred))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = sys.recvmsg(channel.fd(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size <= 0) {
    return Error{"receive a report", ECONNRESET};
  }
  sender = {.pid = 0, .uid = static_cast<uid_t>(-1)};
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET &&
      header->cmsg_type == SCM_CREDENTIALS && header->cmsg_len >= CMSG_LEN(sizeof(ucred))) {
    ucred who{};
    std::memcpy(&who, CMSG_DATA(header), sizeof who);
    sender = {.pid = who.pid, .uid = who.uid};
  }
  return decode(std::span(body).first(static_cast<std::size_t>(size)));
}

void receive_report(Server& server, Nanoseconds deadline) {
  auto received = receive(server.channel, deadline, server.sender);
  if (received && received->type == MessageType::report) {
    server.answer = Server::Answer::report;
    server.report = std::move(*received);
    server.pid = server.report.pid;
  } else if (received && received->type == MessageType::abort && received->code == EPROTO) {
    server.answer = Server::Answer::earlier;
  } else if (!received && received.error().code == ETIMEDOUT) {
    server.answer = Server::Answer::silent;
  } else {
    server.answer = Server::Answer::none;  // it has just gone
  }
}

// What it has left of how it was started.
std::optional<Start> start_of_process(pid_t pid) {
  const OwnedFd proc = open_proc(libc_sys());
  const std::string base = std::to_string(pid) + "/";
  Start start;
  start.program = read_link(libc_sys(), proc.get(), base + "exe");
  start.directory = read_link(libc_sys(), proc.get(), base + "cwd");
  start.arguments = split_at_zeros(read_proc(libc_sys(), proc.get(), base + "cmdline"));
  start.environment = split_at_zeros(read_proc(libc_sys(), proc.get(), base + "environ"));
  start.user = ::geteuid();
  if (start.program.empty() || start.arguments.empty() || start.environment.empty()) {
    return std::nullopt;
  }
  return start;
}

}  // namespace

bool read_door(std::string_view door, Server& server) {
  constexpr std::string_view suffix = ".sock";
  door = door.substr(door.find('/') + 1);
  if (!door.ends_with(suffix)) {
    return false;
  }
  door.remove_suffix(suffix.size());
  const auto dot = door.rfind('.');
  if (dot == std::string_view::npos || dot == 0 ||
      !read_number(door.substr(dot + 1), server.generation, 16)) {
    return false;
  }
  server.name = visible(door.substr(0, dot));
  return true;
}

std::string Server::state() const {
  switch (answer) {
    case Answer::silent:
      return "silent";
    case Answer::earlier:
      return "unknown";
    case Answer::none:
      return "gone";
    case Answer::report:
      break;
  }
  switch (report.phase) {
    case ReportedPhase::starting:
      return "starting";
    case ReportedPhase::active:
      return report.state == HolderState::on_probation ? "on-probation" : "active";
    case ReportedPhase::granted:
      return "granted";
    case ReportedPhase::probation:
      return "probation";
    case ReportedPhase::draining:
      return "draining";
    case ReportedPhase::leaving:
      return "leaving";
    case ReportedPhase::none:
      break;
  }
  return "unknown";
}

bool Server::serves() const {
  return answer == Answer::earlier || answer == Answer::silent ||
         (answer == Answer::report &&
          (report.phase == ReportedPhase::active || report.phase == ReportedPhase::granted ||
           report.phase == ReportedPhase::starting));
}

bool Server::is_trusted() const {
  return answer == Answer::report && (sender.uid == ::geteuid() || sender.uid == 0);
}

bool Server::refresh() {
  if (!channel.send({.type = MessageType::status}, after(libc_sys(), answer_time))) {
    answer = Answer::none;
    return false;
  }
  receive_report(*this, after(libc_sys(), answer_time));
  return answer == Answer::report;
}

std::optional<Start> Server::start() {
  std::string text;
  Message ask{.type = MessageType::status};
  ask.features = wants_start;
  while (answer == Answer::report) {
    ask.total = static_cast<std::uint32_t>(text.size());
    if (!channel.send(ask, after(libc_sys(), answer_time))) {
      break;
    }
    auto received = receive(channel, after(libc_sys(), answer_time), sender);
    if (!received || received->type != MessageType::report || received->start.empty() ||
        !is_trusted() || text.size() > max_start) {
      break;
    }
    text += received->start;
    if (!received->more) {
      return read_start(text);
    }
  }
  return start_of_process(pid);
}

std::vector<Server> find_servers(Rendezvous& rendezvous, Nanoseconds patience) {
  const Sys& sys = libc_sys();
  Log log;
  log.open(sys, LogLevel::error, {});
  std::vector<Server> servers;
  // All are asked before one is listened to: silent ones cost one wait together.
  for (Rendezvous::Peer& peer : rendezvous.connect_all(0, log)) {
    Server server{.user = peer.owner};
    const auto other = peer.channel.peer();
    // As root, not everybody is who a directory says.
    if (!read_door(peer.name, server) || !other || (other->uid != peer.owner && other->uid != 0)) {
      continue;
    }
    server.pid = other->pid;
    server.channel = std::move(peer.channel);
    const int on = 1;
    ::setsockopt(server.channel.fd(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    if (server.channel.send({.type = MessageType::status}, after(sys, patience))) {
      servers.push_back(std::move(server));
    }
  }
  const Nanoseconds deadline = after(sys, patience);
  for (Server& server : servers) {
    receive_report(server, deadline);
  }
  std::erase_if(servers, [](const Server& one) { return one.answer == Server::Answer::none; });
  std::sort(servers.begin(), servers.end(), [](const Server& one, const Server& other) {
    return std::tuple(one.name, !one.serves(), one.pid) <
           std::tuple(other.name, !other.serves(), other.pid);
  });
  return servers;
}

std::optional<std::vector<Server>> find_servers() {
  std::string problem;
  auto rendezvous = Rendezvous::open(libc_sys(), own_options().directory, ::geteuid(), problem);
  if (!rendezvous) {
    complain(Exit::system, problem);
    return std::nullopt;
  }
  return find_servers(*rendezvous);
}

Exit find_named(const std::string& name, std::vector<Server>& servers) {
  auto all = find_servers();
  if (!all) {
    return Exit::system;
  }
  std::set<std::string> names;
  for (const Server& server : *all) {
    names.insert(server.name);
  }
  std::erase_if(*all, [&](const Server& server) {
    return server.name != name && std::to_string(server.pid) != name;
  });
  if (all->empty()) {
    std::string there;
    for (const std::string& one : names) {
      there += (there.empty() ? "" : ", ") + one;
    }
    return complain(Exit::unknown,
                    compose("nobody is called {}; {}", name,
                            there.empty() ? "there is nobody at all" : "there is " + there));
  }
  servers = std::move(*all);
  return Exit::done;
}

Exit find_active(const std::string& name, Server& server) {
  std::vector<Server> found;
  if (const Exit exit = find_named(name, found); exit != Exit::done) {
    return exit;
  }
  const auto serving = std::partition_point(found.begin(), found.end(),
                                            [](const Server& one) { return one.serves(); });
  if (serving == found.begin()) {
    return complain(Exit::failed, compose("{} has nobody that serves: pid {} is {}", name,
                                          found.front().pid, found.front().state()));
  }
  if (serving - found.begin() > 1) {
    std::string pids;
    std::for_each(found.begin(), serving, [&](const Server& one) {
      pids += (pids.empty() ? "" : ", ") + std::to_string(one.pid);
    });
    return complain(Exit::failed,
                    compose("there are several called {}: name one by its pid: {}", name, pids));
  }
  server = std::move(found.front());
  return Exit::done;
}

Options own_options() {
  return read_options([](const char* name) { return std::getenv(name); }).options;
}

Options options_of(const std::vector<std::string>& environment) {
  return read_options([&](const char* name) -> const char* {
           const std::string prefix = std::string(name) + "=";
           const auto found =
               std::find_if(environment.begin(), environment.end(),
                            [&](const std::string& one) { return one.starts_with(prefix); });
           return found == environment.end() ? nullptr : found->c_str() + prefix.size();
         })
      .options;
}

}  // namespace continuity::cli
