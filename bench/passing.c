// The kernel's floor under a take-over: what two processes need to hand a listener over
// and say so, when nothing else is to be done.
//
//   bench-passing COUNT LISTENERS
//
// Prints two medians of COUNT rounds, in nanoseconds. The first: one says a word, the other
// answers, as READY and RETIRED are said. The second: LISTENERS listeners are sent along
// and closed by whoever has received them, as a GRANT is.
#define _GNU_SOURCE
#include "measure.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { most = 253 };  // descriptors in a message: SCM_MAX_FD

static int listeners[most];

static void say(int socket, size_t count) {
  char word = 'w';
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof listeners)];
  } control;
  struct iovec data = {.iov_base = &word, .iov_len = 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(&control.header), listeners, count * sizeof(int));
  }
  check(sendmsg(socket, &message, 0) == 1, "sendmsg");
}

// Whether there was a word; descriptors that come with it are closed, as time permits.
static bool hear(int socket, int* received, size_t* count) {
  char word = 0;
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof listeners)];
  } control;
  struct iovec data = {.iov_base = &word, .iov_len = 1};
  struct msghdr message = {
      .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  const ssize_t size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  check(size >= 0, "recvmsg");
  const struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  *count = header == NULL ? 0 : (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  if (*count > 0) {
    memcpy(received, CMSG_DATA(header), *count * sizeof(int));
  }
  return size > 0;
}

static void answer_all(int socket) {
  int received[most];
  size_t count = 0;
  while (hear(socket, received, &count)) {
    say(socket, 0);
    for (size_t i = 0; i < count; ++i) {
      close(received[i]);
    }
  }
}

static long median_of_rounds(int socket, long* times, size_t rounds, size_t count) {
  for (size_t i = 0; i < rounds; ++i) {
    int received[most];
    size_t none = 0;
    // As in a restart, the other sleeps.
    usleep(200);
    const long begun = nanoseconds();
    say(socket, count);
    check(hear(socket, received, &none), "answer");
    times[i] = nanoseconds() - begun;
  }
  return median(times, rounds);
}

int main(int argc, char** argv) {
  const long rounds = argc == 3 ? atol(argv[1]) : 0;
  const long count = argc == 3 ? atol(argv[2]) : 0;
  if (rounds < 1 || count < 1 || count > most) {
    fprintf(stderr, "usage: bench-passing COUNT LISTENERS (at most %d)\n", most);
    return 2;
  }
  long* times = calloc((size_t)rounds, sizeof *times);
  check(times != NULL, "calloc");
  for (long i = 0; i < count; ++i) {
    listeners[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(listeners[i] >= 0 && listen(listeners[i], 1) == 0, "listen");
  }
  int ends[2];
  check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
  const pid_t child = fork();
  check(child >= 0, "fork");
  if (child == 0) {
    close(ends[0]);
    answer_all(ends[1]);
    _exit(0);
  }
  close(ends[1]);
  const long words = median_of_rounds(ends[0], times, (size_t)rounds, 0);
  const long descriptors = median_of_rounds(ends[0], times, (size_t)rounds, (size_t)count);
  close(ends[0]);
  check(waitpid(child, NULL, 0) == child, "waitpid");
  printf("%ld %ld\n", words, descriptors);
  free(times);
  return 0;
}
