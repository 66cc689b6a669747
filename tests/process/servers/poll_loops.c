// Event loops of one thread, by poll and by select.
#include "tiny.h"

#include <poll.h>
#include <sys/select.h>
#include <unistd.h>

enum { max_watched = 256 };

static void run_poll_loop(void) {
  struct pollfd watched[max_watched];
  int count = 0;
  for (; count < listener_count; ++count) {
    watched[count] = (struct pollfd){.fd = listeners[count], .events = POLLIN};
  }
  for (;;) {
    poll(watched, (nfds_t)count, -1);
    for (int i = count - 1; i >= 0; --i) {
      if (watched[i].revents == 0) {
        continue;
      }
      if (i < listener_count) {
        int connection = accept_connection(watched[i].fd);
        if (connection >= 0) {
          watched[count++] = (struct pollfd){.fd = connection, .events = POLLIN};
        }
      } else if (!serve_some(watched[i].fd)) {
        close(watched[i].fd);
        watched[i] = watched[--count];
      }
    }
  }
}

// A connection may be gone, or somebody else's, between poll and accept.
void poll_loop(void) {
  for (int i = 0; i < listener_count; ++i) {
    set_nonblocking(listeners[i]);
  }
  run_poll_loop();
}

void poll_blocking_listener(void) {
  run_poll_loop();
}

void select_loop(void) {
  fd_set watched;
  FD_ZERO(&watched);
  for (int i = 0; i < listener_count; ++i) {
    set_nonblocking(listeners[i]);
    FD_SET(listeners[i], &watched);
  }
  for (;;) {
    fd_set ready = watched;
    select(FD_SETSIZE, &ready, NULL, NULL, NULL);
    for (int fd = 0; fd < FD_SETSIZE; ++fd) {
      if (!FD_ISSET(fd, &ready)) {
        continue;
      }
      bool is_listener = false;
      for (int i = 0; i < listener_count; ++i) {
        is_listener |= fd == listeners[i];
      }
      if (is_listener) {
        int connection = accept_connection(fd);
        if (connection >= 0) {
          FD_SET(connection, &watched);
        }
      } else if (!serve_some(fd)) {
        FD_CLR(fd, &watched);
        close(fd);
      }
    }
  }
}
