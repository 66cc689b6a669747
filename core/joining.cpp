#include "core/joining.hpp"

#include "core/channel.hpp"
#include "core/clock.hpp"

#include <list>

namespace continuity {
namespace {

constexpr Nanoseconds answer_time = 2 * second;
// Who has started us answers at once, unless it is becoming the owner just now.
constexpr Nanoseconds parent_time = 10 * second;

struct Asked {
  Channel channel;
  Nanoseconds patience;
};

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
    if (who && (who->uid == peer.owner || who->uid == 0) && peer.channel.send(request, deadline)) {
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
    if (message.type != MessageType::welcome || received->fds.size() != tie_count) {
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
