// Clients for measurements: what each does is fixed, so that two runs ask the same of
// two servers. One thread, so that it takes as little as possible of the machine.
//
//   bench-clients kept  PORT CLIENTS REQUESTS LENGTH TEXT   one connection a client
//   bench-clients fresh PORT CLIENTS REQUESTS LENGTH TEXT   one connection a request
//   bench-clients idle  PORT CLIENTS                        connections, no requests
//
// A request is TEXT, with \r and \n understood; its answer has LENGTH bytes. REQUESTS
// may be "endless": until standard input ends, or a time, "500ms". "idle" says "open" when
// all are, and holds them until standard input ends. At the end of the others: "N answered,
// N failed"; after a time also how long it was and the median, the 99th and the 99.9th
// percentile of the answers' times, in nanoseconds.
#define _GNU_SOURCE
#include "loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  time_limit = 300,  // seconds
  batch = 64,
};

struct client {
  int fd;
  size_t missing;  // of the answer
  long begun;
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static bool fresh;
static size_t answer_length, text_length;
static const char* text;
static long asked, answered, failed, wanted;  // wanted < 0: endless
static long milliseconds, ends_at;            // 0: it is not a matter of time
static unsigned* times;                       // of the answers
static long times_room;
static int epoll;

static void check(bool fine, const char* what) {
  if (!fine) {
    fprintf(stderr, "bench-clients: %s: %s\n", what, strerror(errno));
    exit(111);
  }
}

static long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void note_time(struct client* client) {
  const long at = now();
  if (answered == times_room) {
    times_room = times_room == 0 ? 65536 : 2 * times_room;
    times = realloc(times, (size_t)times_room * sizeof *times);
    check(times != NULL, "realloc");
  }
  times[answered] = (unsigned)(at - client->begun);
  if (at >= ends_at) {
    wanted = asked;  // what is in flight is waited for
  }
}

static void give_up(struct client* client) {
  ++failed;
  close(client->fd);
  client->fd = -1;
}

static void ask(struct client* client) {
  if (asked == wanted) {
    return;
  }
  ++asked;
  client->begun = milliseconds > 0 ? now() : 0;
  if (client->fd < 0) {
    client->fd = loopback_socket(0);
    check(client->fd >= 0, "socket");
    if (connect(client->fd, (struct sockaddr*)&server, sizeof server) != 0) {
      give_up(client);
      return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = client}};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) == 0, "epoll_ctl");
  }
  client->missing = answer_length;
  if (send(client->fd, text, text_length, MSG_NOSIGNAL) != (ssize_t)text_length) {
    give_up(client);
  }
}

static void hear(struct client* client) {
  char said[65536];
  const ssize_t size = recv(client->fd, said, sizeof said, MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) {
    return;
  }
  if (size <= 0 || (size_t)size > client->missing) {
    give_up(client);
    ask(client);
    return;
  }
  client->missing -= (size_t)size;
  if (client->missing > 0) {
    return;
  }
  if (milliseconds > 0) {
    note_time(client);
  }
  ++answered;
  if (fresh) {
    close(client->fd);
    client->fd = -1;
  }
  ask(client);
}

static int compare(const void* one, const void* other) {
  const unsigned a = *(const unsigned*)one;
  const unsigned b = *(const unsigned*)other;
  return (a > b) - (a < b);
}

// The smallest that this share of them, in thousandths, does not exceed.
static unsigned percentile(long share) {
  const long rank = (answered * share + 999) / 1000;
  return answered == 0 ? 0 : times[rank > 0 ? rank - 1 : 0];
}

static void tell_times(long begun) {
  const long took = now() - begun;
  if (answered > 0) {
    qsort(times, (size_t)answered, sizeof *times, compare);
  }
  printf("%ld %u %u %u\n", took, percentile(500), percentile(990), percentile(999));
}

static void run(struct client* clients, long count) {
  // Standard input, where it says when to end, is reported as no client.
  struct epoll_event end = {.events = EPOLLIN};
  const long begun = now();
  ends_at = begun + milliseconds * 1000000;
  check(wanted >= 0 || milliseconds > 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &end) == 0,
        "epoll_ctl");
  for (long i = 0; i < count; ++i) {
    ask(&clients[i]);
  }
  while (answered + failed < asked) {
    struct epoll_event events[batch];
    const int ready = epoll_wait(epoll, events, batch, -1);
    for (int i = 0; i < ready; ++i) {
      if (events[i].data.ptr != NULL) {
        hear(events[i].data.ptr);
      } else {
        wanted = asked;  // what is in flight is waited for
        epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
      }
    }
  }
  printf("%ld answered, %ld failed\n", answered, failed);
  if (milliseconds > 0) {
    tell_times(begun);
  }
}

static void hold(struct client* clients, long count) {
  // Nobody waits for what they say: no TIME_WAIT is left behind.
  const struct linger abort_at_close = {.l_onoff = 1, .l_linger = 0};
  for (long i = 0; i < count; ++i) {
    clients[i].fd = loopback_socket(0);
    check(clients[i].fd >= 0 && setsockopt(clients[i].fd, SOL_SOCKET, SO_LINGER, &abort_at_close,
                                           sizeof abort_at_close) == 0,
          "socket");
    check(connect(clients[i].fd, (struct sockaddr*)&server, sizeof server) == 0, "connect");
    // Answered once: the server has accepted it, not just the kernel.
    check(send(clients[i].fd, "\n", 1, MSG_NOSIGNAL) == 1, "send");
  }
  for (long i = 0; i < count; ++i) {
    char byte = 0;
    check(recv(clients[i].fd, &byte, 1, 0) == 1, "recv");
  }
  printf("open\n");
  fflush(stdout);
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
}

int main(int argc, char** argv) {
  const bool idle = argc == 4 && strcmp(argv[1], "idle") == 0;
  fresh = argc == 7 && strcmp(argv[1], "fresh") == 0;
  if (!idle && !fresh && !(argc == 7 && strcmp(argv[1], "kept") == 0)) {
    fprintf(stderr,
            "usage: bench-clients kept|fresh PORT CLIENTS REQUESTS LENGTH TEXT\n"
            "       bench-clients idle PORT CLIENTS\n");
    return 2;
  }
  alarm(time_limit);
  raise_descriptor_limit();

  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  server.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
  const long count = strtol(argv[3], NULL, 10);
  struct client* clients = calloc((size_t)count, sizeof *clients);
  check(clients != NULL, "calloc");
  for (long i = 0; i < count; ++i) {
    clients[i].fd = -1;
  }
  if (idle) {
    hold(clients, count);
    free(clients);
    return 0;
  }
  char* unit = NULL;
  wanted = strtol(argv[4], &unit, 10);
  milliseconds = strcmp(unit, "ms") == 0 ? wanted : 0;
  wanted = *unit == '\0' ? wanted : -1;
  answer_length = strtoul(argv[5], NULL, 10);
  unescape(argv[6], argv[6]);
  text = argv[6];
  text_length = strlen(text);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  check(epoll >= 0, "epoll_create1");
  run(clients, count);
  free(times);
  free(clients);
  return failed == 0 ? 0 : 1;
}
