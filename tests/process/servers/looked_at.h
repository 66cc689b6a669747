// A listener that a small server has looked at once, so that the library serves it.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static void fail(const char* what) {
  perror(what);
  exit(1);
}

static void listen_and_look(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 1) != 0) {
    fail("listen");
  }
  struct pollfd waiting = {.fd = fd, .events = POLLIN};
  if (poll(&waiting, 1, 0) != 0) {
    fail("poll");
  }
}
