#include "core/retirement.hpp"

#include <fcntl.h>

#include <algorithm>
#include <utility>

namespace continuity {
namespace {

// A race must be lost this often in a row before we give up looking.
constexpr int max_looks = 16;

// Runs a call that must not fail until it does not: out of memory, or a race
// with the program for the number, passes.
template <typename Call>
bool insist(const Sys& sys, Call call) {
  constexpr int most_tries = 200;
  for (int i = 0; i < most_tries; ++i) {
    if (call() >= 0) {
      return true;
    }
    if (errno != ENOMEM && errno != EINTR && errno != EBUSY && errno != EMFILE) {
      return false;
    }
    const timespec pause = to_timespec(i == 0 ? 0 : millisecond);
    sys.ppoll(nullptr, 0, &pause);
  }
  return false;
}

// Holds the program's closes back while numbers move.
class DescriptorLock {
 public:
  explicit DescriptorLock(Program& program) : program_(program) { program_.lock_descriptors(); }
  ~DescriptorLock() { program_.unlock_descriptors(); }
  DescriptorLock(const DescriptorLock&) = delete;
  DescriptorLock& operator=(const DescriptorLock&) = delete;

 private:
  Program& program_;
};

}  // namespace

Retirement::Retirement(const Sys& sys, int proc, int directory, Program& program,
                       bool (*ours)(int fd))
    : sys_(&sys),
      descriptors_(sys, proc),
      program_(&program),
      ours_(ours),
      stand_ins_(sys, directory) {}

std::vector<std::uint64_t> Retirement::inodes(bool retired_only) const {
  std::vector<std::uint64_t> inodes;
  for (const Kept& kept : kept_) {
    if (kept.retired || !retired_only) {
      inodes.push_back(kept.item.inode);
    }
  }
  return inodes;
}

Status Retirement::prepare_item(Item item) {
  const int flags = sys_->fcntl(item.fd, F_GETFL, 0);
  if (socket_inode(*sys_, item.fd) != item.inode) {
    return Error{"find a listener again", ESTALE};
  }
  OwnedFd copy(*sys_, sys_->fcntl(item.fd, F_DUPFD_CLOEXEC, 0));
  if (flags < 0 || !copy.is_open()) {
    return last_error("keep a copy of a listener");
  }
  const auto deaf = stand_ins_.get(item.fd, item.listener, false);
  if (!deaf) {
    return deaf.error();
  }
  const bool blocking = (flags & O_NONBLOCK) == 0;
  const auto last = blocking ? stand_ins_.get(item.fd, item.listener, true) : deaf;
  if (!last) {
    return last.error();
  }
  kept_.push_back(
      {.item = std::move(item), .copy = std::move(copy), .stand_in = *deaf, .last_stand_in = *last});
  return Done{};
}

Status Retirement::prepare(std::vector<Item> items) {
  abandon();
  for (Item& item : items) {
    if (auto prepared = prepare_item(std::move(item)); !prepared) {
      abandon();
      return prepared;
    }
  }
  const auto holdings = descriptors_.find(inodes(false), ours_);
  if (!holdings) {
    abandon();
    return holdings.error();
  }
  adopt(*holdings);
  return Done{};
}

void Retirement::abandon() {
  kept_.clear();
  seats_.clear();
  registrations_.clear();
}

void Retirement::adopt(const Holdings& holdings) {
  for (const Copy& copy : holdings.copies) {
    const auto kept = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& one) {
      return one.item.inode == copy.inode;
    });
    seats_.push_back({.fd = copy.fd,
                      .item = static_cast<std::size_t>(kept - kept_.begin()),
                      .blocking = kept->stand_in != kept->last_stand_in,
                      .fd_flags = sys_->fcntl(copy.fd, F_GETFD, 0),
                      .retired = false});
  }
  registrations_.insert(registrations_.end(), holdings.registrations.begin(),
                        holdings.registrations.end());
}

void Retirement::replace(Seat& seat, int by) {
  const int flags = (seat.fd_flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0;
  insist(*sys_, [&] { return sys_->dup3(by, seat.fd, flags); });
}

// Makes the epolls that watched what was under this number watch what is.
void Retirement::watch_again(const Seat& seat) {
  for (const Registration& registration : registrations_) {
    if (registration.fd == seat.fd && registration.inode == kept_[seat.item].item.inode) {
      watch(registration);
    }
  }
}

void Retirement::watch(const Registration& registration) {
  epoll_event event{.events = registration.events, .data = {.u64 = registration.data}};
  insist(*sys_, [&] {
    return sys_->epoll_ctl(registration.epoll, EPOLL_CTL_ADD, registration.fd, &event);
  });
}

void Retirement::swap(Seat& seat) {
  const Kept& kept = kept_[seat.item];
  if (socket_inode(*sys_, seat.fd) != kept.item.inode) {
    return;  // closed or replaced by the program meanwhile
  }
  const auto watches = [&](const Registration& registration) {
    return registration.fd == seat.fd && registration.inode == kept.item.inode;
  };
  program_->note_retired(seat.fd, kept.item.listener, seat.blocking,
                         std::any_of(registrations_.begin(), registrations_.end(), watches));
  std::erase_if(registrations_, [&](const Registration& registration) {
    // Gone meanwhile by the program's own doing: then it stays gone.
    return watches(registration) &&
           sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat.fd, nullptr) != 0;
  });
  replace(seat, kept.stand_in);
  seat.retired = true;
}

// The last stand-in, and the epolls that watched the listener watch it.
void Retirement::settle(std::span<const std::size_t> seats) {
  for (const std::size_t index : seats) {
    Seat& seat = seats_[index];
    const Kept& kept = kept_[seat.item];
    if (seat.blocking) {
      replace(seat, kept.last_stand_in);
    }
    watch_again(seat);
  }
}

bool Retirement::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  std::vector<std::size_t> swapped;
  std::vector<int> numbers;
  swapped.reserve(seats_.size());
  numbers.reserve(seats_.size());
  {
    const DescriptorLock lock(*program_);
    for (std::size_t index = 0; index < seats_.size(); ++index) {
      Seat& seat = seats_[index];
      Kept& kept = kept_[seat.item];
      if (seat.retired || std::find(ids.begin(), ids.end(), kept.item.listener.id) == ids.end()) {
        continue;
      }
      kept.retired = true;
      swap(seat);
      if (seat.retired) {
        swapped.push_back(index);
        numbers.push_back(seat.fd);
      }
    }
  }
  const bool clear = program_->clear_accepts(numbers, deadline);
  {
    const DescriptorLock lock(*program_);
    settle(swapped);
  }
  program_->note_settled();
  return clear;
}

// The program registered the listener between look and swap: its epoll knows
// the listener under a number that is the stand-in's now, and can only be told
// with the listener back in its place. Accepts find nothing all the while,
// since the number is marked.
void Retirement::repair(const Registration& registration) {
  const auto seat = std::find_if(seats_.begin(), seats_.end(), [&](const Seat& one) {
    return one.retired && one.fd == registration.fd &&
           kept_[one.item].item.inode == registration.inode;
  });
  if (seat == seats_.end()) {
    return;
  }
  const Kept& kept = kept_[seat->item];
  replace(*seat, kept.copy.get());
  sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat->fd, nullptr);
  replace(*seat, kept.last_stand_in);
  watch(registration);
  std::erase_if(registrations_, [&](const Registration& one) {
    return one.epoll == registration.epoll && one.fd == registration.fd &&
           one.inode == registration.inode;
  });
  registrations_.push_back(registration);
}

void Retirement::sweep() {
  for (int look = 0; look < max_looks; ++look) {
    const auto holdings = descriptors_.find(inodes(true), ours_);
    if (!holdings || (holdings->copies.empty() && holdings->registrations.empty())) {
      return;
    }
    {
      const DescriptorLock lock(*program_);
      for (const Registration& registration : holdings->registrations) {
        repair(registration);
      }
    }
    // Copies made since the look before: new seats.
    std::vector<std::uint32_t> ids;
    adopt({.copies = holdings->copies, .registrations = {}});
    for (const Kept& kept : kept_) {
      if (kept.retired) {
        ids.push_back(kept.item.listener.id);
      }
    }
    retire(ids, after(*sys_, 100 * millisecond));
  }
}

void Retirement::revive() {
  const DescriptorLock lock(*program_);
  for (Seat& seat : seats_) {
    const Kept& kept = kept_[seat.item];
    if (!seat.retired ||
        socket_inode(*sys_, seat.fd) != socket_inode(*sys_, kept.last_stand_in)) {
      continue;  // the program has closed it, and may have something else there
    }
    for (const Registration& registration : registrations_) {
      if (registration.fd == seat.fd && registration.inode == kept.item.inode) {
        sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat.fd, nullptr);
      }
    }
    replace(seat, kept.copy.get());
    watch_again(seat);
    program_->note_revived(seat.fd);
    seat.retired = false;
  }
  abandon();  // a copy of ours must not outlive the program's own last one
}

void Retirement::forget_listeners() {
  for (Kept& kept : kept_) {
    if (kept.retired) {
      kept.copy.reset();
    }
  }
}

int Retirement::copy_of(std::uint32_t id) const {
  for (const Kept& kept : kept_) {
    if (kept.item.listener.id == id) {
      return kept.copy.get();
    }
  }
  return -1;
}

bool Retirement::is_retired(std::uint32_t id) const {
  return std::any_of(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return kept.item.listener.id == id && kept.retired;
  });
}

std::vector<Address> Retirement::addresses() const {
  std::vector<Address> addresses;
  for (const Kept& kept : kept_) {
    if (kept.retired) {
      addresses.push_back(kept.item.listener.address);
    }
  }
  return addresses;
}

}  // namespace continuity
