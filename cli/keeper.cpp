#include "cli/keeper.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <sys/socket.h>

namespace continuity::cli {
namespace {

constexpr Nanoseconds look_time = 200 * millisecond;
constexpr Nanoseconds copy_time = 5 * second;

// What it serves, of whoever may be restarted just now or not. Nothing: there is no answer in
// time, or another one.
std::vector<Listener> look_to_keep(const Sys& sys, Channel& channel) {
  Message hello{.type = MessageType::hello};
  hello.protocol_min = hello.protocol_max = protocol_version;
  hello.pid = sys.getpid();
  hello.features = keeps_copies;
  const Nanoseconds deadline = after(sys, look_time);
  std::vector<Listener> listeners;
  bool more = static_cast<bool>(channel.send(hello, deadline));
  while (more) {
    auto received = channel.receive(deadline);
    if (!received || received->message.type != MessageType::inventory ||
        listeners.size() > max_listeners) {
      return {};
    }
    std::move(received->message.listeners.begin(), received->message.listeners.end(),
              std::back_inserter(listeners));
    more = received->message.more;
  }
  return listeners;
}

// As many as it gives.
std::vector<OwnedFd> copy_listeners(const Sys& sys, Channel& channel,
                                    const std::vector<std::uint32_t>& ids) {
  std::vector<OwnedFd> copies;
  Message claim{.type = MessageType::claim};
  claim.ids = ids;
  const Nanoseconds deadline = after(sys, copy_time);
  if (!channel.send(claim, deadline)) {
    return copies;
  }
  for (;;) {
    auto received = channel.receive(deadline);
    if (!received || received->message.type != MessageType::grant) {
      return copies;
    }
    for (OwnedFd& fd : received->fds) {
      copies.push_back(std::move(fd));
    }
    if (received->fds.empty() || copies.size() >= received->message.total ||
        !channel.send({.type = MessageType::got}, deadline)) {
      return copies;
    }
  }
}

// What tells one listener from another: where it is, what it is.
std::string key_of(const Listener& listener) {
  return compose("{} {} {} {}", to_string(listener.address), listener.type, listener.protocol,
                 listener.file.inode);
}

}  // namespace

// Of several sockets on one address (SO_REUSEPORT) none is kept: a server that closes one of
// them, to have fewer workers, would leave that one's share of the clients to us.
bool Keeper::follow(Server& server) {
  // The credentials of who has sent a message would take the place of a descriptor.
  const int off = 0;
  sys_->setsockopt(server.channel.fd(), SOL_SOCKET, SO_PASSCRED, &off, sizeof off);
  const auto listeners = look_to_keep(*sys_, server.channel);
  if (listeners.empty()) {
    return false;  // busy; the next look tells
  }
  std::map<std::string, std::vector<std::uint32_t>> by_key;
  for (const Listener& listener : listeners) {
    by_key[key_of(listener)].push_back(listener.id);
  }
  std::string keys = compose("{}", server.generation);
  std::vector<std::uint32_t> ids;
  for (const auto& [key, same] : by_key) {
    if (same.size() == 1) {
      keys += "\n" + key;
      ids.push_back(same.front());
    }
  }
  if (offers() || keys == followed_) {
    return false;
  }
  copies_.clear();
  if (!ids.empty()) {
    hold(copy_listeners(*sys_, server.channel, ids));
  }
  // If not all came, the next look tries again.
  followed_ = copies_.size() == ids.size() ? keys : std::string();
  return true;
}

void Keeper::hold(std::vector<OwnedFd> fds) {
  for (OwnedFd& fd : fds) {
    if (receives_work(*sys_, fd.get())) {
      copies_.push_back(std::move(fd));
    }
  }
}

void Keeper::let_go() {
  upgrader_.reset();
  copies_.clear();
  followed_.clear();
}

std::vector<int> Keeper::descriptors() const {
  std::vector<int> fds(copies_.size());
  std::transform(copies_.begin(), copies_.end(), fds.begin(),
                 [](const OwnedFd& fd) { return fd.get(); });
  return fds;
}

bool Keeper::offer(const std::string& identity) {
  if (offers() || copies_.empty()) {
    return offers();
  }
  identity_ = identity;
  upgrader_ = std::make_unique<Upgrader>([this](const char* name) -> const char* {
    return std::string_view(name) == "CONTINUITY_NAME"
               ? identity_.c_str()
               : std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody sets any
  });
  for (const OwnedFd& fd : copies_) {
    upgrader_->register_listener(fd.get());
  }
  if (std::holds_alternative<Problem>(upgrader_->ready())) {
    upgrader_.reset();
  }
  return offers();
}

bool Keeper::look_whether_taken() {
  if (!offers() || !upgrader_->has_completed()) {
    return false;
  }
  let_go();
  return true;
}

}  // namespace continuity::cli
