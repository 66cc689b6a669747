// What scripts/compare --control preloads: it wastes a moment at every call with which a
// server waits, takes a connection or reads. A comparison that does not see that sees
// nothing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const long wasted = 3000;  // nanoseconds

static void waste(void) {
  struct timespec begun, now;
  clock_gettime(CLOCK_MONOTONIC, &begun);
  do {
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((now.tv_sec - begun.tv_sec) * 1000000000L + now.tv_nsec - begun.tv_nsec < wasted);
}

#define SLOW(result, name, parameters, arguments)                 \
  result name parameters {                                        \
    static result(*real) parameters;                              \
    if (real == NULL) {                                           \
      void* found = dlsym(RTLD_NEXT, #name);                      \
      memcpy(&real, &found, sizeof real); /* ISO C has no cast */ \
    }                                                             \
    waste();                                                      \
    return real arguments;                                        \
  }

SLOW(int, accept, (int fd, __SOCKADDR_ARG address, socklen_t* restrict size), (fd, address, size))
SLOW(int, accept4, (int fd, __SOCKADDR_ARG address, socklen_t* restrict size, int flags),
     (fd, address, size, flags))
SLOW(int, epoll_wait, (int fd, struct epoll_event* events, int room, int timeout),
     (fd, events, room, timeout))
SLOW(int, epoll_pwait,
     (int fd, struct epoll_event* events, int room, int timeout, const sigset_t* signals),
     (fd, events, room, timeout, signals))
SLOW(ssize_t, read, (int fd, void* buffer, size_t size), (fd, buffer, size))
SLOW(ssize_t, recv, (int fd, void* buffer, size_t size, int flags), (fd, buffer, size, flags))
