// Servers of several processes: who forks whom, when, as whom, and who waits
// for work. The master, where there is one, waits for signals and never for
// clients; told to end it tells its workers, and ends after them.
#include "tiny.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { max_workers = 2048, most_seconds = 240, told_by_a_stranger = 9 };

static pid_t master;
static pid_t workers[max_workers];
static int worker_count;
static int living_workers;

void become_nobody(void) {
  enum { nobody = 65534 };
  if (setgroups(0, NULL) != 0 || setgid(nobody) != 0 || setuid(nobody) != 0) {
    fail("setuid");
  }
}

void become_nobody_for_a_while(void) {
  enum { nobody = 65534 };
  if (seteuid(nobody) != 0) {
    fail("seteuid");
  }
}

void become_root_again(void) {
  if (seteuid(0) != 0) {
    fail("seteuid");
  }
}

// A test ends the process that it started, and no other.
static void end_with_parent(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) {
    _exit(0);
  }
  alarm(most_seconds);
}

// ---- Workers ----------------------------------------------------------------------

static void accept_one_by_one(void) {
  for (int served = 0; settings.max_requests == 0 || served < settings.max_requests;) {
    int connection = accept_connection(listeners[0]);
    if (connection >= 0) {
      serve(connection);
      ++served;
    }
  }
}

// Whoever tells a worker to end goes past its master.
static void note_who_tells(int number, siginfo_t* info, void* context) {
  (void)number;
  (void)context;
  _exit(info->si_pid == master ? 0 : told_by_a_stranger);
}

static void run_worker(serving_loop work) {
  sigset_t none;
  sigemptyset(&none);
  struct sigaction told = {.sa_sigaction = note_who_tells, .sa_flags = SA_SIGINFO};
  sigaction(SIGTERM, &told, NULL);
  signal(SIGUSR2, SIG_DFL);
  if (settings.root != NULL && (chroot(settings.root) != 0 || chdir("/") != 0)) {
    fail("chroot");
  }
  if (settings.nobody != NULL && strcmp(settings.nobody, "workers") == 0) {
    become_nobody();
  }
  end_with_parent(master);  // which a change of the user undoes
  sigprocmask(SIG_SETMASK, &none, NULL);
  work();
  _exit(0);
}

static pid_t fork_worker(int slot, serving_loop work) {
  pid_t worker = fork();
  if (worker == 0) {
    run_worker(work);
  }
  if (worker < 0) {
    fail("fork");
  }
  workers[slot] = worker;
  ++living_workers;
  return worker;
}

// ---- The master -------------------------------------------------------------------

static bool is_ending;

static void end_workers(void) {
  is_ending = true;
  for (int i = 0; i < worker_count; ++i) {
    if (workers[i] > 0) {
      kill(workers[i], SIGTERM);
    }
  }
}

// False when there are no workers any more.
static bool reap_workers(serving_loop work) {
  int status = 0;
  pid_t ended = 0;
  while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == told_by_a_stranger) {
      say("a worker was told to end");
      _exit(told_by_a_stranger);
    }
    for (int i = 0; i < worker_count; ++i) {
      if (workers[i] == ended) {
        workers[i] = 0;
        --living_workers;
        if (!is_ending) {
          fork_worker(i, work);
        }
        break;
      }
    }
  }
  return living_workers > 0;  // another child may be its successor
}

static void run_master(serving_loop work) {
  master = getpid();
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGTERM);
  sigaddset(&awaited, SIGCHLD);
  sigaddset(&awaited, SIGUSR2);
  sigprocmask(SIG_BLOCK, &awaited, NULL);
  for (; worker_count < settings.workers; ++worker_count) {
    fork_worker(worker_count, work);
  }
  while (reap_workers(work) || !is_ending) {
    int told = 0;
    sigwait(&awaited, &told);
    if (told == SIGTERM) {
      end_workers();
    } else if (told == SIGUSR2) {
      say("worker pid=%d", fork_worker(worker_count, work));
      ++worker_count;
    }
  }
  exit(0);
}

void prefork(void) {
  run_master(accept_one_by_one);
}

void prefork_epoll(void) {
  run_master(epoll_level);
}

void prefork_pool(void) {
  run_master(pool_of_threads);
}

// The process that has bound ends when its workers run.
void leave_workers_behind(void) {
  for (int i = 0; i < settings.workers; ++i) {
    pid_t worker = fork();
    if (worker == 0) {
      alarm(most_seconds);
      accept_one_by_one();
    }
    say("worker pid=%d", worker);
  }
  exit(0);
}

// Children are told by no signal of their own master: nobody forwards one.
void fork_and_forget(void) {
  for (int i = 0; i < settings.workers; ++i) {
    if (fork() == 0) {
      alarm(most_seconds);
      accept_one_by_one();
    }
  }
  while (wait(NULL) > 0 || errno == EINTR) {
  }
}

// ---- Processes beside ----------------------------------------------------------------

void fork_helper(void) {
  pid_t parent = getpid();
  if (fork() == 0) {
    end_with_parent(parent);
    for (;;) {
      pause();
    }
  }
}

void fork_stranger(const char* program) {
  pid_t parent = getpid();
  pid_t stranger = fork();
  if (stranger == 0) {
    end_with_parent(parent);  // and exec leaves it at that
    char* const arguments[] = {(char*)program, "--idle", NULL};
    char* const nothing[] = {NULL};
    execve("/proc/self/exe", arguments, nothing);
    _exit(1);
  }
  say("stranger pid=%d", stranger);
}

// Its parent sees to something first, and ends when it is told.
void go_to_background_late(void) {
  pid_t daemon = fork();
  if (daemon < 0) {
    fail("fork");
  }
  if (daemon != 0) {
    getchar();
    _exit(0);
  }
}

void go_to_background_twice(void) {
  if (fork() != 0) {
    _exit(0);
  }
  setsid();
  if (fork() != 0) {
    _exit(0);
  }
}

// ---- A server that starts its successor --------------------------------------------------

static char** own_arguments;

static void start_successor(void) {
  enum { first_of_ours = 3 };
  if (fork() != 0) {
    return;
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (strcmp(settings.deploy, "clean") == 0) {
    closefrom(first_of_ours);
  }
  if (strcmp(settings.deploy, "unsaid") != 0) {
    setenv("CONTINUITY_NEW", "1", 1);
  }
  execv("/proc/self/exe", own_arguments);
  _exit(1);
}

static void* await_deploy(void* unused) {
  sigset_t told;
  sigemptyset(&told);
  sigaddset(&told, SIGHUP);
  for (int signal = 0; sigwait(&told, &signal) == 0;) {
    start_successor();
  }
  return unused;
}

// As those do that have a deploy hook: "make a new one of me". A successor that
// becomes a daemon is given back to it.
void deploy_when_told(char** arguments) {
  own_arguments = arguments;
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);  // or the thread takes what is for the server
  pthread_t thread;
  if (pthread_create(&thread, NULL, await_deploy, NULL) != 0) {
    fail("thread");
  }
  sigaddset(&before, SIGHUP);
  sigprocmask(SIG_SETMASK, &before, NULL);
}

static pid_t supervised;

static void pass_on(int signal) {
  kill(supervised, signal);
}

// The process that was started stays, and has a child that is the server.
void supervise_the_rest(void) {
  pid_t parent = getpid();
  supervised = fork();
  if (supervised == 0) {
    end_with_parent(parent);
    return;
  }
  signal(SIGTERM, pass_on);
  while (waitpid(supervised, NULL, 0) < 0 && errno == EINTR) {
  }
  exit(0);
}

// ---- Connections that travel -----------------------------------------------------------

union room_for_descriptor {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
};

static void send_descriptor(int to, int fd) {
  char byte = 0;
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  union room_for_descriptor room = {0};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = room.bytes,
                           .msg_controllen = sizeof room.bytes};
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (sendmsg(to, &message, 0) != 1) {
    fail("sendmsg");
  }
}

static int receive_descriptor(int from) {
  char byte = 0;
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  union room_for_descriptor room = {0};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = room.bytes,
                           .msg_controllen = sizeof room.bytes};
  if (recvmsg(from, &message, 0) != 1) {
    _exit(0);
  }
  int fd = -1;
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != NULL) {
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
  }
  return fd;
}

static void* serve_in_thread(void* connection) {
  serve((int)(intptr_t)connection);
  return NULL;
}

static void serve_aside(int connection) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, serve_in_thread, (void*)(intptr_t)connection) != 0) {
    fail("thread");
  }
  pthread_detach(thread);
}

static int channel_to_helper = -1;

// One process accepts, another serves: it is handed each connection. That one may
// be older than the listener.
void fork_serving_helper(void) {
  int pair[2];
  pid_t parent = getpid();
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) {
    fail("socketpair");
  }
  if (fork() == 0) {
    end_with_parent(parent);
    close(pair[0]);
    if (listener_count > 0) {
      close(listeners[0]);
    }
    for (;;) {
      serve_aside(receive_descriptor(pair[1]));
    }
  }
  close(pair[1]);
  channel_to_helper = pair[0];
}

void pass_connections(void) {
  if (channel_to_helper < 0) {
    fork_serving_helper();
  }
  for (;;) {
    int connection = accept_connection(listeners[0]);
    if (connection >= 0) {
      send_descriptor(channel_to_helper, connection);
      close(connection);
    }
  }
}

// Serves a copy of what it has accepted.
void copy_connections(void) {
  for (;;) {
    int connection = accept_connection(listeners[0]);
    if (connection >= 0) {
      int copy = dup(connection);
      close(connection);
      serve_aside(copy);
    }
  }
}
