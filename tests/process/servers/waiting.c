// A server with one thread, which watches over its own waits.
//
//   waiting-server [filtered | filtered-before | joined]
//
// It has one listener, which it has looked at once. Then it waits by epoll for commands on its
// standard input, some milliseconds at a time, and says of each wait that ends otherwise than
// it would by itself how. With "filtered" all of its system calls go through a filter once it
// has that listener, with "filtered-before" before that; with "joined" it has had a second
// thread, so that libc takes it for a program with threads.
//
//   share            a child waits on the same epoll from now on
//   another          it waits on another epoll from now on, with the same number
//   poll             it waits by poll from now on
//   become-nobody    it becomes another user
//   no-threads       it may make no thread from now on, if it is not root
//   threads          it may again
//   say TEXT         it says that: what came before has been seen to
#include "looked_at.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { wait_time = 200, command_data = 4711, nobody = 65534, most_waits = 600 };

static void filter_calls(void) {
  struct sock_filter allow_all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  struct sock_fprog program = {.len = 1, .filter = &allow_all};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    fail("prctl");
  }
}

static void* do_nothing(void* unused) {
  return unused;
}

static void have_a_thread(void) {
  pthread_t thread = 0;
  if (pthread_create(&thread, NULL, do_nothing, NULL) != 0 || pthread_join(thread, NULL) != 0) {
    fail("pthread_create");
  }
}

static int make_epoll(void) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = command_data};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0) {
    fail("epoll");
  }
  return epoll;
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static bool is_told(int epoll) {
  struct epoll_event event = {0};
  double began = milliseconds();
  int count = epoll_wait(epoll, &event, 1, wait_time);
  double waited = milliseconds() - began;
  if (count < 0) {
    printf("failed: %s\n", strerror(errno));
  } else if (count == 0 && waited < wait_time) {
    printf("early: after %.3f ms\n", waited);
  } else if (count > 0 && event.data.u64 != command_data) {
    printf("strange: %llu\n", (unsigned long long)event.data.u64);
  }
  return count > 0 && event.data.u64 == command_data;
}

static bool is_told_by_poll(void) {
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
  int count = poll(&input, 1, wait_time);
  if (count < 0) {
    printf("failed: %s\n", strerror(errno));
  }
  return count > 0;
}

// For a child that waits on this epoll, too: a byte for each read of commands, which are the
// parent's. Until that has read them the child would be told of them on and on.
static int commands_read[2] = {-1, -1};

static void share(int epoll) {
  if (pipe2(commands_read, O_CLOEXEC) != 0) {
    fail("pipe");
  }
  if (fork() != 0) {
    return;
  }
  prctl(PR_SET_PDEATHSIG, 9);
  close(commands_read[1]);
  for (int i = 0; i < most_waits; ++i) {
    char byte = 0;
    if (is_told(epoll) && read(commands_read[0], &byte, 1) <= 0) {
      break;
    }
  }
  _exit(0);
}

static void become_nobody(void) {
  gid_t group = nobody;
  if (setgroups(1, &group) != 0 || setresgid(nobody, nobody, nobody) != 0 ||
      setresuid(nobody, nobody, nobody) != 0) {
    fail("become nobody");
  }
}

static void allow_threads(bool allowed) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NPROC, &limit) != 0) {
    fail("getrlimit");
  }
  limit.rlim_cur = allowed ? limit.rlim_max : 0;
  if (setrlimit(RLIMIT_NPROC, &limit) != 0) {
    fail("setrlimit");
  }
}

struct state {
  int epoll;
  bool polls;
};

static void obey(struct state* state, const char* command) {
  if (strcmp(command, "share") == 0) {
    share(state->epoll);
  } else if (strcmp(command, "another") == 0) {
    int other = make_epoll();
    dup3(other, state->epoll, O_CLOEXEC);
    close(other);
  } else if (strcmp(command, "poll") == 0) {
    state->polls = true;
  } else if (strcmp(command, "become-nobody") == 0) {
    become_nobody();
  } else if (strcmp(command, "no-threads") == 0 || strcmp(command, "threads") == 0) {
    allow_threads(strcmp(command, "threads") == 0);
  } else if (strncmp(command, "say ", 4) == 0) {
    printf("%s\n", command + 4);
  }
}

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  const char* what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "joined") == 0) {
    have_a_thread();
  } else if (strcmp(what, "filtered-before") == 0) {
    filter_calls();
  }
  listen_and_look();
  if (strcmp(what, "filtered") == 0) {
    filter_calls();
  }
  struct state state = {.epoll = make_epoll()};
  printf("waiting\n");
  for (int i = 0; i < most_waits; ++i) {
    if (!(state.polls ? is_told_by_poll() : is_told(state.epoll))) {
      continue;
    }
    char commands[256] = {0};
    if (read(STDIN_FILENO, commands, sizeof commands - 1) <= 0) {
      return 0;
    }
    if (commands_read[1] >= 0 && write(commands_read[1], "", 1) != 1) {
      fail("write");
    }
    for (char* command = strtok(commands, "\n"); command != NULL; command = strtok(NULL, "\n")) {
      obey(&state, command);
    }
  }
  return 0;
}
