// Sockets that came from whoever started this program: systemd says so in LISTEN_PID and
// LISTEN_FDS, inetd ("wait") makes one its standard input.
#pragma once

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

// The next one of this type; -1: there is none, so the program binds.
static inline int take_given(int type) {
  enum { first = 3 };
  static int taken = 0;
  const char* process = getenv("LISTEN_PID");
  const char* count = getenv("LISTEN_FDS");
  int fd = STDIN_FILENO;
  if (process != NULL && count != NULL && atoi(process) == getpid() && taken < atoi(count)) {
    fd = first + taken;
  } else if (taken > 0) {
    return -1;
  }
  int kind = 0;
  int listens = 0;
  socklen_t size = sizeof kind;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &size) != 0 || kind != type) {
    return -1;
  }
  getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
  if (type != SOCK_DGRAM && !listens) {
    return -1;
  }
  ++taken;
  return fd;
}
