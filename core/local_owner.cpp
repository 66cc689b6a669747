#include "core/local_owner.hpp"

#include <algorithm>

namespace continuity {
namespace {

// The longest time in which nobody accepts, if a thread cannot be woken.
constexpr Nanoseconds retire_time = 200 * millisecond;

}  // namespace

LocalOwner::LocalOwner(const Sys& sys, Log& log, int proc, int directory, Program& program,
                       bool (*ours)(int fd))
    : sys_(&sys),
      log_(&log),
      ours_(ours),
      processes_(sys, proc),
      successor_watch_(sys, proc),
      descriptors_(sys, proc),
      rings_(sys, proc),
      retirement_(sys, proc, directory, program, ours) {}

Status LocalOwner::prepare(std::vector<Item> items) {
  auto prepared = retirement_.prepare(std::move(items));
  if (!retirement_.obstacle().empty()) {
    log_->error("{}; while it does, no restart is possible", retirement_.obstacle());
  }
  return prepared;
}

Status LocalOwner::prepare_late(std::vector<Item> items) {
  return retirement_.prepare_late(std::move(items));
}

void LocalOwner::abandon() {
  retirement_.abandon();
}
int LocalOwner::descriptor(std::uint32_t id) {
  return retirement_.copy_of(id);
}

bool LocalOwner::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  return retirement_.retire(ids, deadline);
}

void LocalOwner::sweep() {
  retirement_.sweep();
}
void LocalOwner::revive() {
  let_newcomers_in();
  retirement_.revive();
}
void LocalOwner::forget_listeners() {
  for (const std::uint32_t id : shut_out_) {
    if (const int fd = retirement_.copy_of(id);
        retirement_.is_retired(id) && is_listening(*sys_, fd)) {
      sys_->shutdown(fd, SHUT_RDWR);
    }
  }
  std::erase_if(shut_out_, [&](std::uint32_t id) { return retirement_.is_retired(id); });
  retirement_.forget_listeners();
}

bool LocalOwner::holds(std::span<const std::uint64_t> inodes) {
  const auto items = inventory();
  return std::any_of(items.begin(), items.end(), [&](const Item& item) {
    return std::find(inodes.begin(), inodes.end(), item.inode) != inodes.end();
  });
}

unsigned LocalOwner::connections() {
  // Most looks find the connection of the look before: one call, not one per
  // descriptor.
  if (last_seen_.count > 0 && last_seen_.example_inode != 0 &&
      socket_inode(*sys_, last_seen_.example) == last_seen_.example_inode) {
    return last_seen_.count;
  }
  const auto addresses = retirement_.addresses();
  const auto found = descriptors_.find_connections(addresses, ours_);
  if (!found) {
    // Not knowing is no reason to cut anybody off.
    return std::max(last_seen_.count, 1U);
  }
  last_seen_ = *found;
  last_seen_.count += fixed_connections();
  return last_seen_.count;
}

// Connections that only a ring has, among its fixed files. Of which the kernel does not
// say what they are, each may be one.
unsigned LocalOwner::fixed_connections() const {
  unsigned count = 0;
  std::vector<std::uint64_t> sockets;
  for (const int ring : retirement_.rings()) {
    const RingInfo info = rings_.look(ring);
    count += info.complete ? 0 : 1;
    for (const FixedSocket& one : info.sockets) {
      if (one.inode == 0) {
        ++count;
      } else if (!retirement_.is_stand_in(one.inode)) {
        sockets.push_back(one.inode);
      }
    }
  }
  return sockets.empty() ? count
                         : count + processes_.count_connections(sockets, retirement_.addresses());
}

void LocalOwner::finish_idle() {
  const auto addresses = retirement_.addresses();
  if (const auto told = descriptors_.finish_idle(addresses, ours_); !told) {
    log_->debug("{}: {}", told.error().step, error_text(told.error().code));
  }
}

Owner::Holding LocalOwner::holding() {
  last_seen_ = {};
  Holding held{.count = connections(), .process = sys_->getpid()};
  Address peer;
  peer.length = sizeof peer.storage;
  if (last_seen_.count > 0 &&
      sys_->getpeername(last_seen_.example, peer.get(), &peer.length) == 0 && !peer.is_unix()) {
    held.peer = to_string(peer);
  }
  return held;
}

// An address nobody claimed. What its queue holds has been promised an answer:
// no newcomer is let in, and the program accepts until the queue is empty.
void LocalOwner::close_listeners(std::span<const std::uint32_t> ids) {
  serve_dry(ids);
  retirement_.retire(ids, after(*sys_, retire_time));
  end_listeners(ids);
}

void LocalOwner::serve_dry(std::span<const std::uint32_t> ids) {
  shut_out(ids);
  wait_until_dry(ids);
}

void LocalOwner::end_listeners(std::span<const std::uint32_t> ids) {
  retirement_.sweep();
  stop_listening(ids);
  retirement_.forget_datagrams(ids);
}

void LocalOwner::shut_out(std::span<const std::uint32_t> ids) {
  for (const std::uint32_t id : ids) {
    const int fd = retirement_.copy_of(id);
    const auto listener = describe_socket(*sys_, fd);
    if (!listener || !close_to_newcomers(*sys_, fd, *listener, retirement_.is_grouped(id))) {
      log_->debug("a listener nobody claimed cannot be closed to newcomers first");
    } else if (!listener->is_datagram()) {
      shut_out_.push_back(id);
    }
  }
}

void LocalOwner::let_newcomers_in() {
  for (const std::uint32_t id : shut_out_) {
    const int fd = retirement_.copy_of(id);
    if (const auto listener = describe_socket(*sys_, fd);
        listener && !listener->address.is_unix()) {
      open_to_newcomers(*sys_, fd, *listener);
    }
  }
  shut_out_.clear();
}

// A helper of the program's may have it too, and so have the other processes of the
// generation for a while: closed to newcomers and alive, it would swallow them. But a
// UNIX socket that was shut down never listens again: as long as it may be revived, who
// connects there waits for that, or for the end of the probation.
void LocalOwner::stop_listening(std::span<const std::uint32_t> ids) {
  for (const std::uint32_t id : ids) {
    const int fd = retirement_.copy_of(id);
    if (!is_listening(*sys_, fd) || is_passed_over(*sys_, fd)) {
      continue;
    }
    if (const auto listener = describe_socket(*sys_, fd); listener && listener->address.is_unix()) {
      shut_out_.push_back(id);
    } else {
      sys_->shutdown(fd, SHUT_RDWR);
    }
  }
}

void LocalOwner::wait_until_dry(std::span<const std::uint32_t> ids) {
  constexpr Nanoseconds longest = second;
  constexpr Nanoseconds pause_time = millisecond;
  constexpr int still = 50;  // who has begun to connect is in the queue by then
  const Nanoseconds deadline = after(*sys_, longest);
  for (int dry = 0; dry < still && now(*sys_) < deadline; ++dry) {
    const bool queued = std::any_of(ids.begin(), ids.end(), [&](std::uint32_t id) {
      return has_queued(*sys_, retirement_.copy_of(id));
    });
    dry = queued ? -1 : dry;
    pause_for(*sys_, pause_time);
  }
}

void LocalOwner::send_signal(int signal) {
  sys_->kill(sys_->getpid(), signal);
}

void LocalOwner::meet(pid_t successor) {
  successor_watch_.begin(successor, successor > 0 ? processes_.topmost(successor) : 0);
}

}  // namespace continuity
