/* A server in C that asks, with an event loop of its own: what continuity.h promises, used.
 * Every line is answered by "pid=PID". What happens to it is said, one line an event:
 *
 *   asking-poll [--hold] [--name NAME] [--probation MS] [--signal NUMBER] [--bind-first PORT]
 *     [--state NAME] ADDRESS...
 *
 * and on standard input it is told: "die" ends it at once; "upgrade" makes it start a new
 * run of itself, "upgrade PROGRAM" one of that program; "get ADDRESS" makes it ask for one
 * more listener. Of addresses, "drop=ADDRESS" is got and closed again, "move=ADDRESS" goes on
 * under another number, and "v6only=PORT" is a socket of its own that is registered.
 */
#include "continuity.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { most_sockets = 64, first_of_clients = 10 };

struct server {
  struct continuity_upgrader* upgrader;
  struct pollfd sockets[most_sockets]; /* input, event, listeners, and clients */
  nfds_t count;
  int clients;
  pthread_t upgrading;
  bool upgrades;
  char program[64]; /* to upgrade to; empty: itself */
};

static void say(const char* text) {
  char line[512];
  const int size = snprintf(line, sizeof line, "%s\n", text);
  if (write(STDOUT_FILENO, line, (size_t)size) != size) {
    _exit(3);
  }
}

static void fail(const char* what) {
  char line[512];
  snprintf(line, sizeof line, "%s %s: %s", what, strerrorname_np(errno), continuity_error());
  say(line);
  exit(1);
}

static void on_success(int number) {
  (void)number;
  say("told of success");
}

static void watch(struct server* server, nfds_t place, int fd) {
  server->sockets[place].fd = fd;
  server->sockets[place].events = POLLIN;
  server->sockets[place].revents = 0;
  if (place >= server->count) {
    server->count = place + 1;
  }
}

/* "TEXT" by "TEXT pid=PID", and not at once: there is time for a restart in between. */
static void answer_datagram(int sock) {
  char text[300];
  struct sockaddr_storage peer;
  socklen_t length = sizeof peer;
  const struct timespec moment = {.tv_nsec = 200000};
  const ssize_t size = recvfrom(sock, text, 256, 0, (struct sockaddr*)&peer, &length);
  if (size > 0) {
    const int end = snprintf(text + size, 32, " pid=%d", (int)getpid());
    nanosleep(&moment, NULL);
    if (sendto(sock, text, (size_t)(size + end), 0, (struct sockaddr*)&peer, length) < 0) {
      fail("sendto");
    }
  }
}

static void welcome(struct server* server, int listener) {
  int type = 0;
  socklen_t size = sizeof type;
  getsockopt(listener, SOL_SOCKET, SO_TYPE, &type, &size);
  if (type == SOCK_DGRAM) {
    answer_datagram(listener);
    return;
  }
  const int client = accept(listener, NULL, NULL);
  nfds_t place = first_of_clients;
  if (client < 0) {
    return;
  }
  while (place < server->count && server->sockets[place].fd >= 0) {
    ++place;
  }
  if (place == most_sockets) {
    close(client);
    return;
  }
  watch(server, place, client);
  ++server->clients;
}

static void answer(struct server* server, struct pollfd* client) {
  char buffer[256];
  char text[32];
  const int length = snprintf(text, sizeof text, "pid=%d\n", (int)getpid());
  const ssize_t size = recv(client->fd, buffer, sizeof buffer, 0);
  if (size <= 0) {
    close(client->fd);
    client->fd = -1;
    --server->clients;
    return;
  }
  for (ssize_t i = 0; i < size; ++i) {
    if (buffer[i] == '\n') {
      send(client->fd, text, (size_t)length, MSG_NOSIGNAL);
    }
  }
}

static void tell_outcome(struct server* server) {
  static const char* const states[] = {"serving",   "starting",    "taken over",
                                       "completed", "rolled back", "failed"};
  struct continuity_outcome outcome;
  char line[256];
  outcome.size = sizeof outcome;
  if (continuity_get_outcome(server->upgrader, &outcome) != 0) {
    fail("outcome");
  }
  snprintf(line, sizeof line, "%s successor=%d start=%lld switch=%lld lived=%lld predecessor=%d",
           states[outcome.state], (int)outcome.successor, (long long)outcome.start_ns,
           (long long)outcome.switch_ns, (long long)outcome.lived_ns, (int)outcome.predecessor);
  say(line);
}

/* The loop must go on meanwhile. */
static void* upgrade(void* told) {
  struct server* server = told;
  const char* const other[] = {server->program, NULL};
  char line[512];
  const pid_t pid =
      continuity_upgrade(server->upgrader, server->program[0] == 0 ? NULL : other, -1);
  if (pid > 0) {
    snprintf(line, sizeof line, "upgraded to pid=%d", (int)pid);
  } else {
    snprintf(line, sizeof line, "upgrade %s: %s", strerrorname_np(errno), continuity_error());
  }
  say(line);
  return NULL;
}

static void use(struct server* server, int sock) {
  nfds_t place = 2;
  fcntl(sock, F_SETFL, O_NONBLOCK);
  while (server->sockets[place].fd >= 0) {
    ++place;
  }
  watch(server, place, sock);
}

static void get(struct server* server, const char* address) {
  const int sock = continuity_get_listener(server->upgrader, address);
  char line[512];
  if (sock >= 0) {
    use(server, sock);
    say("got");
  } else {
    snprintf(line, sizeof line, "get %s: %s", strerrorname_np(errno), continuity_error());
    say(line);
  }
}

static void obey(struct server* server) {
  char order[64] = "";
  char address[64];
  const ssize_t size = read(STDIN_FILENO, order, sizeof order - 1);
  server->program[0] = 0;
  if (size <= 0) {
    server->sockets[0].fd = -1;
  } else if (strncmp(order, "die", 3) == 0) {
    _exit(9);
  } else if (sscanf(order, "get %63s", address) == 1) {
    get(server, address);
  } else if (sscanf(order, "upgrade%63s", server->program) != 0) {
    pthread_create(&server->upgrading, NULL, upgrade, server);
    server->upgrades = true;
  }
}

/* The pids of all runs so far, in a file without a name that is handed on. */
static void append_state(struct server* server, const char* name) {
  char line[512] = "state:";
  int fd = continuity_get_descriptor(server->upgrader, name);
  if (fd < 0) {
    fd = memfd_create(name, MFD_CLOEXEC);
    if (errno != ENOENT || continuity_register_descriptor(server->upgrader, name, fd) != 0) {
      fail("state");
    }
  }
  dprintf(fd, " %d", (int)getpid());
  pread(fd, line + strlen(line), sizeof line - strlen(line) - 1, 0);
  say(line);
}

static void serve(struct server* server) {
  while (!continuity_has_completed(server->upgrader) || server->clients > 0) {
    if (poll(server->sockets, server->count, -1) < 0) {
      continue; /* EINTR */
    }
    if (server->sockets[0].revents != 0) {
      obey(server);
    }
    if (server->sockets[1].revents != 0) {
      tell_outcome(server);
    }
    for (nfds_t i = 2; i < server->count; ++i) {
      if (server->sockets[i].revents == 0) {
        continue;
      }
      if (i < first_of_clients) {
        welcome(server, server->sockets[i].fd);
      } else {
        answer(server, &server->sockets[i]);
      }
    }
  }
}

static const char* state = NULL;
static bool holds = false;

static int choose(int argc, char** argv, struct continuity_options* options) {
  int next = 1;
  continuity_options_init(options);
  if (argc > 1 && strcmp(argv[1], "--hold") == 0) {
    holds = true;
    ++next;
  }
  for (; next + 1 < argc && argv[next][0] == '-'; next += 2) {
    if (strcmp(argv[next], "--name") == 0) {
      options->name = argv[next + 1];
    } else if (strcmp(argv[next], "--probation") == 0) {
      options->probation_ms = atoi(argv[next + 1]);
    } else if (strcmp(argv[next], "--signal") == 0) {
      options->success_signal = atoi(argv[next + 1]);
      signal(options->success_signal, on_success);
    } else if (strcmp(argv[next], "--state") == 0) {
      state = argv[next + 1];
    } else if (strcmp(argv[next], "--bind-first") == 0) {
      const struct sockaddr_in any = {.sin_family = AF_INET,
                                      .sin_port = htons((in_port_t)atoi(argv[next + 1]))};
      const int sock = socket(AF_INET, SOCK_STREAM, 0);
      const int on = 1;
      setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      if (bind(sock, (const struct sockaddr*)&any, sizeof any) != 0 || listen(sock, 1) != 0) {
        fail("bind");
      }
    }
  }
  return next;
}

static int listen_v6only(struct server* server, int port) {
  const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((in_port_t)port)};
  char address[64];
  const int on = 1;
  snprintf(address, sizeof address, "[::]:%d", port);
  int sock = continuity_get_listener(server->upgrader, address);
  if (sock < 0) {
    sock = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(sock, (const struct sockaddr*)&any, sizeof any) != 0 || listen(sock, 64) != 0 ||
        continuity_register_listener(server->upgrader, sock) != 0) {
      return -1;
    }
  }
  return sock;
}

/* -1 also if it is not to be used. */
static int listen_at(struct server* server, const char* argument) {
  const char* const address = strchr(argument, '=') != NULL ? strchr(argument, '=') + 1 : argument;
  const int sock = strncmp(argument, "v6only=", 7) == 0
                       ? listen_v6only(server, atoi(address))
                       : continuity_listen(server->upgrader, address, 64);
  int moved = sock;
  if (sock < 0) {
    fail("listen");
  }
  if (strncmp(argument, "move=", 5) == 0) {
    moved = fcntl(sock, F_DUPFD_CLOEXEC, 100);
    close(sock);
  } else if (strncmp(argument, "drop=", 5) == 0) {
    moved = -1;
    close(sock);
  }
  return moved;
}

int main(int argc, char** argv) {
  struct server server = {
      .upgrader = NULL, .count = 0, .clients = 0, .upgrades = false, .program = ""};
  struct continuity_options options;
  int next = choose(argc, argv, &options);
  alarm(240); /* outlives no test */
  for (nfds_t i = 0; i < most_sockets; ++i) {
    server.sockets[i].fd = -1;
  }
  server.upgrader = continuity_open(&options);
  watch(&server, 0, STDIN_FILENO);
  watch(&server, 1, continuity_event_descriptor(server.upgrader));
  if (state != NULL) {
    append_state(&server, state);
  }
  for (nfds_t place = 2; next < argc; ++next, ++place) {
    watch(&server, place, listen_at(&server, argv[next]));
  }
  if (holds) { /* until it is told to go on */
    char told[16];
    say("holding");
    if (read(STDIN_FILENO, told, sizeof told) < 0) {
      fail("read");
    }
  }
  if (continuity_ready(server.upgrader) != 0) {
    fail("ready");
  }
  char line[64];
  snprintf(line, sizeof line, "listening pid=%d", (int)getpid());
  say(line);
  /* Not before: until then the socket is the predecessor's as well. A poll may say that
   * somebody is there when a successor has him already. */
  for (nfds_t i = 2; i < first_of_clients; ++i) {
    if (server.sockets[i].fd >= 0) {
      fcntl(server.sockets[i].fd, F_SETFL, O_NONBLOCK);
    }
  }
  serve(&server);
  if (server.upgrades) {
    pthread_join(server.upgrading, NULL);
  }
  continuity_close(server.upgrader);
  return 0;
}
