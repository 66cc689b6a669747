// What a service says to systemd at NOTIFY_SOCKET, in the ways that servers have.
#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// By "sendto", "sendmsg", or connected by "send" or "write". Whoever has no NOTIFY_SOCKET
// says nothing. 0: it was taken.
static inline int tell_manager(const char* how, const char* text) {
  const char* where = getenv("NOTIFY_SOCKET");
  if (where == NULL) {
    return 0;
  }
  struct sockaddr_un manager = {.sun_family = AF_UNIX};
  const size_t length = strlen(where);
  memcpy(manager.sun_path, where, length);
  if (where[0] == '@') {
    manager.sun_path[0] = '\0';
  }
  const struct sockaddr* name = (const struct sockaddr*)&manager;
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ssize_t sent = -1;
  if (strcmp(how, "sendto") == 0) {
    sent = sendto(fd, text, strlen(text), MSG_NOSIGNAL, name, size);
  } else if (strcmp(how, "sendmsg") == 0) {
    struct iovec part = {.iov_base = (char*)text, .iov_len = strlen(text)};
    struct msghdr message = {
        .msg_name = &manager, .msg_namelen = size, .msg_iov = &part, .msg_iovlen = 1};
    sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  } else if (connect(fd, name, size) == 0) {
    sent = strcmp(how, "send") == 0 ? send(fd, text, strlen(text), MSG_NOSIGNAL)
                                    : write(fd, text, strlen(text));
  }
  close(fd);
  return sent == (ssize_t)strlen(text) ? 0 : -1;
}

static inline void* say_ready_when_told(void* how) {
  char told = 0;
  while (read(STDIN_FILENO, &told, 1) != 1) {
  }
  if (tell_manager((const char*)how, "READY=1\nSTATUS=serving") != 0) {
    _exit(4);
  }
  return NULL;
}

// A thread that waits for a byte on standard input.
static inline void say_ready_later(const char* how) {
  pthread_t thread;
  pthread_create(&thread, NULL, say_ready_when_told, (void*)how);
}
