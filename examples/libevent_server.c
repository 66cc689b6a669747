/* libevent, whose listener adopts the descriptor.
 *
 *   libevent_server 127.0.0.1:8080
 */
#include "lines.h"

#include <continuity.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>

struct server {
  struct continuity_upgrader* upgrader;
  struct event_base* base;
  struct evconnlistener* listener;
  struct event* changed;
};

static void on_readable(evutil_socket_t client, short what, void* event) {
  (void)what;
  if (answer(client) == 0) {
    event_free(*(struct event**)event);
    free(event);
    close(client);
  }
}

static void on_client(struct evconnlistener* listener, evutil_socket_t client,
                      struct sockaddr* address, int length, void* server) {
  struct event** event = malloc(sizeof *event);
  (void)listener, (void)address, (void)length;
  *event =
      event_new(((struct server*)server)->base, client, EV_READ | EV_PERSIST, on_readable, event);
  event_add(*event, NULL);
}

/* A successor has taken over, has succeeded, or has failed. */
static void on_change(evutil_socket_t fd, short what, void* told) {
  struct server* server = told;
  struct continuity_outcome outcome = {.size = sizeof outcome};
  (void)fd, (void)what;
  continuity_get_outcome(server->upgrader, &outcome);
  if (outcome.state == CONTINUITY_COMPLETED) {
    /* The loop runs until the last connection has ended. */
    evconnlistener_free(server->listener);
    event_free(server->changed);
  }
}

int main(int argc, char** argv) {
  struct server server;
  server.upgrader = continuity_open(NULL);
  const char* address = argc > 1 ? argv[1] : "127.0.0.1:8080";
  const int sock = continuity_listen(server.upgrader, address, SOMAXCONN);
  if (sock < 0 || continuity_ready(server.upgrader) != 0) {
    fprintf(stderr, "%s\n", continuity_error());
    return 1;
  }
  evutil_make_socket_nonblocking(sock);
  server.base = event_base_new();
  /* Backlog 0: it listens already. */
  server.listener = evconnlistener_new(server.base, on_client, &server,
                                       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, sock);
  server.changed = event_new(server.base, continuity_event_descriptor(server.upgrader),
                             EV_READ | EV_PERSIST, on_change, &server);
  event_add(server.changed, NULL);
  say_listening();
  event_base_dispatch(server.base);
  event_base_free(server.base);
  continuity_close(server.upgrader);
  return 0;
}
