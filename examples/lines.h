/* What every example answers: each line by the process that it was answered by, so that one
 * sees which run it was. Not part of what is shown. */
#ifndef LINES_H
#define LINES_H

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

/* Answers what has come. 0: there is nothing more to come. */
static inline int answer(int client) {
  char buffer[1024];
  char text[32];
  const ssize_t size = recv(client, buffer, sizeof buffer, 0);
  if (size <= 0) {
    return size < 0 && (errno == EAGAIN || errno == EINTR);
  }
  const int length = snprintf(text, sizeof text, "pid=%d\n", (int)getpid());
  for (ssize_t i = 0; i < size; ++i) {
    if (buffer[i] == '\n' && send(client, text, (size_t)length, MSG_NOSIGNAL) < 0) {
      return 0;
    }
  }
  return 1;
}

static inline void say_listening(void) {
  printf("listening pid=%d\n", (int)getpid());
  fflush(stdout);
}

#endif
