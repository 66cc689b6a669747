// The wrapped calls, all but those that send and receive (datagram_wrappers.cpp).
//
// Rules: in the steady state a wrapper is a test of one word or one byte and a
// tail call; the caller sees the result and the errno of the real call.
// Everything else is behind hooks.hpp. noexcept exactly where libc says so:
// accept, close, poll and the like are cancellation points, which unwind
// through us. Compiled without exceptions and without fortification.
#include "shim/hooks.hpp"
#include "shim/real_calls.hpp"
#include "shim/watch.hpp"
#include "shim/wrapped.hpp"

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstring>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

namespace continuity::shim {
namespace {

enum class AcceptCall { accept, accept4 };

inline int real_accept(AcceptCall call, int fd, sockaddr* address, socklen_t* length, int flags) {
  return call == AcceptCall::accept ? real().accept(fd, address, length)
                                    : real().accept4(fd, address, length, flags);
}

// A number that the program has got. Those of clients, and of what is connected to for them,
// become more until there are as many as it may have.
inline int make_way_if_near(int fd) {
  if (fd >= crowded_from()) [[unlikely]] {
    make_way_for(fd);
  }
  return fd;
}

// The thread says where it is before it looks whether the listener has been
// retired, and whoever retires it does so the other way round: one of the two
// sees the other.
[[gnu::noinline]] int accept_the_long_way(AcceptCall call, int fd, sockaddr* address,
                                          socklen_t* length, int flags) {
  for (;;) {
    if (gate() == Gate::unsettled) [[unlikely]] {
      before_accept(fd);
      if (waits_early() && !await_readiness(fd, true)) {
        return -1;
      }
    }
    AcceptSlot* slot = own_accept_slot();
    if (slot != nullptr) [[likely]] {
      take_short_way(*slot);
      slot->called.store(AcceptSlot::inside(fd), std::memory_order_relaxed);
      slot->where.exchange(AcceptSlot::inside(fd));
    }
    int result = -1;
    if ((fd_flags(fd) & fd_flag::retired) != 0) [[unlikely]] {
      if (slot != nullptr) {
        slot->where.store(AcceptSlot::outside, std::memory_order_release);
      }
      result = accept_retired(fd, address, length, flags);
      if (result == listener_is_back) {
        continue;
      }
      return result;
    }
    result = real_accept(call, fd, address, length, flags);
    if (slot != nullptr) [[likely]] {
      slot->where.store(AcceptSlot::outside, std::memory_order_release);
    }
    if (result < 0 && has_gone(fd) && must_look_again(slot)) [[unlikely]] {
      continue;
    }
    return make_way_if_near(result);
  }
}

[[gnu::noinline]] [[gnu::cold]] int accept_failed(AcceptCall call, int fd, sockaddr* address,
                                                  socklen_t* length, int flags) {
  return must_look_again(t_accept_slot) ? accept_the_long_way(call, fd, address, length, flags)
                                        : -1;
}

// The same without a barrier between saying and looking: who retires has one
// executed in every thread (membarrier), between its own marking and looking.
[[gnu::noinline]] CONTINUITY_BUSY_CODE int accept_on_listener(AcceptCall call, int fd,
                                                              sockaddr* address, socklen_t* length,
                                                              int flags) {
  AcceptSlot* slot = t_accept_slot;
  if (slot == nullptr || !slot->short_way.load(std::memory_order_relaxed)) [[unlikely]] {
    return accept_the_long_way(call, fd, address, length, flags);
  }
  slot->where.store(AcceptSlot::inside(fd), std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if ((fd_flags(fd) & fd_flag::retired) != 0) [[unlikely]] {
    return accept_the_long_way(call, fd, address, length, flags);
  }
  const int result = real_accept(call, fd, address, length, flags);
  slot->where.store(AcceptSlot::outside, std::memory_order_release);
  if (result < 0 && has_gone(fd)) [[unlikely]] {
    return accept_failed(call, fd, address, length, flags);
  }
  return make_way_if_near(result);
}

inline int accept_wrapper(AcceptCall call, int fd, sockaddr* address, socklen_t* length,
                          int flags) {
  if (!is_listener(fd) && !is_unknown_listener(fd)) [[unlikely]] {
    return real_accept(call, fd, address, length, flags);
  }
  return accept_on_listener(call, fd, address, length, flags);
}

}  // namespace
}  // namespace continuity::shim

using namespace continuity::shim;  // NOLINT(google-build-using-namespace): as if written inside

// ---- Accepting --------------------------------------------------------------------

CONTINUITY_BUSY int WRAPPED(accept)(int fd, sockaddr* address, socklen_t* length) {
  return accept_wrapper(AcceptCall::accept, fd, address, length, 0);
}

CONTINUITY_BUSY int WRAPPED(accept4)(int fd, sockaddr* address, socklen_t* length, int flags) {
  return accept_wrapper(AcceptCall::accept4, fd, address, length, flags);
}

CONTINUITY_EXPORT int WRAPPED(bind)(int fd, const sockaddr* address, socklen_t length) noexcept {
  return bind_socket(fd, address, length);
}

CONTINUITY_EXPORT int WRAPPED(listen)(int fd, int backlog) noexcept {
  return listen_on(fd, backlog);
}

// ---- Waiting ----------------------------------------------------------------------

static bool has_bell_among(const epoll_event* events, int count) {
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == bell_data) {
      return true;
    }
  }
  return false;
}

NOT_INLINED CONTINUITY_BUSY_CODE static int look_and_epoll_wait(int epoll, epoll_event* events,
                                                                int room, int timeout) {
  if (hears_bell(epoll)) [[likely]] {
    timespec began{};
    if (timeout > 0) {
      ::clock_gettime(CLOCK_MONOTONIC_COARSE, &began);
    }
    const int count = real().epoll_wait(epoll, events, room, timeout);
    // Whoever has asked for help meanwhile has rung the bell, or is seen by the next wait.
    if (count > 0 && !has_bell_among(events, count)) [[likely]] {
      return count;
    }
    return end_epoll_wait_with_bell(epoll, events, room, timeout, count, began);
  }
  before_epoll_wait(epoll);
  return has_bell() ? epoll_wait_with_bell(epoll, events, room, timeout)
                    : real().epoll_wait(epoll, events, room, timeout);
}

CONTINUITY_BUSY int WRAPPED(epoll_wait)(int epoll, epoll_event* events, int room, int timeout) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_epoll_wait(epoll, events, room, timeout);
  }
  return real().epoll_wait(epoll, events, room, timeout);
}

NOT_INLINED CONTINUITY_BUSY_CODE static int look_and_epoll_pwait(int epoll, epoll_event* events,
                                                                 int room, int timeout,
                                                                 const sigset_t* mask) {
  before_epoll_wait(epoll);
  return has_bell() ? epoll_pwait_with_bell(epoll, events, room, timeout, mask)
                    : real().epoll_pwait(epoll, events, room, timeout, mask);
}

CONTINUITY_BUSY int WRAPPED(epoll_pwait)(int epoll, epoll_event* events, int room, int timeout,
                                         const sigset_t* mask) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_epoll_pwait(epoll, events, room, timeout, mask);
  }
  return real().epoll_pwait(epoll, events, room, timeout, mask);
}

NOT_INLINED static int look_and_epoll_pwait2(int epoll, epoll_event* events, int room,
                                             const timespec* timeout, const sigset_t* mask) {
  before_epoll_wait(epoll);
  return has_bell() ? epoll_pwait2_with_bell(epoll, events, room, timeout, mask)
                    : real().epoll_pwait2(epoll, events, room, timeout, mask);
}

CONTINUITY_EXPORT int WRAPPED(epoll_pwait2)(int epoll, epoll_event* events, int room,
                                            const timespec* timeout, const sigset_t* mask) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_epoll_pwait2(epoll, events, room, timeout, mask);
  }
  return real().epoll_pwait2(epoll, events, room, timeout, mask);
}

template <typename Timeout>
static void before_deaf_wait_of(const Timeout* timeout) {
  const Timeout at_once{};
  if (has_bell() && (timeout == nullptr || std::memcmp(timeout, &at_once, sizeof at_once) != 0)) {
    before_deaf_wait();
  }
}

NOT_INLINED static int look_and_poll(pollfd* fds, nfds_t count, int timeout) {
  before_deaf_wait_of(timeout == 0 ? &timeout : nullptr);
  before_poll(fds, count);
  return polls_otherwise() ? poll_deaf(fds, count, timeout) : real().poll(fds, count, timeout);
}

CONTINUITY_BUSY int WRAPPED(poll)(pollfd* fds, nfds_t count, int timeout) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_poll(fds, count, timeout);
  }
  return real().poll(fds, count, timeout);
}

NOT_INLINED static int look_and_ppoll(pollfd* fds, nfds_t count, const timespec* timeout,
                                      const sigset_t* mask) {
  before_deaf_wait_of(timeout);
  before_poll(fds, count);
  return polls_otherwise() ? ppoll_deaf(fds, count, timeout, mask)
                           : real().ppoll(fds, count, timeout, mask);
}

CONTINUITY_EXPORT int WRAPPED(ppoll)(pollfd* fds, nfds_t count, const timespec* timeout,
                                     const sigset_t* mask) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_ppoll(fds, count, timeout, mask);
  }
  return real().ppoll(fds, count, timeout, mask);
}

NOT_INLINED static int look_and_poll_chk(pollfd* fds, nfds_t count, int timeout, std::size_t room) {
  before_deaf_wait_of(timeout == 0 ? &timeout : nullptr);
  before_poll(fds, count);
  return polls_otherwise() ? poll_deaf(fds, count, timeout)
                           : real().__poll_chk(fds, count, timeout, room);
}

CONTINUITY_EXPORT int WRAPPED(__poll_chk)(pollfd* fds, nfds_t count, int timeout,
                                          std::size_t room) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_poll_chk(fds, count, timeout, room);
  }
  return real().__poll_chk(fds, count, timeout, room);
}

NOT_INLINED static int look_and_ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout,
                                          const sigset_t* mask, std::size_t room) {
  before_deaf_wait_of(timeout);
  before_poll(fds, count);
  return polls_otherwise() ? ppoll_deaf(fds, count, timeout, mask)
                           : real().__ppoll_chk(fds, count, timeout, mask, room);
}

CONTINUITY_EXPORT int WRAPPED(__ppoll_chk)(pollfd* fds, nfds_t count, const timespec* timeout,
                                           const sigset_t* mask, std::size_t room) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_ppoll_chk(fds, count, timeout, mask, room);
  }
  return real().__ppoll_chk(fds, count, timeout, mask, room);
}

NOT_INLINED static int look_and_select(int count, fd_set* readable, fd_set* writable,
                                       fd_set* special, timeval* timeout) {
  before_deaf_wait_of(timeout);
  before_select(count, readable);
  return polls_otherwise() ? select_deaf(count, readable, writable, special, timeout)
                           : real().select(count, readable, writable, special, timeout);
}

CONTINUITY_EXPORT int WRAPPED(select)(int count, fd_set* readable, fd_set* writable,
                                      fd_set* special, timeval* timeout) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_select(count, readable, writable, special, timeout);
  }
  return real().select(count, readable, writable, special, timeout);
}

NOT_INLINED static int look_and_pselect(int count, fd_set* readable, fd_set* writable,
                                        fd_set* special, const timespec* timeout,
                                        const sigset_t* mask) {
  before_deaf_wait_of(timeout);
  before_select(count, readable);
  return polls_otherwise() ? pselect_deaf(count, readable, writable, special, timeout, mask)
                           : real().pselect(count, readable, writable, special, timeout, mask);
}

CONTINUITY_EXPORT int WRAPPED(pselect)(int count, fd_set* readable, fd_set* writable,
                                       fd_set* special, const timespec* timeout,
                                       const sigset_t* mask) {
  if (!gate_is_open()) [[unlikely]] {
    return look_and_pselect(count, readable, writable, special, timeout, mask);
  }
  return real().pselect(count, readable, writable, special, timeout, mask);
}

CONTINUITY_BUSY int WRAPPED(epoll_ctl)(int epoll, int operation, int fd,
                                       epoll_event* event) noexcept {
  if (is_plain(fd)) [[likely]] {
    return real().epoll_ctl(epoll, operation, fd, event);
  }
  return control_epoll(epoll, operation, fd, event);
}

// ---- Descriptors --------------------------------------------------------------------

CONTINUITY_BUSY int WRAPPED(close)(int fd) {
  if (is_plain(fd)) [[likely]] {
    return real().close(fd);
  }
  return close_flagged(fd);
}

CONTINUITY_EXPORT int WRAPPED(close_range)(unsigned first, unsigned last, int flags) noexcept {
  return close_descriptors(first, last, flags);
}

CONTINUITY_EXPORT void WRAPPED(closefrom)(int first) noexcept {
  close_descriptors(first < 0 ? 0 : static_cast<unsigned>(first), ~0U, 0);
}

CONTINUITY_EXPORT int WRAPPED(dup)(int fd) noexcept {
  if (is_plain(fd)) [[likely]] {
    return real().dup(fd);
  }
  return duplicate(fd);
}

CONTINUITY_EXPORT int WRAPPED(dup2)(int from, int to) noexcept {
  if (is_plain(from) && is_plain(to)) [[likely]] {
    return real().dup2(from, to);
  }
  return duplicate_onto(from, to, 0, true);
}

CONTINUITY_EXPORT int WRAPPED(dup3)(int from, int to, int flags) noexcept {
  if (is_plain(from) && is_plain(to)) [[likely]] {
    return real().dup3(from, to, flags);
  }
  return duplicate_onto(from, to, flags, false);
}

// The argument is an int or a pointer, or there is none: a register is passed
// on in any case.
CONTINUITY_BUSY int WRAPPED(fcntl)(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  const long argument = va_arg(arguments, long);
  va_end(arguments);
  if (is_plain(fd)) [[likely]] {
    return real().fcntl(fd, command, argument);
  }
  return control_file(fd, command, argument);
}

CONTINUITY_BUSY int WRAPPED(fcntl64)(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  const long argument = va_arg(arguments, long);
  va_end(arguments);
  if (is_plain(fd)) [[likely]] {
    return real().fcntl64(fd, command, argument);
  }
  return control_file(fd, command, argument);
}

CONTINUITY_BUSY int WRAPPED(ioctl)(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (is_plain(fd)) [[likely]] {
    return real().ioctl(fd, request, argument);
  }
  return control_device(fd, request, argument);
}

CONTINUITY_BUSY int WRAPPED(setsockopt)(int fd, int level, int name, const void* value,
                                        socklen_t length) noexcept {
  if (is_plain(fd)) [[likely]] {
    return real().setsockopt(fd, level, name, value, length);
  }
  return set_option(fd, level, name, value, length);
}

CONTINUITY_EXPORT int WRAPPED(getsockopt)(int fd, int level, int name, void* value,
                                          socklen_t* length) noexcept {
  if (is_plain(fd)) [[likely]] {
    return real().getsockopt(fd, level, name, value, length);
  }
  return get_option(fd, level, name, value, length);
}

CONTINUITY_EXPORT int WRAPPED(getsockname)(int fd, sockaddr* address, socklen_t* length) noexcept {
  if (is_plain(fd)) [[likely]] {
    return real().getsockname(fd, address, length);
  }
  return get_name(fd, address, length);
}

CONTINUITY_BUSY int WRAPPED(shutdown)(int fd, int how) noexcept {
  if (is_plain(fd)) [[likely]] {
    return real().shutdown(fd, how);
  }
  return shut_down(fd, how);
}

// ---- Users ----------------------------------------------------------------------------

CONTINUITY_EXPORT pid_t WRAPPED(fork)() noexcept {
  const pid_t child = real().fork();
  if (child == 0) {
    begin_in_child();
  }
  return child;
}

CONTINUITY_EXPORT int WRAPPED(daemon)(int stays, int keeps_open) noexcept {
  const int result = real().daemon(stays, keeps_open);
  if (result == 0) {  // its parent has ended
    begin_in_child();
  }
  return result;
}

// The child returns through this frame, and so the parent must not: nothing may
// come after the call. At -O2 this is a jump.
CONTINUITY_EXPORT pid_t WRAPPED(vfork)() noexcept {
  before_spawn();
  auto* function = real().vfork.address();
#ifdef __clang__
  [[clang::musttail]]
#endif
  return function();
}

CONTINUITY_EXPORT int WRAPPED(posix_spawn)(pid_t* pid, const char* path,
                                           const posix_spawn_file_actions_t* actions,
                                           const posix_spawnattr_t* attributes,
                                           char* const arguments[], char* const environment[]) {
  before_spawn();
  return real().posix_spawn(pid, path, actions, attributes, arguments, environment);
}

CONTINUITY_EXPORT int WRAPPED(posix_spawnp)(pid_t* pid, const char* file,
                                            const posix_spawn_file_actions_t* actions,
                                            const posix_spawnattr_t* attributes,
                                            char* const arguments[], char* const environment[]) {
  before_spawn();
  return real().posix_spawnp(pid, file, actions, attributes, arguments, environment);
}

CONTINUITY_EXPORT int WRAPPED(capset)(void* header, const void* data) noexcept {
  before_capability_change();
  return real().capset(header, data);
}

static int user_changed(int result) {
  if (result == 0) {
    after_user_change();
  }
  return result;
}

CONTINUITY_EXPORT int WRAPPED(setuid)(uid_t user) noexcept {
  before_user_change(user);
  return user_changed(real().setuid(user));
}

CONTINUITY_EXPORT int WRAPPED(seteuid)(uid_t user) noexcept {
  before_user_change(user);
  return user_changed(real().seteuid(user));
}

CONTINUITY_EXPORT int WRAPPED(setreuid)(uid_t user, uid_t effective) noexcept {
  before_user_change(effective);
  return user_changed(real().setreuid(user, effective));
}

CONTINUITY_EXPORT int WRAPPED(setresuid)(uid_t user, uid_t effective, uid_t saved) noexcept {
  before_user_change(effective);
  return user_changed(real().setresuid(user, effective, saved));
}

// ---- Paths ----------------------------------------------------------------------------

// What the program is shown instead of the path, if anything is hidden from it.
static inline const char* shown(int directory, const char* path) {
  return hides() ? shown_path(directory, path) : path;
}

// A mode is passed on whether there is one or not: it is a register.

CONTINUITY_BUSY int WRAPPED(open)(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const auto mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return real().open(shown(AT_FDCWD, path), flags, mode);
}

CONTINUITY_BUSY int WRAPPED(open64)(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const auto mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return real().open64(shown(AT_FDCWD, path), flags, mode);
}

CONTINUITY_EXPORT int WRAPPED(openat)(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const auto mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return real().openat(directory, shown(directory, path), flags, mode);
}

CONTINUITY_EXPORT int WRAPPED(openat64)(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const auto mode = va_arg(arguments, mode_t);
  va_end(arguments);
  return real().openat64(directory, shown(directory, path), flags, mode);
}

CONTINUITY_EXPORT int WRAPPED(__open_2)(const char* path, int flags) {
  return real().__open_2(shown(AT_FDCWD, path), flags);
}

CONTINUITY_EXPORT int WRAPPED(__open64_2)(const char* path, int flags) {
  return real().__open64_2(shown(AT_FDCWD, path), flags);
}

CONTINUITY_EXPORT int WRAPPED(__openat_2)(int directory, const char* path, int flags) {
  return real().__openat_2(directory, shown(directory, path), flags);
}

CONTINUITY_EXPORT int WRAPPED(__openat64_2)(int directory, const char* path, int flags) {
  return real().__openat64_2(directory, shown(directory, path), flags);
}

CONTINUITY_EXPORT int WRAPPED(creat)(const char* path, mode_t mode) {
  return real().creat(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT int WRAPPED(creat64)(const char* path, mode_t mode) {
  return real().creat64(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT FILE* WRAPPED(fopen)(const char* path, const char* mode) {
  return real().fopen(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT FILE* WRAPPED(fopen64)(const char* path, const char* mode) {
  return real().fopen64(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT FILE* WRAPPED(freopen)(const char* path, const char* mode, FILE* file) {
  return real().freopen(shown(AT_FDCWD, path), mode, file);
}

CONTINUITY_EXPORT FILE* WRAPPED(freopen64)(const char* path, const char* mode, FILE* file) {
  return real().freopen64(shown(AT_FDCWD, path), mode, file);
}

CONTINUITY_BUSY int WRAPPED(stat)(const char* path, struct stat* status) noexcept {
  return real().stat(shown(AT_FDCWD, path), status);
}

CONTINUITY_BUSY int WRAPPED(stat64)(const char* path, struct stat64* status) noexcept {
  return real().stat64(shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(lstat)(const char* path, struct stat* status) noexcept {
  return real().lstat(shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(lstat64)(const char* path, struct stat64* status) noexcept {
  return real().lstat64(shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(__xstat)(int version, const char* path,
                                       struct stat* status) noexcept {
  return real().__xstat(version, shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(__xstat64)(int version, const char* path,
                                         struct stat64* status) noexcept {
  return real().__xstat64(version, shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(__lxstat)(int version, const char* path,
                                        struct stat* status) noexcept {
  return real().__lxstat(version, shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(__lxstat64)(int version, const char* path,
                                          struct stat64* status) noexcept {
  return real().__lxstat64(version, shown(AT_FDCWD, path), status);
}

CONTINUITY_EXPORT int WRAPPED(fstatat)(int directory, const char* path, struct stat* status,
                                       int flags) noexcept {
  return real().fstatat(directory, shown(directory, path), status, flags);
}

CONTINUITY_EXPORT int WRAPPED(fstatat64)(int directory, const char* path, struct stat64* status,
                                         int flags) noexcept {
  return real().fstatat64(directory, shown(directory, path), status, flags);
}

CONTINUITY_EXPORT int WRAPPED(__fxstatat)(int version, int directory, const char* path,
                                          struct stat* status, int flags) noexcept {
  return real().__fxstatat(version, directory, shown(directory, path), status, flags);
}

CONTINUITY_EXPORT int WRAPPED(__fxstatat64)(int version, int directory, const char* path,
                                            struct stat64* status, int flags) noexcept {
  return real().__fxstatat64(version, directory, shown(directory, path), status, flags);
}

CONTINUITY_EXPORT int WRAPPED(statx)(int directory, const char* path, int flags, unsigned mask,
                                     struct statx* status) noexcept {
  return real().statx(directory, shown(directory, path), flags, mask, status);
}

CONTINUITY_EXPORT int WRAPPED(access)(const char* path, int mode) noexcept {
  return real().access(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT int WRAPPED(eaccess)(const char* path, int mode) noexcept {
  return real().eaccess(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT int WRAPPED(euidaccess)(const char* path, int mode) noexcept {
  return real().euidaccess(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT int WRAPPED(faccessat)(int directory, const char* path, int mode,
                                         int flags) noexcept {
  return real().faccessat(directory, shown(directory, path), mode, flags);
}

CONTINUITY_EXPORT int WRAPPED(chmod)(const char* path, mode_t mode) noexcept {
  return real().chmod(shown(AT_FDCWD, path), mode);
}

CONTINUITY_EXPORT int WRAPPED(fchmodat)(int directory, const char* path, mode_t mode,
                                        int flags) noexcept {
  return real().fchmodat(directory, shown(directory, path), mode, flags);
}

CONTINUITY_EXPORT int WRAPPED(chown)(const char* path, uid_t user, gid_t group) noexcept {
  return real().chown(shown(AT_FDCWD, path), user, group);
}

CONTINUITY_EXPORT int WRAPPED(lchown)(const char* path, uid_t user, gid_t group) noexcept {
  return real().lchown(shown(AT_FDCWD, path), user, group);
}

CONTINUITY_EXPORT int WRAPPED(fchownat)(int directory, const char* path, uid_t user, gid_t group,
                                        int flags) noexcept {
  return real().fchownat(directory, shown(directory, path), user, group, flags);
}

CONTINUITY_EXPORT int WRAPPED(truncate)(const char* path, off_t length) noexcept {
  path = shown(AT_FDCWD, path);
  return length == 0 && keeps_path(AT_FDCWD, path) ? 0 : real().truncate(path, length);
}

CONTINUITY_EXPORT int WRAPPED(truncate64)(const char* path, off64_t length) noexcept {
  path = shown(AT_FDCWD, path);
  return length == 0 && keeps_path(AT_FDCWD, path) ? 0 : real().truncate64(path, length);
}

CONTINUITY_EXPORT ssize_t WRAPPED(readlink)(const char* path, char* target,
                                            std::size_t room) noexcept {
  return real().readlink(shown(AT_FDCWD, path), target, room);
}

CONTINUITY_EXPORT ssize_t WRAPPED(readlinkat)(int directory, const char* path, char* target,
                                              std::size_t room) noexcept {
  return real().readlinkat(directory, shown(directory, path), target, room);
}

CONTINUITY_EXPORT int WRAPPED(symlink)(const char* target, const char* path) noexcept {
  return real().symlink(target, shown(AT_FDCWD, path));
}

CONTINUITY_EXPORT int WRAPPED(symlinkat)(const char* target, int directory,
                                         const char* path) noexcept {
  return real().symlinkat(target, directory, shown(directory, path));
}

CONTINUITY_EXPORT int WRAPPED(link)(const char* from, const char* to) noexcept {
  return real().link(shown(AT_FDCWD, from), shown(AT_FDCWD, to));
}

CONTINUITY_EXPORT int WRAPPED(linkat)(int from_directory, const char* from, int to_directory,
                                      const char* to, int flags) noexcept {
  return real().linkat(from_directory, shown(from_directory, from), to_directory,
                       shown(to_directory, to), flags);
}

CONTINUITY_EXPORT int WRAPPED(unlink)(const char* path) noexcept {
  path = shown(AT_FDCWD, path);
  return keeps_path(AT_FDCWD, path) ? 0 : real().unlink(path);
}

CONTINUITY_EXPORT int WRAPPED(unlinkat)(int directory, const char* path, int flags) noexcept {
  path = shown(directory, path);
  const bool file = (flags & AT_REMOVEDIR) == 0;
  return file && keeps_path(directory, path) ? 0 : real().unlinkat(directory, path, flags);
}

CONTINUITY_EXPORT int WRAPPED(remove)(const char* path) noexcept {
  path = shown(AT_FDCWD, path);
  return keeps_path(AT_FDCWD, path) ? 0 : real().remove(path);
}

CONTINUITY_EXPORT int WRAPPED(renameat)(int from_directory, const char* from, int to_directory,
                                        const char* to) noexcept {
  from = shown(from_directory, from);
  return keeps_rename(from_directory, from)
             ? 0
             : real().renameat(from_directory, from, to_directory, shown(to_directory, to));
}

CONTINUITY_EXPORT int WRAPPED(renameat2)(int from_directory, const char* from, int to_directory,
                                         const char* to, unsigned flags) noexcept {
  from = shown(from_directory, from);
  return keeps_rename(from_directory, from)
             ? 0
             : real().renameat2(from_directory, from, to_directory, shown(to_directory, to), flags);
}

CONTINUITY_EXPORT int WRAPPED(rename)(const char* from, const char* to) noexcept {
  from = shown(AT_FDCWD, from);
  return keeps_rename(AT_FDCWD, from) ? 0 : real().rename(from, shown(AT_FDCWD, to));
}

CONTINUITY_EXPORT int WRAPPED(ftruncate)(int fd, off_t length) noexcept {
  return keeps_content(fd, length) ? 0 : real().ftruncate(fd, length);
}

CONTINUITY_EXPORT int WRAPPED(ftruncate64)(int fd, off64_t length) noexcept {
  return keeps_content(fd, length) ? 0 : real().ftruncate64(fd, length);
}

CONTINUITY_EXPORT int WRAPPED(connect)(int fd, const sockaddr* address, socklen_t length) {
  make_way_if_near(fd);
  if (!hides() && !g_has_manager.load(std::memory_order_relaxed)) [[likely]] {
    return real().connect(fd, address, length);
  }
  return connect_to_manager(fd, address, length);
}

// ---- Process groups -------------------------------------------------------------------

CONTINUITY_EXPORT int WRAPPED(kill)(pid_t process, int signal) noexcept {
  if (process > 0 || process == -1 || process == INT_MIN) [[likely]] {
    return real().kill(process, signal);
  }
  return signal_group(-process, signal);
}

// Group 1 is everybody, for kill(-1).
CONTINUITY_EXPORT int WRAPPED(killpg)(pid_t group, int signal) noexcept {
  if (group < 0 || group == 1) {
    return real().killpg(group, signal);
  }
  return signal_group(group, signal);
}

// ---- By number ------------------------------------------------------------------------

namespace {

int as_int(long value) {
  return static_cast<int>(value);
}

template <typename T>
T* as(long value) {
  return reinterpret_cast<T*>(value);  // NOLINT(performance-no-int-to-ptr): it came as a register
}

}  // namespace

CONTINUITY_EXPORT long WRAPPED(syscall)(long number, ...) noexcept {
  va_list arguments;
  va_start(arguments, number);
  const long a = va_arg(arguments, long);
  const long b = va_arg(arguments, long);
  const long c = va_arg(arguments, long);
  const long d = va_arg(arguments, long);
  const long e = va_arg(arguments, long);
  const long f = va_arg(arguments, long);
  va_end(arguments);
  const int fd = as_int(a);
  switch (number) {
    case SYS_accept:
    case SYS_accept4:
      if (is_listener(fd) || is_unknown_listener(fd)) {
        return accept_on_listener(AcceptCall::accept4, fd, as<sockaddr>(b), as<socklen_t>(c),
                                  number == SYS_accept4 ? as_int(d) : 0);
      }
      break;
    case SYS_bind:
      return bind_socket(fd, as<const sockaddr>(b), static_cast<socklen_t>(c));
    case SYS_listen:
      return listen_on(fd, as_int(b));
    case SYS_close:
      if (fd_flags(fd) != 0) {
        return close_flagged(fd);
      }
      break;
    case SYS_close_range:
      return close_descriptors(static_cast<unsigned>(a), static_cast<unsigned>(b), as_int(c));
    case SYS_epoll_wait:
      if (!gate_is_open()) {
        return look_and_epoll_wait(fd, as<epoll_event>(b), as_int(c), as_int(d));
      }
      break;
    case SYS_epoll_pwait:
      if (!gate_is_open()) {
        return look_and_epoll_pwait(fd, as<epoll_event>(b), as_int(c), as_int(d),
                                    as<const sigset_t>(e));
      }
      break;
    case SYS_epoll_pwait2:
      if (!gate_is_open()) {
        return look_and_epoll_pwait2(fd, as<epoll_event>(b), as_int(c), as<const timespec>(d),
                                     as<const sigset_t>(e));
      }
      break;
    case SYS_io_uring_setup: {
      const long ring = real().syscall(number, a, b);
      if (ring >= 0) {
        note_ring();
      }
      return ring;
    }
    default:
      break;
  }
  return real().syscall(number, a, b, c, d, e, f);
}
