// What a fork costs a server: the time fork() takes, and the time until a child that
// does nothing has ended.
//
//   bench-forks COUNT [thread]
//
// A server with one listener, which it has looked at once. With "thread" it has a second
// thread that sleeps, as every program has under the library: what that costs is libc's
// and the kernel's. Prints both medians, in nanoseconds.
#define _GNU_SOURCE
#include "measure.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int listen_somewhere(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  check(bind(fd, (struct sockaddr*)&address, sizeof address) == 0, "bind");
  check(listen(fd, 1) == 0, "listen");
  return fd;
}

static void* sleep_for_ever(void* nothing) {
  for (;;) {
    pause();
  }
  return nothing;
}

int main(int argc, char** argv) {
  if (argc < 2 || atoi(argv[1]) < 1) {
    fprintf(stderr, "usage: bench-forks COUNT [thread]\n");
    return 2;
  }
  size_t count = (size_t)atoi(argv[1]);
  long* forks = calloc(count, sizeof *forks);
  long* lives = calloc(count, sizeof *lives);
  check(forks != NULL && lives != NULL, "calloc");
  struct pollfd waiting = {.fd = listen_somewhere(), .events = POLLIN};
  check(poll(&waiting, 1, 0) == 0, "poll");
  pthread_t thread = 0;
  if (argc > 2 && strcmp(argv[2], "thread") == 0) {
    check(pthread_create(&thread, NULL, sleep_for_ever, NULL) == 0, "pthread_create");
  }
  for (size_t i = 0; i < count; ++i) {
    long begun = nanoseconds();
    pid_t child = fork();
    if (child == 0) {
      _exit(0);
    }
    check(child > 0, "fork");
    forks[i] = nanoseconds() - begun;
    check(waitpid(child, NULL, 0) == child, "waitpid");
    lives[i] = nanoseconds() - begun;
  }
  printf("%ld %ld\n", median(forks, count), median(lives, count));
  return 0;
}
