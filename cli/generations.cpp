#include "cli/generations.hpp"

namespace continuity::cli {
namespace {

constexpr Nanoseconds look_time = 200 * millisecond;
constexpr Nanoseconds copy_time = 5 * second;

// All messages of one inventory. False: there is no answer in time, or another one.
bool receive_inventory(SeenGeneration& seen, Nanoseconds deadline) {
  for (;;) {
    auto received = seen.channel.receive(deadline);
    if (!received || received->message.type != MessageType::inventory) {
      return false;
    }
    Message& inventory = received->message;
    seen.generation = inventory.generation;
    seen.identity = std::move(inventory.identity);
    seen.pid = inventory.pid;
    seen.state = inventory.state;
    seen.rival = inventory.rival_pid;
    for (Listener& listener : inventory.listeners) {
      seen.listeners.push_back(std::move(listener));
    }
    if (seen.listeners.size() > max_listeners) {
      return false;
    }
    if (!inventory.more) {
      return true;
    }
  }
}

}  // namespace

std::vector<SeenGeneration> look_around(const Sys& sys, Rendezvous& rendezvous, Log& log,
                                        std::uint32_t features) {
  Message hello{.type = MessageType::hello};
  hello.protocol_min = hello.protocol_max = protocol_version;
  hello.pid = sys.getpid();
  hello.features = features;
  const Nanoseconds deadline = after(sys, look_time);
  std::vector<SeenGeneration> greeted;
  // Everybody is greeted before anybody is listened to: silent ones cost one look together.
  for (Rendezvous::Peer& door : rendezvous.connect_all(0, log)) {
    const auto peer = door.channel.peer();
    if (peer && (peer->uid == door.owner || peer->uid == 0) && door.channel.send(hello, deadline)) {
      greeted.push_back({.channel = std::move(door.channel)});
    }
  }
  std::vector<SeenGeneration> found;
  for (SeenGeneration& one : greeted) {
    if (receive_inventory(one, deadline)) {
      found.push_back(std::move(one));
    }
  }
  return found;
}

std::vector<OwnedFd> copy_listeners(SeenGeneration& generation,
                                    const std::vector<std::uint32_t>& ids) {
  std::vector<OwnedFd> copies;
  Message claim{.type = MessageType::claim};
  claim.ids = ids;
  if (!generation.channel.send(claim, now(libc_sys()) + copy_time)) {
    return copies;
  }
  const Nanoseconds deadline = now(libc_sys()) + copy_time;
  for (;;) {
    auto received = generation.channel.receive(deadline);
    if (!received || received->message.type != MessageType::grant) {
      return copies;
    }
    for (OwnedFd& fd : received->fds) {
      copies.push_back(std::move(fd));
    }
    if (received->fds.empty() || copies.size() >= received->message.total ||
        !generation.channel.send({.type = MessageType::got}, deadline)) {
      return copies;
    }
  }
}

}  // namespace continuity::cli
