// One thread and an epoll, in which the library's descriptor says when a successor has come.
//
//   epoll_server 127.0.0.1:8080
#include "lines.h"

#include <continuity/upgrader.h>

#include <array>
#include <cstdio>
#include <fcntl.h>
#include <iostream>
#include <sys/epoll.h>

namespace {

void watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

int main(int argc, char** argv) {
  SocketUpgrader upgrader;
  const int sock = upgrader.listen(argc > 1 ? argv[1] : "127.0.0.1:8080");
  if (sock < 0 || !upgrader.ready()) {
    std::cerr << upgrader.error() << '\n';
    return 1;
  }
  // Only now: until ready() the socket was the predecessor's as well.
  fcntl(sock, F_SETFL, O_NONBLOCK);
  const int event = upgrader.event_descriptor();
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, sock);
  watch(epoll, event);
  say_listening();

  int connections = 0;
  while (!upgrader.has_completed() || connections > 0) {
    std::array<epoll_event, 64> ready{};
    const int count = epoll_wait(epoll, ready.data(), static_cast<int>(ready.size()), -1);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[static_cast<std::size_t>(i)].data.fd;
      if (fd == event) {
        const auto outcome = upgrader.outcome();
        std::printf("state %d, successor %d\n", static_cast<int>(outcome.state),
                    static_cast<int>(outcome.successor));
        if (outcome.state == continuity::UpgradeState::completed) {
          epoll_ctl(epoll, EPOLL_CTL_DEL, sock, nullptr);  // nobody comes here any more
        }
      } else if (fd == sock) {
        const int client = accept(sock, nullptr, nullptr);
        if (client >= 0) {
          ++connections;
          watch(epoll, client);
        }
      } else if (answer(fd) == 0) {
        --connections;
        close(fd);
      }
    }
  }
}
