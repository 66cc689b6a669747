// A server that has as many descriptors as it may, once.
//
//   filling-server LIMIT accepts|connects 127.0.0.1:PORT
//
// LIMIT is its soft limit of descriptors. It connects to itself, and accepts that or does not,
// until it may have no more; says how many it had in all, closes them, and answers every line
// that it is sent by "pid=PID".
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char* what) {
  perror(what);
  exit(1);
}

// All that have been made after this one: none has a number from `limit` on.
static void close_later_than(int fd, int limit) {
  while (++fd < limit) {
    close(fd);
  }
}

static int connect_to(const struct sockaddr_in* address) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd >= 0 && connect(fd, (const struct sockaddr*)address, sizeof *address) != 0 &&
      errno != EINPROGRESS) {
    fail("connect");
  }
  return fd;
}

static void serve(int listener) {
  char line[64];
  struct pollfd waiting = {.fd = listener, .events = POLLIN};
  for (;;) {
    if (poll(&waiting, 1, -1) <= 0) {
      continue;
    }
    int client = accept(listener, NULL, NULL);
    if (client >= 0 && read(client, line, sizeof line) > 0) {
      dprintf(client, "pid=%d\n", (int)getpid());
    }
    if (client >= 0) {
      close(client);
    }
  }
}

int main(int argc, char** argv) {
  if (argc != 4 || strchr(argv[3], ':') == NULL) {
    fputs("usage: filling-server LIMIT accepts|connects 127.0.0.1:PORT\n", stderr);
    return 2;
  }
  int most = atoi(argv[1]);
  bool accepts = strcmp(argv[2], "accepts") == 0;
  struct rlimit limit;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons((in_port_t)atoi(strchr(argv[3], ':') + 1));
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = (rlim_t)most;
  int on = 1;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 ||
      setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(listener, (struct sockaddr*)&address, sizeof address) != 0 ||
      listen(listener, 4096) != 0) {
    fail("listen");
  }
  struct pollfd waiting = {.fd = listener, .events = POLLIN};
  if (poll(&waiting, 1, 0) < 0) {  // it is served by whatever it runs under from here on
    fail("poll");
  }
  int had = 0;
  for (int fd = connect_to(&address); fd >= 0; fd = connect_to(&address)) {
    ++had;
    if (accepts) {
      had += accept(listener, NULL, NULL) >= 0;
    }
  }
  if (errno != EMFILE) {
    fail("socket");
  }
  close_later_than(listener, most);
  printf("had=%d\n", had);
  fflush(stdout);
  serve(listener);
}
