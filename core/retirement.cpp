#include "core/retirement.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <set>
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
    pause_for(sys, i == 0 ? 0 : millisecond);
  }
  return false;
}

// The socket under a number, 0 if there is none. That the kernel could not tell
// is not that.
std::uint64_t inode_under(const Sys& sys, int fd) {
  struct stat status {};
  const bool told = insist(sys, [&] {
    const int result = sys.fstat(fd, &status);
    return result != 0 && errno == EBADF ? 0 : result;
  });
  return told && S_ISSOCK(status.st_mode) ? status.st_ino : 0;
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
      ring_control_(sys, proc, &program),
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

Result<Retirement::SharedState> Retirement::read_state(int fd) const {
  SharedState state{.status_flags = sys_->fcntl(fd, F_GETFL, 0)};
  if (state.status_flags < 0) {
    return last_error("look at a listener");
  }
  state.backlog = queue_limit(*sys_, fd);
  socklen_t size = sizeof state.reuse_port;
  if (state.backlog >= 0 &&
      sys_->getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &state.reuse_port, &size) != 0) {
    state.reuse_port = -1;
  }
  return state;
}

Status Retirement::prepare_item(Item item) {
  if (socket_inode(*sys_, item.fd) != item.inode) {
    return Error{"find a listener again", ESTALE};
  }
  OwnedFd copy(*sys_, sys_->fcntl(item.fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.is_open()) {
    return last_error("keep a copy of a listener");
  }
  const auto state = item.before ? Result<SharedState>(*item.before) : read_state(item.fd);
  if (!state) {
    return state.error();
  }
  const auto deaf = stand_ins_.get(item.fd, item.listener, false);
  if (!deaf) {
    return deaf.error();
  }
  const bool blocking = (state->status_flags & O_NONBLOCK) == 0;
  const bool held_off = item.listener.is_datagram() && program_->gates_receives();
  const bool sleeps = blocking && !held_off;
  const auto last = sleeps ? stand_ins_.get(item.fd, item.listener, true) : deaf;
  if (!last) {
    return last.error();
  }
  OwnedFd answering;
  if (item.listener.is_datagram() && !held_off) {
    answering = make_answering(*sys_, copy.get(), item.listener);
  }
  const int stand_in = answering.is_open() ? answering.get() : *deaf;
  const int last_stand_in = answering.is_open() ? answering.get() : *last;
  kept_by_inode_[item.inode] = kept_.size();
  kept_by_id_[item.listener.id] = kept_.size();
  kept_.push_back({.item = std::move(item),
                   .copy = std::move(copy),
                   .stand_in = stand_in,
                   .stand_in_inode = socket_inode(*sys_, stand_in),
                   .last_stand_in = last_stand_in,
                   .answering = std::move(answering),
                   .before = *state});
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
  auto holdings = descriptors_.find(inodes(false), ours_);
  if (!holdings) {
    abandon();
    return holdings.error();
  }
  leave_out_kept(*holdings);
  if (auto prepared = prepare_rings(*holdings); !prepared) {
    abandon();
    return prepared;
  }
  adopt(*holdings);
  return Done{};
}

Status Retirement::prepare_late(std::vector<Item> items) {
  const std::size_t first = kept_.size();
  std::vector<std::uint64_t> late;
  for (Item& item : items) {
    late.push_back(item.inode);
    if (auto prepared = prepare_item(std::move(item)); !prepared) {
      leave_out_from(first);
      return prepared;
    }
  }
  auto holdings = descriptors_.find(late, ours_);
  if (!holdings) {
    leave_out_from(first);
    return holdings.error();
  }
  leave_out_kept(*holdings);
  if (!prepare_ring_receives(*holdings, first)) {
    leave_out_from(first);
    return Error{"end what a ring receives", ENOTSUP};
  }
  holdings->small_epolls.insert(holdings->small_epolls.end(), small_epolls_.begin(),
                                small_epolls_.end());
  rings_ = holdings->rings;
  adopt(*holdings);
  return Done{};
}

void Retirement::leave_out_from(std::size_t first) {
  for (auto kept = kept_.begin() + static_cast<std::ptrdiff_t>(first); kept != kept_.end();
       ++kept) {
    kept_by_inode_.erase(kept->item.inode);
    kept_by_id_.erase(kept->item.listener.id);
  }
  kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(first), kept_.end());
}

// Something else than a ring waits for what comes there.
bool Retirement::is_called_for(std::uint64_t inode, const Holdings& holdings) const {
  return std::any_of(holdings.registrations.begin(), holdings.registrations.end(),
                     [&](const Registration& one) { return one.inode == inode; }) ||
         std::any_of(holdings.copies.begin(), holdings.copies.end(), [&](const Copy& copy) {
           return copy.inode == inode && program_->is_waited_for(copy.fd);
         });
}

// What cannot be done at READY is refused now, when nothing has been changed.
Status Retirement::prepare_rings(const Holdings& holdings) {
  obstacle_.clear();
  if (ring_control_.any_closed(holdings.rings)) {
    obstacle_ =
        "the program uses an io_uring whose descriptor it has closed, so that nobody can see what "
        "it waits for";
  }
  std::vector<std::uint64_t> inodes;
  Rings::Listeners listeners{.all = {}, .called_for = true, .datagrams = false};
  for (const Kept& kept : kept_) {
    if (holdings.rings.empty()) {
      break;
    }
    inodes.push_back(kept.item.inode);
    if (!is_called_for(kept.item.inode, holdings)) {
      listeners.called_for = false;
      listeners.datagrams = listeners.datagrams || kept.item.listener.is_datagram();
    }
  }
  listeners.all = inodes;
  for (const int ring : holdings.rings) {
    if (const char* reason = ring_control_.why_not(ring, listeners); reason != nullptr) {
      obstacle_ = compose("io_uring {}: {}", ring, reason);
      break;  // each more may take its time
    }
  }
  rings_ = holdings.rings;
  prepare_ring_receives(holdings, 0);
  return obstacle_.empty() ? Status(Done{}) : Error{"end what a ring waits for", ENOTSUP};
}

// Of a datagram socket for which nothing else is seen to wait, where there is a ring. If that
// was wrong, nothing is lost by it: receives by calls find nothing there either.
bool Retirement::prepare_ring_receives(const Holdings& holdings, std::size_t first) {
  if (holdings.rings.empty()) {
    return true;
  }
  std::set<std::uint64_t> fixed;
  for (const int ring : holdings.rings) {
    for (const FixedSocket& one : ring_control_.look(ring).sockets) {
      fixed.insert(one.inode);
    }
  }
  for (std::size_t item = first; item < kept_.size(); ++item) {
    Kept& kept = kept_[item];
    const Listener& listener = kept.item.listener;
    if (!program_->gates_receives()) {
      kept.by_ring = listener.is_datagram();  // it leaves its number in any case
      continue;
    }
    if (!listener.is_datagram() ||
        (!fixed.contains(kept.item.inode) && is_called_for(kept.item.inode, holdings))) {
      continue;
    }
    kept.answering = stand_ins_.answering_for(kept.copy.get(), listener);
    if (!kept.answering.is_open()) {
      obstacle_ = compose("io_uring {} may receive from {}, where nothing else could answer",
                          holdings.rings.front(), to_string(listener.address));
      return false;
    }
    // A read by a ring waits only where the socket blocks.
    sys_->fcntl(kept.answering.get(), F_SETFL, kept.before.status_flags);
    kept.stand_in = kept.last_stand_in = kept.answering.get();
    kept.stand_in_inode = socket_inode(*sys_, kept.stand_in);
    kept.by_ring = true;
  }
  return true;
}

void Retirement::abandon() {
  for (const Kept& kept : kept_) {
    restore_membership(kept);
  }
  stand_ins_.clear();
  kept_.clear();
  kept_by_inode_.clear();
  kept_by_id_.clear();
  seats_.clear();
  registrations_.clear();
  small_epolls_.clear();
  rings_.clear();
  fixed_seats_.clear();
}

void Retirement::adopt(const Holdings& holdings) {
  for (const Copy& copy : holdings.copies) {
    const std::size_t item = kept_by_inode_.at(copy.inode);
    seats_.push_back({.fd = copy.fd,
                      .item = item,
                      .blocking = (kept_[item].before.status_flags & O_NONBLOCK) == 0,
                      .fd_flags = sys_->fcntl(copy.fd, F_GETFD, 0),
                      .retired = false,
                      .settled = false});
  }
  for (const Registration& registration : holdings.registrations) {
    registrations_.emplace(registration.fd, registration);
  }
  small_epolls_ = holdings.small_epolls;
}

std::unordered_set<int> Retirement::retired_numbers() const {
  std::unordered_set<int> numbers;
  for (const Seat& seat : seats_) {
    if (seat.retired) {
      numbers.insert(seat.fd);
    }
  }
  return numbers;
}

// Calls visit(registration) for each epoll that watches, or did, the listener under
// this number; where it returns true, that is forgotten.
template <typename Visit>
void Retirement::for_each_watch(const Seat& seat, Visit visit) {
  const std::uint64_t inode = kept_[seat.item].item.inode;
  const auto [begin, end] = registrations_.equal_range(seat.fd);
  for (auto at = begin; at != end;) {
    at = at->second.inode == inode && visit(at->second) ? registrations_.erase(at) : std::next(at);
  }
}

// The program may have changed events and data since prepare. A long list is
// taken as it was then: reading it would cost more than all the rest.
void Retirement::refresh() {
  const auto retired = retired_numbers();
  for (const int epoll : small_epolls_) {
    std::vector<Registration> current;
    if (descriptors_.find_in_epoll(epoll, inodes(false), current)) {
      std::erase_if(registrations_, [&](const auto& one) {
        return one.second.epoll == epoll && !retired.contains(one.first);
      });
      for (const Registration& registration : current) {
        if (!retired.contains(registration.fd)) {
          registrations_.emplace(registration.fd, registration);
        }
      }
    }
  }
}

// A retired datagram socket whose receives are held off leaves its number to nobody.
bool Retirement::keeps_place(const Kept& kept) const {
  return kept.item.listener.is_datagram() && program_->gates_receives() && !kept.by_ring;
}

bool Retirement::keeps_place(std::uint64_t inode) const {
  const auto found = kept_by_inode_.find(inode);
  return found != kept_by_inode_.end() && keeps_place(kept_[found->second]);
}

void Retirement::replace(Seat& seat, int by) {
  const int flags = (seat.fd_flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0;
  insist(*sys_, [&] { return sys_->dup3(by, seat.fd, flags); });
}

// Makes the epolls that watched what was under this number watch what is.
void Retirement::watch_again(const Seat& seat) {
  const Kept& kept = kept_[seat.item];
  const bool readable =
      !seat.retired || !keeps_place(kept) || inode_under(*sys_, seat.fd) != kept.item.inode;
  for_each_watch(seat, [&](const Registration& registration) {
    watch(registration, readable);
    return false;
  });
}

// `readable`: whether it may say so. A datagram socket that has been retired is
// somebody else's to read.
void Retirement::watch(const Registration& registration, bool readable) {
  epoll_event event{.events = registration.events, .data = {.u64 = registration.data}};
  if (!readable) {
    event.events &= ~about_reading;
    if ((event.events & about_writing) == 0) {
      return;
    }
  }
  insist(*sys_, [&] {
    return sys_->epoll_ctl(registration.epoll, EPOLL_CTL_ADD, registration.fd, &event);
  });
}

void Retirement::swap(Seat& seat, Nanoseconds deadline) {
  const Kept& kept = kept_[seat.item];
  if (inode_under(*sys_, seat.fd) != kept.item.inode) {
    return;  // closed or replaced by the program meanwhile
  }
  bool watched = false;
  for_each_watch(seat, [&](const Registration&) {
    watched = true;
    return false;
  });
  program_->note_retired(seat.fd, kept.item.listener, seat.blocking, watched);
  for_each_watch(seat, [&](const Registration& registration) {
    // Gone meanwhile by the program's own doing: then it stays gone.
    return sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat.fd, nullptr) != 0;
  });
  // Who never sleeps in a receive comes back from it by itself.
  if (!keeps_place(kept) || (seat.blocking && program_->clear_sends(seat.fd, deadline))) {
    replace(seat, kept.stand_in);
  }
  seat.retired = true;
}

// The last stand-in, and the epolls that watched the listener watch it.
void Retirement::settle() {
  {
    const DescriptorLock lock(*program_);
    for (Seat& seat : seats_) {
      const Kept& kept = kept_[seat.item];
      const bool datagrams = keeps_place(kept);
      const std::uint64_t inode = inode_under(*sys_, seat.fd);
      const bool replaced = inode == kept.stand_in_inode;
      // The program may have closed the number meanwhile.
      if (!seat.retired || seat.settled ||
          (!replaced && !(datagrams && inode == kept.item.inode))) {
        continue;
      }
      if (datagrams && replaced) {
        replace(seat, kept.copy.get());
      } else if (seat.blocking && kept.answering.is_open()) {
        sys_->fcntl(kept.answering.get(), F_SETFL, kept.before.status_flags);
      } else if (!datagrams && seat.blocking) {
        replace(seat, kept.last_stand_in);
      }
      watch_again(seat);
      seat.settled = true;
    }
  }
  program_->note_settled();
}

bool Retirement::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  std::vector<int> numbers;
  numbers.reserve(seats_.size());
  const std::set<std::uint32_t> wanted(ids.begin(), ids.end());
  const auto named = [&](const Kept& kept) { return wanted.contains(kept.item.listener.id); };
  for (Kept& kept : kept_) {
    kept.retired = kept.retired || named(kept);  // whether or not a number of it is known
  }
  refresh();
  {
    const DescriptorLock lock(*program_);
    for (Seat& seat : seats_) {
      if (seat.retired || !named(kept_[seat.item])) {
        continue;
      }
      swap(seat, deadline);
      if (seat.retired) {
        numbers.push_back(seat.fd);
      }
    }
  }
  bool any = false;
  const bool deaf = deafen_rings(any);
  return program_->clear_accepts(numbers, deadline) && deaf;
}

// What has been retired, in all rings. `any`: there was something to do. First what the
// program will find when it asks anew, then it is told to.
bool Retirement::deafen_rings(bool& any) {
  std::vector<int> listeners;
  std::vector<int> receivers;
  for (const Kept& kept : kept_) {
    if (kept.retired && kept.copy.is_open() &&
        (kept.by_ring || !kept.item.listener.is_datagram())) {
      (kept.by_ring ? receivers : listeners).push_back(kept.copy.get());
    }
  }
  bool replaced = true;
  for (const int ring : rings_) {
    for (const FixedSocket& socket : ring_control_.look(ring).sockets) {
      const auto found = kept_by_inode_.find(socket.inode);
      if (found == kept_by_inode_.end() || !kept_[found->second].retired) {
        continue;
      }
      any = true;
      replaced =
          ring_control_.put(ring, socket.slot, kept_[found->second].last_stand_in) && replaced;
      fixed_seats_.push_back({.ring = ring, .slot = socket.slot, .item = found->second});
    }
  }
  const auto ended = ring_control_.end_accepts(rings_, listeners);
  const auto ended_receives = ring_control_.end_receives(rings_, receivers);
  any = any || ended == Rings::Ended::some || ended_receives == Rings::Ended::some;
  return replaced && ended != Rings::Ended::refused && ended_receives != Rings::Ended::refused;
}

bool Retirement::is_stand_in(std::uint64_t inode) const {
  return std::any_of(kept_.begin(), kept_.end(), [&](const Kept& kept) {
    return inode == kept.stand_in_inode || inode == inode_under(*sys_, kept.last_stand_in);
  });
}

// The same backwards: what waits on a stand-in is to wait on the listener.
void Retirement::revive_rings() {
  if (const auto holdings = descriptors_.find({}, ours_); holdings) {
    rings_ = holdings->rings;
  }
  for (const int ring : rings_) {
    const RingInfo info = ring_control_.look(ring);
    for (const FixedSeat& seat : fixed_seats_) {
      const bool is_there = std::any_of(
          info.sockets.begin(), info.sockets.end(),
          [&](const FixedSocket& one) { return one.slot == seat.slot && is_stand_in(one.inode); });
      if (seat.ring == ring && is_there && kept_[seat.item].copy.is_open() &&
          !ring_control_.put(ring, seat.slot, kept_[seat.item].copy.get())) {
        return;
      }
    }
  }
  std::set<int> stand_ins;
  std::vector<int> answering;
  for (const Kept& kept : kept_) {
    if (kept.retired && kept.by_ring) {
      answering.push_back(kept.stand_in);
    } else if (kept.retired && !kept.item.listener.is_datagram()) {
      stand_ins.insert({kept.stand_in, kept.last_stand_in});
    }
  }
  const std::vector<int> fds(stand_ins.begin(), stand_ins.end());
  static_cast<void>(ring_control_.end_accepts(rings_, fds));
  static_cast<void>(ring_control_.end_receives(rings_, answering));
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
  const bool datagrams = keeps_place(kept);
  if (!datagrams) {
    replace(*seat, kept.copy.get());
  }
  sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat->fd, nullptr);
  if (!datagrams) {
    replace(*seat, kept.last_stand_in);
  }
  watch(registration, !datagrams);
  for_each_watch(*seat, [&](const Registration& one) { return one.epoll == registration.epoll; });
  registrations_.emplace(registration.fd, registration);
}

// What is kept for a revival is no number of the program's, though not every face hides
// what is ours.
void Retirement::leave_out_kept(Holdings& holdings) const {
  std::unordered_set<int> numbers;
  for (const Kept& kept : kept_) {
    if (kept.copy.is_open()) {
      numbers.insert(sys_->number(kept.copy.get()));
    }
  }
  std::erase_if(holdings.copies, [&](const Copy& copy) { return numbers.contains(copy.fd); });
}

// A retired datagram socket under a number that is known, and watched by nobody who
// wants to read, is as it should be.
void Retirement::leave_to_itself(Holdings& holdings) const {
  const auto retired = retired_numbers();
  std::erase_if(holdings.copies, [&](const Copy& copy) {
    return keeps_place(copy.inode) && retired.contains(copy.fd);
  });
  std::erase_if(holdings.registrations, [&](const Registration& one) {
    return keeps_place(one.inode) && (one.events & about_reading) == 0;
  });
}

void Retirement::sweep() {
  settle();
  for (int look = 0; look < max_looks; ++look) {
    auto holdings = descriptors_.find(inodes(true), ours_);
    if (!holdings) {
      continue;
    }
    leave_out_kept(*holdings);
    leave_to_itself(*holdings);
    rings_ = holdings->rings;
    bool ring_had_any = false;
    deafen_rings(ring_had_any);
    if (holdings->copies.empty() && holdings->registrations.empty() && !ring_had_any) {
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
    adopt({.copies = holdings->copies, .registrations = {}, .small_epolls = {}, .rings = {}});
    for (const Kept& kept : kept_) {
      if (kept.retired) {
        ids.push_back(kept.item.listener.id);
      }
    }
    retire(ids, after(*sys_, 100 * millisecond));
    settle();
  }
}

// Who wanted to listen beside it has set this, and has not become ready, or has ended.
void Retirement::restore_membership(const Kept& kept) {
  int current = 0;
  socklen_t size = sizeof current;
  const int wanted = kept.before.reuse_port;
  if (wanted >= 0 && kept.copy.is_open() &&
      sys_->getsockopt(kept.copy.get(), SOL_SOCKET, SO_REUSEPORT, &current, &size) == 0 &&
      current != wanted) {
    sys_->setsockopt(kept.copy.get(), SOL_SOCKET, SO_REUSEPORT, &wanted, sizeof wanted);
  }
}

// What the successor set in the meantime belongs to the listener, not to it.
void Retirement::restore_shared_state(const Kept& kept) {
  sys_->fcntl(kept.copy.get(), F_SETFL, kept.before.status_flags);
  // It may have been closed, beside a listener of the successor's, which ends only now.
  const Nanoseconds deadline = after(*sys_, second);
  while (kept.before.backlog >= 0 && sys_->listen(kept.copy.get(), kept.before.backlog) != 0 &&
         errno == EADDRINUSE && now(*sys_) < deadline) {
    pause_for(*sys_, millisecond);
  }
}

void Retirement::revive() {
  const DescriptorLock lock(*program_);
  for (const Kept& kept : kept_) {
    if (kept.retired && kept.copy.is_open()) {
      restore_shared_state(kept);
    }
  }
  for (Seat& seat : seats_) {
    const Kept& kept = kept_[seat.item];
    const std::uint64_t inode = seat.retired ? inode_under(*sys_, seat.fd) : 0;
    const bool kept_its_place = keeps_place(kept) && inode == kept.item.inode;
    if (inode == 0 || !kept.copy.is_open() ||
        (!kept_its_place && inode != kept.stand_in_inode &&
         inode != inode_under(*sys_, kept.last_stand_in))) {
      continue;  // the program has closed it, and may have something else there
    }
    for_each_watch(seat, [&](const Registration& registration) {
      sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat.fd, nullptr);
      return false;
    });
    program_->note_reviving(seat.fd);
    if (!kept_its_place) {
      replace(seat, kept.copy.get());
    }
    seat.retired = false;
    watch_again(seat);
    program_->note_revived(seat.fd);
  }
  // Who was to hear that the listeners are retired may have ended before: then nothing has
  // been settled, and threads that found nothing still wait for it.
  program_->note_settled();
  revive_rings();
  abandon();  // a copy of ours must not outlive the program's own last one
}

// What answers for a datagram socket that a ring has received from holds its address, too.
void Retirement::replace_answering(Kept& kept, std::size_t item) {
  int deaf = -1;
  for (Seat& seat : seats_) {
    if (seat.item != item || !seat.retired || inode_under(*sys_, seat.fd) != kept.stand_in_inode) {
      continue;
    }
    if (const auto made = stand_ins_.get(seat.fd, kept.item.listener, seat.blocking); made) {
      deaf = *made;
      replace(seat, deaf);
    }
  }
  const int last = kept.last_stand_in;
  for (const FixedSeat& seat : fixed_seats_) {
    if (seat.item == item && deaf >= 0) {
      static_cast<void>(ring_control_.put(seat.ring, seat.slot, deaf));
    }
  }
  static_cast<void>(ring_control_.end_receives(rings_, std::span(&last, 1)));
  kept.stand_in = kept.last_stand_in = deaf;
  kept.stand_in_inode = inode_under(*sys_, deaf);
  kept.answering.reset();
}

// Answers have had their time: whoever has the address next must be able to close it.
void Retirement::let_go_of_datagrams(std::span<const std::uint32_t> ids) {
  const std::set<std::uint32_t> wanted(ids.begin(), ids.end());
  const DescriptorLock lock(*program_);
  for (Seat& seat : seats_) {
    const Kept& kept = kept_[seat.item];
    if (!seat.retired || !kept.item.listener.is_datagram() ||
        !wanted.contains(kept.item.listener.id) || inode_under(*sys_, seat.fd) != kept.item.inode) {
      continue;
    }
    for_each_watch(seat, [&](const Registration& registration) {
      sys_->epoll_ctl(registration.epoll, EPOLL_CTL_DEL, seat.fd, nullptr);
      return false;
    });
    replace(seat, kept.stand_in);
    watch_again(seat);
  }
  for (std::size_t item = 0; item < kept_.size(); ++item) {
    Kept& kept = kept_[item];
    if (kept.by_ring && kept.retired && kept.answering.is_open() &&
        wanted.contains(kept.item.listener.id)) {
      replace_answering(kept, item);
    }
  }
}

// Whoever sleeps on one comes back from it; and an address that was answered from is free.
void Retirement::end_stand_ins() {
  for (Seat& seat : seats_) {
    Kept& kept = kept_[seat.item];
    const std::uint64_t inode = seat.retired ? inode_under(*sys_, seat.fd) : 0;
    if (inode == 0 ||
        (inode != kept.stand_in_inode && inode != inode_under(*sys_, kept.last_stand_in))) {
      continue;
    }
    sys_->shutdown(seat.fd, SHUT_RDWR);
    if (const auto deaf = stand_ins_.get(seat.fd, kept.item.listener, seat.blocking);
        kept.answering.is_open() && deaf) {
      replace(seat, *deaf);
      sys_->shutdown(seat.fd, SHUT_RDWR);
      kept.stand_in = kept.last_stand_in = *deaf;
      kept.stand_in_inode = socket_inode(*sys_, *deaf);
    }
  }
  for (Kept& kept : kept_) {
    if (kept.retired) {
      kept.answering.reset();
    }
  }
}

void Retirement::let_go(std::span<const std::uint32_t> ids) {
  let_go_of_datagrams(ids);
  const std::set<std::uint32_t> wanted(ids.begin(), ids.end());
  for (Kept& kept : kept_) {
    if (wanted.contains(kept.item.listener.id)) {
      kept.copy.reset();
    }
  }
}

void Retirement::forget_datagrams(std::span<const std::uint32_t> ids) {
  std::vector<std::uint32_t> datagrams(ids.begin(), ids.end());
  std::erase_if(datagrams, [&](std::uint32_t id) {
    const Kept* kept = find_kept(id);
    return kept == nullptr || !kept->item.listener.is_datagram();
  });
  let_go(datagrams);
}

void Retirement::forget_listeners() {
  std::vector<std::uint32_t> ids;
  for (const Kept& kept : kept_) {
    if (kept.retired) {
      ids.push_back(kept.item.listener.id);
    }
  }
  let_go(ids);
}

const Retirement::Kept* Retirement::find_kept(std::uint32_t id) const {
  const auto found = kept_by_id_.find(id);
  return found == kept_by_id_.end() ? nullptr : &kept_[found->second];
}

int Retirement::copy_of(std::uint32_t id) const {
  const Kept* kept = find_kept(id);
  return kept == nullptr ? -1 : kept->copy.get();
}

bool Retirement::is_retired(std::uint32_t id) const {
  const Kept* kept = find_kept(id);
  return kept != nullptr && kept->retired;
}

bool Retirement::serves() const {
  return std::any_of(kept_.begin(), kept_.end(), [](const Kept& kept) { return !kept.retired; });
}

bool Retirement::is_grouped(std::uint32_t id) const {
  const Kept* kept = find_kept(id);
  return kept != nullptr && kept->before.reuse_port > 0;
}

std::vector<Retirement::Item> Retirement::items() const {
  std::vector<Item> items;
  items.reserve(kept_.size());
  for (const Kept& kept : kept_) {
    items.push_back(kept.item);
    items.back().before = kept.before;
  }
  return items;
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
