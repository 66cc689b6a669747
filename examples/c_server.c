/* In C, with poll; and a new run is started from inside, on SIGHUP.
 *
 *   c_server 127.0.0.1:8080        and to restart it: the same line again, or kill -HUP
 */
#include "lines.h"

#include <continuity.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>

enum { most_sockets = 256 };

static volatile sig_atomic_t g_upgrade = 0;

static void on_hangup(int number) {
  (void)number;
  g_upgrade = 1;
}

static void say_outcome(struct continuity_upgrader* upgrader) {
  struct continuity_outcome outcome = {.size = sizeof outcome};
  continuity_get_outcome(upgrader, &outcome);
  printf("state %d, successor %d, deaf for %.3f ms\n", outcome.state, (int)outcome.successor,
         (double)outcome.switch_ns / 1e6);
  fflush(stdout);
}

static void serve(struct continuity_upgrader* upgrader, int sock) {
  struct pollfd sockets[most_sockets] = {
      {.fd = sock, .events = POLLIN},
      {.fd = continuity_event_descriptor(upgrader), .events = POLLIN}};
  nfds_t count = 2;
  while (!continuity_has_completed(upgrader) || count > 2) {
    if (g_upgrade) {
      g_upgrade = 0;
      if (continuity_upgrade(upgrader, NULL, 0) < 0) {
        fprintf(stderr, "%s\n", continuity_error());
      }
    }
    if (poll(sockets, count, -1) < 0) {
      continue; /* a signal */
    }
    if (sockets[1].revents != 0) {
      say_outcome(upgrader);
    }
    for (nfds_t i = count - 1; i >= 2; --i) {
      if (sockets[i].revents != 0 && answer(sockets[i].fd) == 0) {
        close(sockets[i].fd);
        sockets[i] = sockets[--count];
      }
    }
    if (sockets[0].revents != 0 && count < most_sockets) {
      const int client = accept(sock, NULL, NULL);
      if (client >= 0) {
        sockets[count++] = (struct pollfd){.fd = client, .events = POLLIN};
      } else if (continuity_has_completed(upgrader)) {
        sockets[0].fd = -1; /* nobody comes here any more */
      }
    }
  }
}

int main(int argc, char** argv) {
  struct continuity_upgrader* upgrader = continuity_open(NULL);
  const int sock = continuity_listen(upgrader, argc > 1 ? argv[1] : "127.0.0.1:8080", SOMAXCONN);
  if (sock < 0 || continuity_ready(upgrader) != 0) {
    fprintf(stderr, "%s\n", continuity_error());
    return 1;
  }
  fcntl(sock, F_SETFL, O_NONBLOCK);
  signal(SIGHUP, on_hangup);
  say_listening();
  serve(upgrader, sock);
  continuity_close(upgrader);
  return 0;
}
