// A server of a few lines in every shape that servers come in: it knows nothing
// of being restarted, which is the point.
//
//   tiny-server [OPTION...] LOOP ADDRESS...
//
// LOOP is how it waits for work (the tables in main.c), the options are what it
// does on its way there and on its way out. Listeners that it is given (given.h) come
// before those that it binds. It answers every line it is sent by
// "pid=PID", and says on its standard output what it does, a line an event.
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { max_listeners = 8 };

struct settings {
  const char* close_others;  // "loop", "range" or "from": descriptors it does not know
  bool daemon;               // goes to the background before it binds
  bool duplicate;            // accepts on a copy of the listener
  bool rebind;               // binds, closes, and binds again
  bool reuseport;            // its listeners are members of groups
  bool udp;                  // has a datagram socket on the same port
  bool nonblocking;          // says that its listener does not block
  bool try_accept;           // accepts once before it serves
  bool describe;             // tells the options of its listener before it serves
  bool shut_down;            // shuts its listener down before it serves, and when told to end
  bool deaf_to_signals;      // ignores every signal that can be ignored
  bool tell_signals;         // says which signal it is told
  int exit_status;           // with which it ends by exit() on SIGPWR
  const char* comm;          // what the kernel has as its name
  const char* kills;         // told to end, it tells its group: "zero", "negative", "killpg"
  // On SIGHUP it starts its successor: "clean", "leaky" (with all it has), "unsaid" (as no
  // successor)
  const char* deploy;
  const char* says_ready;        // to systemd, before it serves: how
  const char* says_ready_later;  // the same, when it is told to
  bool says_stopping;            // to systemd, when it is told to end
  bool supervised;  // so started, it waits as a parent for the process that does the rest
  int options;      // a number that appears in the listener's options
  int backlog;
  int workers;
  int max_requests;        // after so many a worker ends, and its master forks another
  const char* nobody;      // becomes nobody "before" or "after" bind, in "workers", "to-and-fro"
  const char* root;        // workers go there by chroot
  const char* background;  // "after" bind, "twice" (two forks, a session of its own), "late"
  bool no_new_privileges;
  bool helper;           // forked before it binds, and waits for nothing
  bool serving_helper;   // forked before it binds, and is handed connections
  bool stranger;         // has the listener, and neither library nor environment
  const char* end;       // what it does before it serves: exit0, exit1, segv, kill, hang
  const char* late;      // an address it binds only when it is told to, serving already
  const char* pid_file;  // written at start, removed at the end
  const char* remove;    // a path that is removed before bind and at the end
  const char*
      refuse;  // how it sees that it runs already, and ends: pid, flock, lockf, connect, stat
};
extern struct settings settings;

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
  struct sockaddr_un path;
};

// The listeners of this server, for those who answer questions about them.
extern int listeners[max_listeners];
extern int listener_count;

// One line, one write: an event that a test waits for.
__attribute__((format(printf, 1, 2))) void say(const char* format, ...);
// Ends the program with `what` and errno's name.
_Noreturn void fail(const char* what);

void describe_options(char* description, size_t room);
// Reads once and answers every whole line; false when the peer has finished.
bool serve_some(int connection);
// Until the peer has finished; closes the connection.
void serve(int connection);
void answer_datagram(int fd);

// Ends the program if another one runs with its pid file, or at its address.
void refuse_to_run_twice(const char* address);
void write_pid_file(void);
socklen_t parse_address(const char* text, union address* address);
int make_listener(const char* address);
void set_nonblocking(int fd);
int accept_connection(int listener);  // -1: nothing for us, go on

void become_nobody(void);
void become_nobody_for_a_while(void);
void become_root_again(void);
void fork_helper(void);
void fork_stranger(const char* program);
void go_to_background_late(void);
void go_to_background_twice(void);
void supervise_the_rest(void);
void deploy_when_told(char** arguments);

typedef void (*serving_loop)(void);
void serve_late(void);
void one_by_one(void);
void thread_per_connection(void);
void pool_of_threads(void);
void process_per_connection(void);
void prefork(void);
void prefork_epoll(void);
void prefork_pool(void);
void leave_workers_behind(void);
void fork_and_forget(void);
void fork_serving_helper(void);
void pass_connections(void);
void program_per_connection(void);
void copy_connections(void);
void with_timeout(void);
void jump_out_of_accept(void);
void cancel_in_accept(void);
void poll_loop(void);
void poll_blocking_listener(void);
void select_loop(void);
void epoll_level(void);
void epoll_edge(void);
void epoll_oneshot(void);
void epoll_exclusive(void);
