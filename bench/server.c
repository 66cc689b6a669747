// A server as plain as they come, for timing its restarts: one thread, one epoll, any
// number of listeners, and an answer to whatever a client says.
//
//   bench-server [ADDRESS:]PORT...
//
// Listens on these ports, of 127.0.0.1 where no address is named; the kernel picks one for
// each 0. Says which, in one line, once it has looked for work for the first time.
#define _GNU_SOURCE
#include "loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { room = 256, backlog = 4096 };

static void check(bool fine, const char* what) {
  if (!fine) {
    fprintf(stderr, "bench-server: %s: %s\n", what, strerror(errno));
    exit(111);
  }
}

// What an epoll reports: the descriptor, and whether it is a listener.
static uint64_t about(int fd, bool listens) {
  return (uint64_t)(unsigned)fd << 1 | listens;
}

static void watch(int epoll, int fd, bool listens) {
  struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = about(fd, listens)}};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void listen_on(int epoll, char* text) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof address;
  const int on = 1;
  char* colon = strchr(text, ':');
  if (colon != NULL) {
    *colon = '\0';
    check(inet_pton(AF_INET, text, &address.sin_addr) == 1, text);
  }
  address.sin_port = htons((uint16_t)strtoul(colon == NULL ? text : colon + 1, NULL, 10));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  check(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0, "socket");
  check(bind(fd, (struct sockaddr*)&address, length) == 0, "bind");
  check(listen(fd, backlog) == 0, "listen");
  check(getsockname(fd, (struct sockaddr*)&address, &length) == 0, "getsockname");
  watch(epoll, fd, true);
  printf("%s%s%u", colon == NULL ? "" : text, colon == NULL ? "" : ":", ntohs(address.sin_port));
}

static void answer(int fd) {
  char said[512];
  const ssize_t size = recv(fd, said, sizeof said, MSG_DONTWAIT);
  if (size > 0) {
    send(fd, "ok\n", 3, MSG_DONTWAIT | MSG_NOSIGNAL);
  } else if (size == 0 || errno != EAGAIN) {
    close(fd);
  }
}

static void serve(int epoll, const struct epoll_event* event) {
  const int fd = (int)(event->data.u64 >> 1);
  if ((event->data.u64 & 1) == 0) {
    answer(fd);
    return;
  }
  const int connection = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection >= 0) {
    watch(epoll, connection, false);
  }
}

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: bench-server [ADDRESS:]PORT...\n");
    return 2;
  }
  raise_descriptor_limit();
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  check(epoll >= 0, "epoll_create1");
  for (int i = 1; i < argc; ++i) {
    listen_on(epoll, argv[i]);
    putchar(i + 1 < argc ? ' ' : '\n');
  }
  struct epoll_event events[room];
  int ready = epoll_wait(epoll, events, room, 0);
  fflush(stdout);
  for (;; ready = epoll_wait(epoll, events, room, -1)) {
    for (int i = 0; i < ready; ++i) {
      serve(epoll, &events[i]);
    }
  }
}
