// What wrappers call when there is something to do: the border between the
// hot half (wrappers, watch) and the cold half (everything else). Nothing here
// throws. Each returns what its wrapper is to return, errno included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>

namespace continuity::shim {

// Before a wait of the program's: may hold it until a predecessor is deaf.
void before_accept(int fd) noexcept;
void before_epoll_wait(int epoll) noexcept;
void before_poll(const pollfd* fds, nfds_t count) noexcept;
void before_select(int count, const fd_set* readable) noexcept;

// Waits of a process in whose epolls our bell may be: it is not told of that.
int epoll_wait_with_bell(int epoll, epoll_event* events, int room, int timeout);
int epoll_pwait_with_bell(int epoll, epoll_event* events, int room, int timeout,
                          const sigset_t* mask);
int epoll_pwait2_with_bell(int epoll, epoll_event* events, int room, const timespec* timeout,
                           const sigset_t* mask);
// The rest of one that has returned this and has been rung, or may have been; since
// `began`, by the coarse clock, where it has an end.
int end_epoll_wait_with_bell(int epoll, epoll_event* events, int room, int timeout, int count,
                             const timespec& began);
// Before one of another kind that may sleep, where the bell is not heard.
void before_deaf_wait() noexcept;

// After these: whether there may be anything on this number. False, with errno: its owner
// is a predecessor, until the program says that it is ready. `waits`: the call may sleep.
bool await_readiness(int fd, bool waits);

// Waits of a retired program on probation: they end early only as the real call
// would, and hear a listener that has been given back. And of a program that is not
// ready by its own word: they hear that it is.
int poll_deaf(pollfd* fds, nfds_t count, int timeout);
int ppoll_deaf(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
int select_deaf(int count, fd_set* readable, fd_set* writable, fd_set* special, timeval* timeout);
int pselect_deaf(int count, fd_set* readable, fd_set* writable, fd_set* special,
                 const timespec* timeout, const sigset_t* mask);

// An accept on a descriptor that has been retired; or finds that it is so no more.
constexpr int listener_is_back = -2;
int accept_retired(int fd, sockaddr* address, socklen_t* length, int flags);

// A receive from a datagram listener that has been retired: true if it is so no more.
// Otherwise nothing is received, and errno says so. `waits`: the call may sleep.
bool is_back_after(int fd, bool waits) noexcept;
void before_receive(int fd) noexcept;
// Whether numbers hold another socket for a moment; and until the last stand-in is in
// place.
bool are_numbers_moving() noexcept;
void wait_until_settled() noexcept;

// An accept on a number we know nothing of: whether it is a listener, which came
// over exec or from another process.
bool is_unknown_listener(int fd) noexcept;

// The program has made an io_uring.
void note_ring() noexcept;
// In a child that the program has forked, when fork is over: it may wait by a ring, of
// which nothing is heard.
void begin_in_child() noexcept;

int bind_socket(int fd, const sockaddr* address, socklen_t length) noexcept;
int listen_on(int fd, int backlog) noexcept;

// Descriptors with flags, ours or listeners; and any whose number is in the far table.
int close_flagged(int fd);
int close_descriptors(unsigned first, unsigned last, int flags) noexcept;
int duplicate(int fd) noexcept;
int duplicate_onto(int from, int to, int flags, bool is_dup2) noexcept;
// The program has this descriptor, which is near to ours: these go where it will not come so soon.
void make_way_for(int fd) noexcept;

// Listeners. `arguments` as the program passed them.
int control_file(int fd, int command, long argument);
int control_device(int fd, unsigned long request, void* argument) noexcept;
int set_option(int fd, int level, int name, const void* value, socklen_t length) noexcept;
int get_option(int fd, int level, int name, void* value, socklen_t* length) noexcept;
int get_name(int fd, sockaddr* address, socklen_t* length) noexcept;
int shut_down(int fd, int how) noexcept;
int control_epoll(int epoll, int operation, int fd, epoll_event* event) noexcept;

// Before another program is started that inherits listeners, past fork's handlers,
// and before another process is given one.
void before_spawn() noexcept;
void before_passing(const msghdr* message) noexcept;

// Before root becomes `user`: what only root may do for it is done now.
void before_user_change(uid_t user) noexcept;
// A thread of ours that libc does not know follows.
void after_user_change() noexcept;
// Before root gives up what makes it root, and keeps the right to become another user.
void before_capability_change() noexcept;

// While files are hidden: what the program is shown instead of `path`, most often
// the same. Another one is good until the call that it is for has returned.
const char* shown_path(int directory, const char* path) noexcept;
int connect_shown(int fd, const sockaddr* address, socklen_t length);

// What is sent to systemd. True, or the size: it goes no further.
bool keeps_notice(int fd, const sockaddr* address, socklen_t length, const void* data,
                  std::size_t size) noexcept;
ssize_t keeps_notice(int fd, const msghdr* message) noexcept;
int connect_to_manager(int fd, const sockaddr* address, socklen_t length);
// The program has said that it is ready.
bool has_said_ready() noexcept;

// A signal to a process group; 0: its own.
int signal_group(pid_t group, int signal) noexcept;

// Files that another generation lives by. True: it must stay, say it is done.
bool keeps_path(int directory, const char* path) noexcept;
bool keeps_rename(int directory, const char* from) noexcept;
bool keeps_content(int fd, std::int64_t length) noexcept;

}  // namespace continuity::shim
