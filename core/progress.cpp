#include "core/progress.hpp"

#include "core/wake.hpp"

#include <fcntl.h>
#include <new>
#include <sys/eventfd.h>
#include <sys/mman.h>

namespace continuity {

Progress::Progress(const Sys& sys) : sys_(&sys) {
  void* const memory = ::mmap(nullptr, sizeof(std::atomic<bool>), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory != MAP_FAILED) {
    completed_ = new (memory) std::atomic<bool>(false);
  }
}

Progress::~Progress() {
  if (completed_ != &own_completed_) {
    ::munmap(completed_, sizeof *completed_);
  }
}

void Progress::note_successor(pid_t successor) {
  const std::lock_guard lock(mutex_);
  if (successor > 0) {
    outcome_.successor = successor;
  }
}

void Progress::begin() {
  const std::lock_guard lock(mutex_);
  outcome_.start_time = outcome_.switch_time = outcome_.life_time = 0;
  since_ = now(*sys_);
  // Nobody is told: until it is ready it is not sure to have come to anything.
  outcome_.state = State::starting;
  ++outcome_.changes;
}

void Progress::take_over(Nanoseconds began) {
  const std::lock_guard lock(mutex_);
  if (outcome_.state != State::starting) {
    return;  // one more of its listeners
  }
  outcome_.start_time = began - since_;
  since_ = now(*sys_);
  outcome_.switch_time = since_ - began;
  outcome_.state = State::taken_over;
  ++outcome_.changes;
}

// To wake a thread of the program's may cost this one the processor.
void Progress::announce() {
  const std::lock_guard lock(mutex_);
  if (outcome_.state == State::taken_over) {
    ring_events();
  }
}

void Progress::complete() {
  const std::lock_guard lock(mutex_);
  completed_->store(true);
  if (outcome_.state == State::taken_over) {
    outcome_.life_time = now(*sys_) - since_;
    enter(State::completed);
  }
}

void Progress::roll_back() {
  const std::lock_guard lock(mutex_);
  outcome_.life_time = now(*sys_) - since_;
  enter(State::rolled_back);
}

void Progress::fail() {
  const std::lock_guard lock(mutex_);
  if (outcome_.state == State::starting) {
    outcome_.start_time = now(*sys_) - since_;
    enter(State::failed);
  }
}

void Progress::note_predecessor(pid_t predecessor, Nanoseconds took) {
  const std::lock_guard lock(mutex_);
  outcome_.predecessor = predecessor;
  outcome_.takeover_time = took;
}

void Progress::enter(State state) {
  outcome_.state = state;
  ++outcome_.changes;
  ring_events();
}

void Progress::ring_events() {
  for (const OwnedFd* event : {&event_, &watch_}) {
    if (event->is_open()) {
      ring(*sys_, event->get());
    }
  }
}

Progress::Outcome Progress::outcome() {
  const std::lock_guard lock(mutex_);
  Outcome result = outcome_;
  if (result.state == State::starting) {
    result.start_time = now(*sys_) - since_;
  } else if (result.state == State::taken_over) {
    result.life_time = now(*sys_) - since_;
  }
  return result;
}

int Progress::event() {
  const std::lock_guard lock(mutex_);
  if (!event_.is_open()) {
    event_ = OwnedFd(*sys_, sys_->eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    // What came before it was asked for is news as well.
    if (event_.is_open() && outcome_.state > State::starting) {
      ring(*sys_, event_.get());
    }
  }
  return event_.get();
}

void Progress::acknowledge() {
  const std::lock_guard lock(mutex_);
  if (event_.is_open()) {
    std::uint64_t count = 0;
    sys_->read(event_.get(), &count, sizeof count);
  }
}

OwnedFd Progress::watch() {
  const std::lock_guard lock(mutex_);
  watch_ = OwnedFd(*sys_, sys_->eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return {*sys_, sys_->fcntl(watch_.get(), F_DUPFD_CLOEXEC, 0)};
}

}  // namespace continuity
