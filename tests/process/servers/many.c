// many-server [--datagrams] COUNT PORT [NUMBER]: listens on that many addresses,
// 127.1.0.1:PORT and on, and answers every line, or datagram TEXT, with "pid=4711", or
// "TEXT pid=4711". It allows itself the descriptors that it needs. With NUMBER that is the
// lowest which a listener has.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { most_seconds = 120, spare_descriptors = 64, hosts_each = 250, some_events = 64 };

#ifdef KB_OF_EACH_THREAD
static _Thread_local volatile char of_each_thread[KB_OF_EACH_THREAD * 1024];
#endif
static bool datagrams;

static void check(int good, const char* what) {
  if (!good) {
    perror(what);
    exit(1);
  }
}

static int move_up(int fd, int lowest) {
  const int moved = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
  check(moved >= 0, "fcntl");
  close(fd);
  return moved;
}

static int listen_on(int index, in_port_t port) {
  const int on = 1;
  const int type = datagrams ? SOCK_DGRAM : SOCK_STREAM;
  const int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  check(fd >= 0, "socket");
  if (!datagrams) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  const uint32_t host =
      0x7f010001U + (uint32_t)(index / hosts_each) * 256U + (uint32_t)(index % hosts_each);
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
  check(bind(fd, (const struct sockaddr*)&address, sizeof address) == 0, "bind");
  check(datagrams || listen(fd, 16) == 0, "listen");
  return fd;
}

static void serve(int listener) {
  const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  char line[64];
  if (fd < 0) {
    return;
  }
  if (read(fd, line, sizeof line) > 0) {
    dprintf(fd, "pid=%d\n", (int)getpid());
  }
  close(fd);
}

static void answer(int fd) {
  char text[128];
  struct sockaddr_in peer;
  socklen_t length = sizeof peer;
  enum { own_part = 32 };
  const ssize_t size =
      recvfrom(fd, text, sizeof text - own_part, 0, (struct sockaddr*)&peer, &length);
  if (size >= 0) {
    const int more = snprintf(text + size, own_part, " pid=%d", (int)getpid());
    sendto(fd, text, (size_t)(size + more), 0, (struct sockaddr*)&peer, length);
  }
}

int main(int argc, char** argv) {
  datagrams = argc > 1 && strcmp(argv[1], "--datagrams") == 0;
  argv += datagrams ? 1 : 0;
  argc -= datagrams ? 1 : 0;
  if (argc != 3 && argc != 4) {
    return 2;
  }
  alarm(most_seconds);
#ifdef KB_OF_EACH_THREAD
  of_each_thread[0] = 1;
#endif
  const int count = atoi(argv[1]);
  const int lowest = argc == 4 ? atoi(argv[3]) : 0;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = (rlim_t)(lowest + count) + spare_descriptors;
  check(setrlimit(RLIMIT_NOFILE, &files) == 0, "setrlimit");

  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < count; ++i) {
    int fd = listen_on(i, (in_port_t)atoi(argv[2]));
    if (lowest > 0) {
      fd = move_up(fd, lowest);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
  }
  printf("listening pid=%d\n", (int)getpid());
  fflush(stdout);
  for (;;) {
    struct epoll_event events[some_events];
    const int ready = epoll_wait(epoll, events, some_events, -1);
    for (int i = 0; i < ready; ++i) {
      (datagrams ? answer : serve)(events[i].data.fd);
    }
  }
}
