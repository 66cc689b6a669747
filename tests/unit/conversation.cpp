#include "conversation.hpp"

#include <algorithm>
#include <stdexcept>
#include <sys/eventfd.h>
#include <unistd.h>

namespace continuity::test {
namespace {

// The longer nothing happens, the longer the steps of the clock.
Nanoseconds next_tick(Nanoseconds waited) {
  return std::clamp(waited / 20, millisecond, 100 * millisecond);
}

int look(pollfd* fds, nfds_t count) {
  const timespec at_once{};
  return ::ppoll(fds, count, &at_once, nullptr);
}

std::vector<OwnedFd> listen_at_all(const std::vector<std::string>& addresses) {
  std::vector<OwnedFd> listeners;
  listeners.reserve(addresses.size());
  for (const std::string& text : addresses) {
    listeners.push_back(listen_at(text, SOCK_NONBLOCK));
  }
  return listeners;
}

std::vector<int> numbers_of(const std::vector<OwnedFd>& listeners) {
  std::vector<int> numbers;
  numbers.reserve(listeners.size());
  for (const OwnedFd& listener : listeners) {
    numbers.push_back(listener.get());
  }
  return numbers;
}

OwnedFd publish(Rendezvous& rendezvous, const std::string& identity, std::uint64_t generation) {
  auto door = rendezvous.publish(identity, generation);
  if (!door) {
    throw std::runtime_error(door.error().step);
  }
  return std::move(*door);
}

}  // namespace

World::World() : proc(open_proc()) {
  play_clock(holder_sys, time_);
  play_clock(taker_sys, time_);
  // A round of the predecessor's never waits: time passes elsewhere.
  holder_sys.hooks.ppoll = [this](pollfd* fds, nfds_t count, const timespec* timeout) {
    if (fds == nullptr) {  // a pause of its own
      time_ += timeout->tv_sec * second + timeout->tv_nsec;
    }
    return look(fds, count);
  };
  holder_sys.hooks.kill = [this](pid_t pid, int) {
    killed.push_back(pid);
    return 0;
  };
  taker_sys.hooks.ppoll = [this](pollfd* fds, nfds_t count, const timespec* timeout) {
    return wait(fds, count, timeout);
  };
  taker_sys.hooks.sched_yield = [this] {
    if (runs_at_yield) {
      run_all();
    }
    time_ += microsecond;
    return 0;
  };
  log_sys.hooks.openat = [](int, const char*, int, mode_t) { return 1000; };
  log_sys.hooks.write = [this](int, const void* data, std::size_t size) {
    lines.emplace_back(static_cast<const char*>(data), size);
    return static_cast<ssize_t>(size);
  };
  log.open(log_sys, LogLevel::debug, "log");
}

bool World::logged(std::string_view text) const {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

void World::run_all() {
  if (on_wait) {
    on_wait();
  }
  for (Predecessor* predecessor : predecessors) {
    if (!predecessor->stopped) {
      predecessor->holder.run_once();
    }
  }
}

void World::settle() {
  constexpr int rounds = 8;
  for (int round = 0; round < rounds; ++round) {
    run_all();
  }
}

void World::pass(Nanoseconds duration) {
  const Nanoseconds began = time_;
  const Nanoseconds until = began + duration;
  settle();
  while (time_ < until) {
    time_ = std::min(until, time_ + next_tick(time_ - began));
    run_all();
  }
  settle();
}

int World::wait(pollfd* fds, nfds_t count, const timespec* timeout) {
  constexpr Nanoseconds ages = 200 * second;
  const Nanoseconds longest =
      timeout == nullptr ? ages : timeout->tv_sec * second + timeout->tv_nsec;
  const Nanoseconds began = time_;
  const Nanoseconds until = began + longest;
  for (;;) {
    if (const int ready = look(fds, count); ready != 0) {
      return ready;
    }
    if (time_ >= until) {
      break;
    }
    run_all();
    if (const int ready = look(fds, count); ready != 0) {
      return ready;
    }
    time_ = std::min(until, time_ + next_tick(time_ - began));
  }
  if (timeout == nullptr) {
    throw std::runtime_error("a wait that would never end");
  }
  return 0;
}

Channel channel_to_only_one(World& world) {
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  auto peers = rendezvous.connect_all(99, world.log);
  if (peers.size() != 1) {
    throw std::runtime_error(std::to_string(peers.size()) + " generations are at the rendezvous");
  }
  return std::move(peers[0].channel);
}

Rendezvous World::open_rendezvous(const Sys& sys) const {
  std::string problem;
  auto rendezvous = Rendezvous::open(sys, directory.path(), ::geteuid(), problem);
  if (!rendezvous) {
    throw std::runtime_error(problem);
  }
  return std::move(*rendezvous);
}

Predecessor::Predecessor(World& world, const std::vector<std::string>& addresses,
                         std::uint64_t generation, const std::string& identity)
    : Predecessor(world, listen_at_all(addresses), generation, identity) {}

Predecessor::Predecessor(World& world, std::vector<OwnedFd> listeners, std::uint64_t generation,
                         const std::string& identity)
    : world_(world),
      listeners_(std::move(listeners)),
      rendezvous_(world.open_rendezvous(world.holder_sys)),
      wake_(world.holder_sys, world.holder_sys.table().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      door_(publish(rendezvous_, identity, generation)),
      hidden(libc_sys(), world.options.hide),
      owner(world.holder_sys, world.log, world.proc.get(), rendezvous_.directory(), program,
            numbers_of(listeners_)),
      holder(world.holder_sys, world.log, world.options, owner,
             {.identity = identity, .generation = generation}, door_.get(), wake_.get(), &hidden) {
  for (const OwnedFd& listener : listeners_) {
    inodes_.push_back(socket_inode(libc_sys(), listener.get()));
    addresses_.push_back(name_of(listener.get()));
  }
  world_.predecessors.push_back(this);
}

Predecessor::~Predecessor() {
  std::erase(world_.predecessors, this);
}

Listener Predecessor::wanted(std::size_t index) const {
  const Address& name = addresses_.at(index);
  const OwnedFd fresh = own(::socket(name.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  Listener listener = *describe_socket(libc_sys(), fresh.get(), &name);
  if (!name.unix_path().empty()) {
    listener.file = find_socket_file(libc_sys(), name.unix_path()).value_or(SocketFile{});
  }
  return listener;
}

bool Predecessor::accepts(std::size_t index) const {
  if (socket_inode(libc_sys(), fd(index)) != inodes_.at(index)) {
    return false;
  }
  const OwnedFd client = connect_to(addresses_.at(index));
  return client.is_open() && becomes_readable(fd(index)) &&
         OwnedFd(libc_sys(), ::accept4(fd(index), nullptr, nullptr, SOCK_CLOEXEC)).is_open();
}

}  // namespace continuity::test
