#include "shim/own_descriptors.hpp"

#include "core/result.hpp"
#include "shim/placement.hpp"
#include "shim/real_calls.hpp"
#include "shim/watch.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef CONTINUITY_TEST_HOOKS
#include "shim/test_hooks.hpp"
#endif

namespace continuity::shim {
namespace {

// select knows no number above it.
constexpr int highest_own = 1023;

// Where ours are put: the highest numbers of the first of these that has room. Up to 63 the
// kernel's table of descriptors is a part of what it has for every process
// (include/linux/fdtable.h, NR_OPEN_DEFAULT); with one above, all calls on any cost more, and a
// fork copies the table up to its highest number. Who has many needs all numbers below 1,024
// but so few.
constexpr int range_size = 32;
constinit std::atomic<int> g_low_count{0};
constexpr auto ranges = std::to_array({63, 255, highest_own});
// How many numbers from a range's highest down are likely not to be free, so that many
// descriptors are not looked through for each.
constinit std::array<std::atomic<int>, ranges.size()> g_used{};
// A high number costs the kernel a table as long as that.
constexpr int long_table = 65'536;
// So many numbers before ours they begin to be in the program's way.
constexpr int near_ours = 8;

// Core never sees the numbers of its descriptors but handles for them, so that
// one can be moved when the program wants its number: dup2 onto it is allowed.
constexpr int first_handle = 1 << 24;
constexpr std::size_t handles = 65'536;
constexpr int no_number = -1;

// By handle, the number plus one: zero is a free handle.
CONTINUITY_LARGE_DATA constinit std::array<std::atomic<int>, handles> g_numbers{};
// No handle at or above it has ever been given out.
constinit std::atomic<int> g_handle_limit{0};
// Below it handles are likely to be in use: where to begin to look.
constinit std::atomic<std::size_t> g_next_handle{0};

bool is_handle(int fd) {
  return fd >= first_handle;
}

int handle_for(int number) {
  const std::size_t begin = g_next_handle.load();
  for (std::size_t step = 0; step < handles; ++step) {
    const std::size_t i = (begin + step) % handles;
    int free = 0;
    if (g_numbers[i].compare_exchange_strong(free, number + 1)) {
      g_next_handle.store(i + 1);
      int limit = g_handle_limit.load();
      while (limit <= static_cast<int>(i) &&
             !g_handle_limit.compare_exchange_weak(limit, static_cast<int>(i) + 1)) {
      }
      return first_handle + static_cast<int>(i);
    }
  }
  return -1;
}

std::atomic<int>& slot_of(int handle) {
  return g_numbers[static_cast<std::size_t>(handle - first_handle)];
}

// What the kernel knows it by; the program's own numbers are what they are.
int plain_number_of(int fd) {
  return is_handle(fd) ? slot_of(fd).load() - 1 : fd;
}

// How many calls are being made on numbers that have been read before: who takes ours away
// from a number closes it when there are none. Whoever comes later reads the new one.
constinit std::atomic<int> g_calls{0};

class InCall {
 public:
  InCall() noexcept { g_calls.fetch_add(1); }
  ~InCall() { g_calls.fetch_sub(1); }
  InCall(const InCall&) = delete;
  InCall& operator=(const InCall&) = delete;
};

// The same for as long as the whole expression: the call that it is made for.
class NumberInCall {
 public:
  explicit NumberInCall(int fd) noexcept : number_(plain_number_of(fd)) {}
  [[nodiscard]] int get() const { return number_; }

 private:
  InCall in_call_;
  int number_;
};

NumberInCall number_of(int fd) {
  return NumberInCall(fd);
}

int highest_allowed() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > highest_own) {
    return highest_own;
  }
  return static_cast<int>(limit.rlim_cur) - 1;
}

bool is_free(int number) {
  return real().fcntl(number, F_GETFD) < 0;
}

// The highest free number from this one downwards that is above `floor`; that: none.
int find_free(int from, int floor) {
  while (from > floor && (is_ours(from) || !is_free(from))) {
    --from;
  }
  return std::max(from, floor);
}

// The program's limit of descriptors is for the program. What is opened above it stays
// open when it is back. With the lock of own descriptors held, so that there is one of
// these at a time.
class HigherLimit {
 public:
  HigherLimit() noexcept {
    // Some for each listener that there may be; to have more than the hard limit takes
    // CAP_SYS_RESOURCE.
    constexpr rlim_t more = rlim_t{4} * 65'536;
    constexpr rlim_t most_numbers = 1U << 24;
    changed_ = ::getrlimit(RLIMIT_NOFILE, &before_) == 0 && before_.rlim_cur < most_numbers &&
               (set(before_.rlim_cur + more, std::max(before_.rlim_max, before_.rlim_cur + more)) ||
                (before_.rlim_max > before_.rlim_cur && set(before_.rlim_max, before_.rlim_max)));
  }
  [[nodiscard]] bool is_higher() const { return changed_; }
  // The first number that the program may not have.
  [[nodiscard]] int before() const { return static_cast<int>(before_.rlim_cur); }
  ~HigherLimit() {
    if (changed_) {
      ::setrlimit(RLIMIT_NOFILE, &before_);
    }
  }
  HigherLimit(const HigherLimit&) = delete;
  HigherLimit& operator=(const HigherLimit&) = delete;

 private:
  static bool set(rlim_t soft, rlim_t hard) {
    const rlimit limit{.rlim_cur = soft, .rlim_max = hard};
    return ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
  }
  rlimit before_{};
  bool changed_ = false;
};

void note_own(int number) {
  if (!is_ours(number) && number <= highest_own) {
    g_low_count.fetch_add(1);
  }
  set_fd_flags(number, fd_flag::ours);
}

// Its number is free again, or will be.
void forget_own(int number) {
  if (is_ours(number) && number <= highest_own) {
    g_low_count.fetch_sub(1);
  }
  remove_fd_flags(number, fd_flag::ours);
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const int above = ranges.at(i) - number;
    int used = g_used.at(i).load();
    while (above >= 0 && above < used && !g_used.at(i).compare_exchange_weak(used, above)) {
    }
  }
}

// The highest free number in one of the ranges, or -1. A program may have been left so few
// that the last of them is not there: then among all of these.
int find_in_ranges(int highest) {
  constexpr int lowest = 2;
  if (g_low_count.load() >= range_size) {
    return -1;
  }
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const int top = ranges.at(i);
    int floor = top - range_size;
    if (highest <= floor) {
      if (i + 1 != ranges.size()) {
        continue;
      }
      floor = lowest;
    }
    const int found = find_free(std::min(highest, top - g_used.at(i).load()), floor);
    g_used.at(i).store(top - found);
    if (found > floor) {
      return found;
    }
  }
  return -1;
}

// A copy marked as ours, or -1: in the ranges that are kept for that; then, since there may
// be thousands, above all that the program may have; then wherever there is one.
int copy_high(int number) {
  constexpr int lowest = 2;
  const auto copy_at = [number](int least) { return real().fcntl(number, F_DUPFD_CLOEXEC, least); };
  const int highest = highest_allowed();
  const int wanted = find_in_ranges(highest);
  int copy = wanted >= 0 ? copy_at(wanted) : -1;
  if (copy < 0) {
    const HigherLimit limit;
    const int above = std::max(limit.before(), highest_own + 1);
    copy = limit.is_higher() ? copy_at(above <= long_table ? above : highest_own + 1) : -1;
  }
  if (copy < 0 && highest == highest_own) {
    copy = copy_at(highest_own + 1);
  }
  if (copy < 0) {
    copy = copy_at(find_free(highest, lowest));
  }
  if (copy >= 0) {
    note_own(copy);
    if (copy == wanted) {
      set_crowded_from(std::clamp(copy - near_ours, near_ours, crowded_from()));
    }
  }
  return copy;
}

// By number, as libc's close is where a thread of the program's may be cancelled: not in here.
int close_number(int number) noexcept {
  forget_own(number);
  return static_cast<int>(real().syscall(SYS_close, number));
}

// Numbers that ours have moved away from, still open. With the lock of own descriptors held.
CONTINUITY_LARGE_DATA constinit std::array<int, std::size_t{2} * range_size> g_left{};
constinit std::size_t g_left_count = 0;

// Not while a call is under way that may be on one of them.
void close_left() noexcept {
  if (g_calls.load() == 0) {
    std::for_each_n(g_left.begin(), g_left_count, close_number);
    g_left_count = 0;
  }
}

// Whether this is one. From now on it is the program's.
bool take_left(int number) noexcept {
  const std::span<int> left(g_left.data(), g_left_count);
  const auto found = std::find(left.begin(), left.end(), number);
  if (found == left.end()) {
    return false;
  }
  *found = left.back();
  --g_left_count;
  forget_own(number);
  return true;
}

// The lowest number that ours go to, so that they are not near to this one any more; -1: there
// is none. Below the program's limit no further than to four times what it has: the kernel's
// table is as long as its highest number.
int find_floor(int number, const HigherLimit& limit) {
  for (const int top : {255, highest_own, 4095, 16'383, long_table - 1}) {
    const int floor = top + 1 - range_size;
    if (top >= limit.before()) {
      break;
    }
    if (floor >= number) {
      return floor;
    }
  }
  return limit.is_higher() && limit.before() <= long_table ? limit.before() : -1;
}

// A handle for a number that is ours already.
int hand_out(int number) {
  const int handle = number < 0 ? -1 : handle_for(number);
  if (handle < 0 && number >= 0) {
    close_number(number);
    errno = EMFILE;
  }
  return handle;
}

// Takes a descriptor that has just been made for us.
int place(int number) {
  if (number < 0) {
    return number;
  }
  const int high = copy_high(number);
  if (high < 0) {
    note_own(number);  // no room above: it stays where it is
    return hand_out(number);
  }
  real().close(number);
  return hand_out(high);
}

class OwnHeld {
 public:
  OwnHeld() noexcept { lock_own_descriptors(); }
  ~OwnHeld() { unlock_own_descriptors(); }
  OwnHeld(const OwnHeld&) = delete;
  OwnHeld& operator=(const OwnHeld&) = delete;
};

template <typename Make>
int make(Make make_number) {
  const OwnHeld held;
  int number = make_number();
  if (number < 0 && errno == EMFILE) {
    const HigherLimit limit;
    number = make_number();
  }
  return place(number);
}

// Calls change(fd) for every descriptor that travels with a message.
template <typename Change>
void change_fds(msghdr& message, Change change) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      unsigned char* at = CMSG_DATA(header) + i * sizeof(int);
      int fd = no_number;
      std::memcpy(&fd, at, sizeof fd);
      fd = change(fd);
      std::memcpy(at, &fd, sizeof fd);
    }
  }
}

namespace placed {
int accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  return make([&] { return real().accept4(number_of(fd).get(), address, length, flags); });
}
int bind(int fd, const sockaddr* address, socklen_t length) {
  return real().bind(number_of(fd).get(), address, length);
}
int close(int fd) {
  if (!is_handle(fd)) {
    return real().close(fd);
  }
  const OwnHeld held;
  std::atomic<int>& slot = slot_of(fd);
  const int number = slot.exchange(0) - 1;
  const auto index = static_cast<std::size_t>(&slot - g_numbers.data());
  g_next_handle.store(std::min(g_next_handle.load(), index));
  return close_number(number);
}
int connect(int fd, const sockaddr* address, socklen_t length) {
  return real().connect(number_of(fd).get(), address, length);
}
int dup3(int from, int to, int flags) {
  return real().dup3(number_of(from).get(), number_of(to).get(), flags);
}
int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) {
  return real().epoll_ctl(number_of(epoll).get(), operation, number_of(fd).get(), event);
}
int epoll_create1(int flags) {
  return make([&] { return ::epoll_create1(flags); });
}
int epoll_wait(int epoll, epoll_event* events, int room, int timeout) {
  return real().epoll_wait(number_of(epoll).get(), events, room, timeout);
}
int eventfd(unsigned value, int flags) {
  return make([&] { return ::eventfd(value, flags); });
}
int fchmodat(int directory, const char* path, mode_t mode) {
  return real().fchmodat(number_of(directory).get(), path, mode, 0);
}
int fchown(int fd, uid_t user, gid_t group) {
  return ::fchown(number_of(fd).get(), user, group);
}
int fcntl(int fd, int command, long argument) {
  if (command == F_DUPFD_CLOEXEC) {
    const OwnHeld held;
    return hand_out(copy_high(number_of(fd).get()));
  }
  return real().fcntl(number_of(fd).get(), command, argument);
}
int flock(int fd, int operation) {
  return ::flock(number_of(fd).get(), operation);
}
int fstat(int fd, struct stat* status) {
  return ::fstat(number_of(fd).get(), status);
}
int fstatat(int directory, const char* path, struct stat* status, int flags) {
  return real().fstatat(number_of(directory).get(), path, status, flags);
}
ssize_t getdents(int fd, void* buffer, std::size_t size) {
  return real().syscall(SYS_getdents64, number_of(fd).get(), buffer, size);
}
int getsockname(int fd, sockaddr* address, socklen_t* length) {
  return real().getsockname(number_of(fd).get(), address, length);
}
int getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  return real().getsockopt(number_of(fd).get(), level, name, value, length);
}
int getpeername(int fd, sockaddr* address, socklen_t* length) {
  return ::getpeername(number_of(fd).get(), address, length);
}
int ioctl(int fd, unsigned long request, int* value) {
  return real().ioctl(number_of(fd).get(), request, value);
}
// The first process of a namespace of pids (a container) hears nothing that its own
// namespace sends it, unless it has a handler; not even SIGKILL.
bool is_deaf_to(int signal) {
  constexpr std::array ending{SIGTERM, SIGKILL, SIGQUIT, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM};
  struct sigaction action {};
  return std::find(ending.begin(), ending.end(), signal) != ending.end() &&
         ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_DFL;
}
int kill(pid_t process, int signal) {
  constexpr pid_t first = 1;
  if (process == first && ::getpid() == first && is_deaf_to(signal)) {
    ::_exit(128 + signal);  // as a shell has it
  }
  return real().kill(process, signal);
}
int listen(int fd, int backlog) {
  return real().listen(number_of(fd).get(), backlog);
}
int memfd_create(const char* name, unsigned flags) {
  return make([&] { return ::memfd_create(name, flags); });
}
int mkdirat(int directory, const char* path, mode_t mode) {
  return ::mkdirat(number_of(directory).get(), path, mode);
}
int number(int fd) {
  return plain_number_of(fd);
}
int openat(int directory, const char* path, int flags, mode_t mode) {
  return make([&] { return real().openat(number_of(directory).get(), path, flags, mode); });
}
int pidfd_open(pid_t pid, unsigned flags) {
  return make([&] { return static_cast<int>(real().syscall(SYS_pidfd_open, pid, flags)); });
}
int pidfd_send_signal(int pidfd, int signal) {
  return libc_sys().pidfd_send_signal(number_of(pidfd).get(), signal);
}
int ppoll(pollfd* fds, nfds_t count, const timespec* timeout) {
  constexpr nfds_t most = 256;
  std::array<pollfd, most> numbered;  // NOLINT: as much of it as is used is filled
  count = std::min(count, most);
  // Not told as a call: it may last for ever, and only looks. From the wrong one comes nothing
  // worse than a moment too early.
  for (nfds_t i = 0; i < count; ++i) {
    numbered[i] = {.fd = plain_number_of(fds[i].fd), .events = fds[i].events, .revents = 0};
  }
  const int result = real().ppoll(numbered.data(), count, timeout, nullptr);
  for (nfds_t i = 0; i < count; ++i) {
    fds[i].revents = numbered[i].revents;
  }
  return result;
}
ssize_t read(int fd, void* buffer, std::size_t size) {
  return real().read(number_of(fd).get(), buffer, size);
}
ssize_t readlinkat(int directory, const char* path, char* buffer, std::size_t size) {
  return real().readlinkat(number_of(directory).get(), path, buffer, size);
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const OwnHeld held;
  const ssize_t size = [&] {
    // What has no room is lost, and that it was so is not told beforehand.
    const HigherLimit limit;
    return real().recvmsg(number_of(fd).get(), message, flags);
  }();
  if (size >= 0 && message->msg_controllen > 0) {
    change_fds(*message, place);
  }
  return size;
}
int renameat(int from_directory, const char* from, int to_directory, const char* to) {
  return real().renameat(number_of(from_directory).get(), from, number_of(to_directory).get(), to);
}
int renameat2(int from_directory, const char* from, int to_directory, const char* to,
              unsigned flags) {
  return real().renameat2(number_of(from_directory).get(), from, number_of(to_directory).get(), to,
                          flags);
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const InCall in_call;
  msghdr numbered = *message;
  alignas(cmsghdr) std::array<std::byte, 4096> control;  // NOLINT: filled as far as it is used
  if (message->msg_controllen > control.size()) {
    errno = EINVAL;
    return -1;
  }
  if (message->msg_controllen > 0) {
    std::memcpy(control.data(), message->msg_control, message->msg_controllen);
    numbered.msg_control = control.data();
    change_fds(numbered, plain_number_of);
  }
  return real().sendmsg(number_of(fd).get(), &numbered, flags);
}
int setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  return real().setsockopt(number_of(fd).get(), level, name, value, length);
}
int shutdown(int fd, int how) {
  return real().shutdown(number_of(fd).get(), how);
}
int socket(int family, int type, int protocol) {
  return make([&] { return ::socket(family, type, protocol); });
}
int socketpair(int family, int type, int protocol, int* pair) {
  const OwnHeld held;
  const int result = ::socketpair(family, type, protocol, pair);
  if (result == 0) {
    pair[0] = place(pair[0]);
    pair[1] = place(pair[1]);
  }
  return result;
}
int unlinkat(int directory, const char* path, int flags) {
  return real().unlinkat(number_of(directory).get(), path, flags);
}
ssize_t write(int fd, const void* buffer, std::size_t size) {
  return real().write(number_of(fd).get(), buffer, size);
}
}  // namespace placed

Sys make_real_sys() {
  Sys sys = libc_sys();
  sys.accept4 = placed::accept4;
  sys.bind = placed::bind;
  sys.close = placed::close;
  sys.connect = placed::connect;
  sys.dup3 = placed::dup3;
  sys.epoll_ctl = placed::epoll_ctl;
  sys.epoll_create1 = placed::epoll_create1;
  sys.epoll_wait = placed::epoll_wait;
  sys.eventfd = placed::eventfd;
  sys.fchmodat = placed::fchmodat;
  sys.fchown = placed::fchown;
  sys.fcntl = placed::fcntl;
  sys.flock = placed::flock;
  sys.fstat = placed::fstat;
  sys.fstatat = placed::fstatat;
  sys.getdents = placed::getdents;
  sys.getsockname = placed::getsockname;
  sys.getsockopt = placed::getsockopt;
  sys.getpeername = placed::getpeername;
  sys.ioctl = placed::ioctl;
  sys.kill = placed::kill;
  sys.listen = placed::listen;
  sys.memfd_create = placed::memfd_create;
  sys.mkdirat = placed::mkdirat;
  sys.number = placed::number;
  sys.openat = placed::openat;
  sys.pidfd_open = placed::pidfd_open;
  sys.pidfd_send_signal = placed::pidfd_send_signal;
  sys.ppoll = placed::ppoll;
  sys.read = placed::read;
  sys.readlinkat = placed::readlinkat;
  sys.recvmsg = placed::recvmsg;
  sys.renameat = placed::renameat;
  sys.renameat2 = placed::renameat2;
  sys.sendmsg = placed::sendmsg;
  sys.setsockopt = placed::setsockopt;
  sys.shutdown = placed::shutdown;
  sys.socket = placed::socket;
  sys.socketpair = placed::socketpair;
  sys.unlinkat = placed::unlinkat;
  sys.write = placed::write;
  return sys;
}

}  // namespace

const Sys& real_sys() {
#ifdef CONTINUITY_TEST_HOOKS
  static const Sys sys = with_faults(make_real_sys());
#else
  static const Sys sys = make_real_sys();
#endif
  return sys;
}

void close_own_descriptors(std::span<const int> kept) noexcept {
  const auto limit = static_cast<std::size_t>(g_handle_limit.load());
  g_calls.store(0);  // other threads' of the parent
  close_left();
  for (std::size_t i = 0; i < limit; ++i) {
    const int handle = first_handle + static_cast<int>(i);
    if (std::find(kept.begin(), kept.end(), handle) != kept.end()) {
      continue;
    }
    if (const int number = g_numbers[i].exchange(0) - 1; number >= 0) {
      close_number(number);
    }
  }
}

bool move_own_descriptor(int number) noexcept {
  const OwnHeld held;
  if (take_left(number)) {
    return true;
  }
  const int moved = copy_high(number);
  if (moved < 0) {
    return false;
  }
  const auto limit = static_cast<std::size_t>(g_handle_limit.load());
  for (std::size_t i = 0; i < limit; ++i) {
    int expected = number + 1;
    if (g_numbers[i].compare_exchange_strong(expected, moved + 1)) {
      forget_own(number);
      return true;
    }
  }
  return false;
}

bool make_way(int number) noexcept {
  const OwnHeld held;
  close_left();
  const HigherLimit limit;
  const int floor = find_floor(number + near_ours, limit);
  const auto handles_used = static_cast<std::size_t>(g_handle_limit.load());
  bool has_moved = false;
  for (std::size_t i = 0; floor >= 0 && i < handles_used && g_left_count < g_left.size(); ++i) {
    const int old = g_numbers[i].load() - 1;
    if (old < 0 || old >= floor) {
      continue;
    }
    const int copy = real().fcntl(old, F_DUPFD_CLOEXEC, floor);
    if (copy < 0) {
      break;
    }
    note_own(copy);
    g_numbers[i].store(copy + 1);
    g_left.at(g_left_count++) = old;
    has_moved = true;
  }
  close_left();
  if (g_left_count > 0) {
    set_crowded_from(number + 1);
  } else {
    set_crowded_from(floor < 0 || floor >= limit.before() ? INT_MAX : floor - near_ours);
  }
  return has_moved;
}

}  // namespace continuity::shim
