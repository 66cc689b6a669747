#include "core/library_owner.hpp"

#include "core/directory.hpp"
#include "core/wake.hpp"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

namespace continuity {
namespace {

bool nothing_is_hidden(int) {
  return false;
}

}  // namespace

LibraryOwner::LibraryOwner(const Sys& sys, Log& log, int proc, Rendezvous& rendezvous,
                           Taker::Self self, Progress& progress)
    : LocalOwner(sys, log, proc, rendezvous.directory(), *this, &nothing_is_hidden),
      log_(&log),
      proc_(proc),
      rendezvous_(&rendezvous),
      self_(std::move(self)),
      progress_(&progress) {}

void LibraryOwner::add(int fd, SocketFile file) {
  const std::lock_guard lock(mutex_);
  registered_[fd] = {socket_inode(sys(), fd), std::move(file)};
}

std::vector<LibraryOwner::Item> LibraryOwner::inventory() {
  const std::lock_guard lock(mutex_);
  std::vector<Item> items;
  for (const auto& [fd, known] : registered_) {
    auto listener = describe_socket(sys(), fd);
    if (receives_work(sys(), fd) && listener && socket_inode(sys(), fd) == known.inode) {
      listener->file = known.file;
      items.push_back({.listener = std::move(*listener), .fd = fd, .inode = known.inode});
    }
  }
  return items;
}

bool LibraryOwner::add_named(const std::string& name, int fd) {
  struct stat status {};
  sys().fstat(fd, &status);
  const std::lock_guard lock(mutex_);
  if (!named_.contains(name) && named_.size() == max_named) {
    return false;
  }
  named_[name] = {fd, status.st_dev, status.st_ino};
  return true;
}

std::vector<LibraryOwner::Named> LibraryOwner::named() {
  const std::lock_guard lock(mutex_);
  std::vector<Named> named;
  for (const auto& [name, known] : named_) {
    struct stat status {};
    if (sys().fstat(known.fd, &status) == 0 && status.st_dev == known.device &&
        status.st_ino == known.inode) {
      named.push_back({.name = name, .fd = known.fd});
    }
  }
  return named;
}

// ---- What the program is told ------------------------------------------------------

Status LibraryOwner::prepare(std::vector<Item> items) {
  auto prepared = LocalOwner::prepare(std::move(items));
  if (prepared) {
    progress_->begin();
  }
  return prepared;
}

void LibraryOwner::abandon() {
  LocalOwner::abandon();
  progress_->fail();
}

bool LibraryOwner::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  const Nanoseconds began = now(sys());
  const bool clear = LocalOwner::retire(ids, deadline);
  progress_->take_over(began);
  return clear;
}

void LibraryOwner::sweep() {
  progress_->announce();
  LocalOwner::sweep();
}

void LibraryOwner::revive() {
  LocalOwner::revive();
  progress_->roll_back();
}

void LibraryOwner::forget_listeners() {
  LocalOwner::forget_listeners();
  if (serves()) {
    return;  // what the successor has not claimed: a program that is told to leave drops its queue
  }
  progress_->complete();  // first: who comes back from a stand-in asks
  end_stand_ins();
}

// ---- Who is inside accept ------------------------------------------------------------

void LibraryOwner::note_revived(int fd) {
  for (const pid_t thread : perhaps_inside({&fd, 1})) {
    wake_thread(sys(), thread, wake_signal());
  }
}

// Numbers have been replaced by non-blocking stand-ins. A thread that has got
// our signal since has been between two system calls, and finds the stand-in
// at the next; until then it may have the listener in its hands, asleep or on
// its way to sleep.
bool LibraryOwner::clear_accepts(std::span<const int> fds, Nanoseconds deadline) {
  std::vector<pid_t> untold = perhaps_inside(fds);
  std::vector<pid_t> told;
  for (;;) {
    std::erase_if(untold, [&](pid_t thread) {
      errno = 0;
      const bool exists = wake_thread(sys(), thread, wake_signal());
      if (exists && errno == 0) {  // else there is no room for a signal just now
        told.push_back(thread);
      }
      return !exists || errno == 0 || !is_perhaps_inside(thread, fds);
    });
    std::erase_if(told, [&](pid_t thread) {
      return !is_perhaps_inside(thread, fds) || !is_pending(sys(), proc_, thread, wake_signal());
    });
    const bool clear = untold.empty() && told.empty();
    if (clear || now(sys()) >= deadline) {
      return clear;
    }
    pause_for(sys(), 20 * microsecond);
  }
}

int LibraryOwner::wake_signal() {
  if (wake_signal_ == 0) {
    wake_signal_ = choose_wake_signal(sys());
  }
  return wake_signal_;
}

// A thread that runs may be on its way into accept, or out of it.
bool LibraryOwner::is_perhaps_inside(pid_t thread, std::span<const int> fds) {
  const int found = find_accept(sys(), proc_, thread);
  return found == running || std::find(fds.begin(), fds.end(), found) != fds.end();
}

std::vector<pid_t> LibraryOwner::perhaps_inside(std::span<const int> fds) {
  std::vector<pid_t> threads;
  const OwnedFd tasks(sys(), sys().openat(proc_, "self/task", O_RDONLY | O_CLOEXEC, 0));
  const auto visit = [&](int thread) {
    if (thread != ::gettid() && is_perhaps_inside(thread, fds)) {
      threads.push_back(thread);
    }
  };
  if (!for_each_number(sys(), tasks.get(), visit)) {
    log_->warn("threads inside accept cannot be found; one may take a connection too many");
  }
  return threads;
}

}  // namespace continuity
