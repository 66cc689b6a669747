#include "cli/keeper.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>

namespace continuity::cli {
namespace {

// What tells one listener from another: where it is, what it is.
std::string key_of(const Listener& listener) {
  return compose("{} {} {} {}", to_string(listener.address), listener.type, listener.protocol,
                 listener.file.inode);
}

}  // namespace

// Of several sockets on one address (SO_REUSEPORT) none is kept: a server that closes one of
// them, to have fewer workers, would leave that one's share of the clients to us.
void Keeper::follow(SeenGeneration& generation) {
  std::map<std::string, std::vector<std::uint32_t>> by_key;
  for (const Listener& listener : generation.listeners) {
    by_key[key_of(listener)].push_back(listener.id);
  }
  std::string keys = compose("{}", generation.generation);
  std::vector<std::uint32_t> ids;
  for (const auto& [key, same] : by_key) {
    if (same.size() == 1) {
      keys += "\n" + key;
      ids.push_back(same.front());
    }
  }
  if (offers() || keys == followed_) {
    return;
  }
  copies_.clear();
  if (!ids.empty()) {
    hold(copy_listeners(generation, ids));
  }
  // If not all came, the next look tries again.
  followed_ = copies_.size() == ids.size() ? keys : std::string();
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

bool Keeper::is_followed() const {
  if (!offers()) {
    return false;
  }
  const auto state = upgrader_->progress().outcome().state;
  return state == Progress::State::taken_over || state == Progress::State::completed;
}

bool Keeper::look_whether_taken() {
  if (!offers() || !upgrader_->has_completed()) {
    return false;
  }
  let_go();
  return true;
}

}  // namespace continuity::cli
