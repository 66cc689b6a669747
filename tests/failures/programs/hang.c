// Preloaded into a server: a start that hangs when it is all but done. Where the file that
// FAILURES_HANG names exists, a process goes to sleep for good in its first wait for work,
// with all its addresses bound. Who has waited before is left alone.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

typedef int waiting(int, struct epoll_event*, int, int);

static waiting* next;
static char file[4096];
static pid_t has_waited;

// Now: nginx writes its title over its environment.
__attribute__((constructor)) static void prepare(void) {
  next = (waiting*)dlsym(RTLD_NEXT, "epoll_wait");
  const char* named = getenv("FAILURES_HANG");
  snprintf(file, sizeof file, "%s", named != NULL ? named : "");
}

int epoll_wait(int epoll, struct epoll_event* events, int room, int timeout) {
  if (has_waited != getpid()) {
    while (access(file, F_OK) == 0) {
      pause();
    }
    has_waited = getpid();
  }
  return next(epoll, events, room, timeout);
}
