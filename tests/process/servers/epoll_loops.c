// Event loops by epoll, in the four ways to register a listener.
#include "tiny.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

static bool is_listener(int fd) {
  for (int i = 0; i < listener_count; ++i) {
    if (fd == listeners[i]) {
      return true;
    }
  }
  return false;
}

static void control(int epoll, int operation, int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  if (epoll_ctl(epoll, operation, fd, &event) != 0) {
    fail("epoll_ctl");
  }
}

static int make_epoll(unsigned listener_events) {
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < listener_count; ++i) {
    set_nonblocking(listeners[i]);
    control(epoll, EPOLL_CTL_ADD, listeners[i], listener_events);
  }
  return epoll;
}

static struct epoll_event wait_for_one(int epoll) {
  struct epoll_event event = {0};
  for (int count = 0; count != 1;) {
    count = epoll_wait(epoll, &event, 1, -1);
    if (count == 0) {
      fail("a wait without an end has ended:");
    }
  }
  return event;
}

static void accept_one(int epoll, int listener, unsigned connection_events) {
  int connection = accept_connection(listener);
  if (connection >= 0) {
    control(epoll, EPOLL_CTL_ADD, connection, connection_events);
  }
}

static void accept_all(int epoll, int listener, unsigned connection_events) {
  for (int connection; (connection = accept_connection(listener)) >= 0;) {
    control(epoll, EPOLL_CTL_ADD, connection, connection_events);
  }
}

static void run_level_loop(int epoll) {
  for (;;) {
    int fd = wait_for_one(epoll).data.fd;
    if (is_listener(fd)) {
      accept_one(epoll, fd, EPOLLIN);
    } else if (!serve_some(fd)) {
      close(fd);
    }
  }
}

void epoll_level(void) {
  run_level_loop(make_epoll(EPOLLIN));
}

void epoll_edge(void) {
  int epoll = make_epoll(EPOLLIN | EPOLLET);
  for (;;) {
    int fd = wait_for_one(epoll).data.fd;
    if (is_listener(fd)) {
      accept_all(epoll, fd, EPOLLIN);
    } else if (!serve_some(fd)) {
      close(fd);
    }
  }
}

// Several threads on one epoll: who is woken has the descriptor for itself
// until it registers it anew.
static void* run_oneshot_loop(void* argument) {
  int epoll = *(int*)argument;
  for (;;) {
    int fd = wait_for_one(epoll).data.fd;
    if (is_listener(fd)) {
      accept_all(epoll, fd, EPOLLIN | EPOLLONESHOT);
      control(epoll, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
    } else if (serve_some(fd)) {
      control(epoll, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT);
    } else {
      close(fd);
    }
  }
  return NULL;
}

enum { threads = 4 };

void epoll_oneshot(void) {
  static int epoll;
  epoll = make_epoll(EPOLLIN | EPOLLONESHOT);
  for (int i = 1; i < threads; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, run_oneshot_loop, &epoll);
  }
  run_oneshot_loop(&epoll);
}

// Several threads, each with an epoll of its own, on one listener.
static void* run_exclusive_loop(void* unused) {
  run_level_loop(make_epoll(EPOLLIN | EPOLLEXCLUSIVE));
  return unused;
}

void epoll_exclusive(void) {
  for (int i = 1; i < threads; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, run_exclusive_loop, NULL);
  }
  run_exclusive_loop(NULL);
}
