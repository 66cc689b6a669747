// Clients for measurements: what each does is fixed, so that two runs ask the same of
// two servers. One thread, so that it takes as little as possible of the machine.
//
//   bench-clients kept  PORT CLIENTS REQUESTS LENGTH TEXT   one connection a client
//   bench-clients fresh PORT CLIENTS REQUESTS LENGTH TEXT   one connection a request
//   bench-clients idle  PORT CLIENTS                        connections, no requests
//
// A request is TEXT, with \r and \n understood; its answer has LENGTH bytes. REQUESTS
// may be "endless": until standard input ends. "idle" says "open" when all are, and
// holds them until standard input ends. At the end of the others: "N answered, N failed".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  time_limit = 300,  // seconds
  batch = 64,
};

struct client {
  int fd;
  size_t missing;  // of the answer
};

static struct sockaddr_in server = {.sin_family = AF_INET};
static bool fresh;
static size_t answer_length, text_length;
static const char* text;
static long asked, answered, failed, wanted;  // wanted < 0: endless
static int epoll;

static void check(bool fine, const char* what) {
  if (!fine) {
    fprintf(stderr, "bench-clients: %s: %s\n", what, strerror(errno));
    exit(111);
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
  if (client->fd < 0) {
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
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
  ++answered;
  if (fresh) {
    close(client->fd);
    client->fd = -1;
  }
  ask(client);
}

static void unescape(char* to, const char* from) {
  for (; *from != '\0'; ++from) {
    if (from[0] == '\\' && (from[1] == 'r' || from[1] == 'n')) {
      *to++ = *++from == 'r' ? '\r' : '\n';
    } else {
      *to++ = *from;
    }
  }
  *to = '\0';
}

static void run(struct client* clients, long count) {
  // Standard input, where it says when to end, is reported as no client.
  struct epoll_event end = {.events = EPOLLIN};
  check(wanted >= 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &end) == 0, "epoll_ctl");
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
}

static void hold(struct client* clients, long count) {
  // Nobody waits for what they say: no TIME_WAIT is left behind.
  const struct linger abort_at_close = {.l_onoff = 1, .l_linger = 0};
  for (long i = 0; i < count; ++i) {
    clients[i].fd = socket(AF_INET, SOCK_STREAM, 0);
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
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

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
  wanted = strcmp(argv[4], "endless") == 0 ? -1 : strtol(argv[4], NULL, 10);
  answer_length = strtoul(argv[5], NULL, 10);
  unescape(argv[6], argv[6]);
  text = argv[6];
  text_length = strlen(text);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  check(epoll >= 0, "epoll_create1");
  run(clients, count);
  free(clients);
  return failed == 0 ? 0 : 1;
}
