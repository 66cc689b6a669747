// A library that a server is linked with is initialised before a preloaded one:
// its constructor calls what is wrapped before the wrappers' own constructor
// has run. (jemalloc does so in redis-server.)
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

__attribute__((constructor)) static void use_sockets_early(void) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(fd, (struct sockaddr*)&any, sizeof any) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
      accept(fd, NULL, NULL) != -1) {
    abort();
  }
  struct pollfd watched = {.fd = fd, .events = POLLIN};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN};
  if (poll(&watched, 1, 0) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0 ||
      epoll_wait(epoll, &event, 1, 0) < 0 || close(epoll) != 0 || close(fd) != 0) {
    abort();
  }
}
