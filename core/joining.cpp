#include "core/joining.hpp"

#include "core/channel.hpp"
#include "core/clock.hpp"

#include <algorithm>
#include <array>
#include <list>
#include <sys/stat.h>

namespace continuity {
namespace {

constexpr Nanoseconds answer_time = 2 * second;
// Who has started us answers at once, unless it is becoming the owner just now.
constexpr Nanoseconds parent_time = 10 * second;

struct Asked {
  Channel channel;
  Nanoseconds patience;
};

// Whether what came is what ties processes together: page, bell, offers, offering, door.
bool are_ties(const Sys& sys, std::span<const OwnedFd> fds) {
  constexpr std::array<mode_t, tie_count> kinds{S_IFREG, 0, S_IFSOCK, S_IFSOCK, S_IFSOCK};
  const auto is_of_kind = [&](const OwnedFd& fd, mode_t kind) {
    struct stat status {};
    return sys.fstat(fd.get(), &status) == 0 && (status.st_mode & S_IFMT) == kind;
  };
  return std::equal(fds.begin(), fds.end(), kinds.begin(), kinds.end(), is_of_kind) &&
         is_listening(sys, fds.back().get());
}

}  // namespace

Joined join(const Sys& sys, Log& log, Rendezvous& rendezvous, const Processes& processes,
            std::span<const std::uint64_t> inodes, bool fresh) {
  Message request{.type = MessageType::join};
  request.protocol_min = request.protocol_max = protocol_version;
  request.pid = sys.getpid();
  request.fresh = fresh;
  request.inodes.assign(inodes.begin(), inodes.end());
  const Nanoseconds deadline = after(sys, answer_time);
  std::list<Asked> asked;
  for (Rendezvous::Peer& peer : rendezvous.connect_all(0, log, true)) {
    const auto who = peer.channel.peer();
    // Not another user, even if we are root: what it ties us to is memory that it can
    // write to, and take away.
    if (who && (who->uid == sys.geteuid() || who->uid == 0) &&
        peer.channel.send(request, deadline)) {
      const bool started_us = processes.is_below(sys.getpid(), {who->pid});
      asked.push_back({std::move(peer.channel), started_us ? parent_time : answer_time});
    }
  }
  Joined joined;
  pid_t leader = 0;
  const Nanoseconds began = now(sys);
  for (auto& [channel, patience] : asked) {
    auto received = channel.receive(began + patience);
    if (!received) {
      continue;
    }
    const Message& message = received->message;
    if (message.type == MessageType::abort && message.code == ESTALE) {
      joined.how = Joined::How::outlived;
      return joined;
    }
    if (message.type != MessageType::welcome || !are_ties(sys, received->fds)) {
      continue;
    }
    // While a listener is handed over, two generations have it: ours is the one
    // that started us, and not the one that started that.
    if (leader != 0 && processes.is_below(leader, {message.pid})) {
      continue;
    }
    if (inodes.empty() || processes.is_below(sys.getpid(), {message.pid})) {
      leader = message.pid;
      joined.how = Joined::How::welcome;
      joined.generation = message.generation;
      joined.ties = std::move(received->fds);
    }
  }
  return joined;
}

}  // namespace continuity
