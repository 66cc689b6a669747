// What does a call cost through the library, compared with the call itself?
//
// A few nanoseconds against calls of a few hundred: two processes differ by more
// than that from run to run. So both ways are timed in one process, on the same
// descriptors, batch by batch in turn: the function the program is bound to (the
// wrapper, when the library is loaded) and the one inside libc, which dlsym finds
// behind it. Without the library they are the same, and the difference shows what
// this method cannot see.
//
//   bench-calls [--blocking] [BATCHES]
//
// The listener has settled before anything is timed: bound, listening, waited on.
// With --blocking it is a blocking one that was never polled, as in a server with a
// thread that sits in accept. Prints a line for each call: its name, and in
// nanoseconds the median of the calls as bound, of the real ones, and of the
// differences between neighbouring batches.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  few = 8,  // calls in a batch that uses its descriptors up
  many = 200,
  max_batches = 10000,
  time_limit = 120,  // seconds
};

struct calls {
  int (*accept)(int, struct sockaddr*, socklen_t*);
  int (*accept4)(int, struct sockaddr*, socklen_t*, int);
  int (*close)(int);
  int (*epoll_wait)(int, struct epoll_event*, int, int);
  int (*fcntl)(int, int, ...);
  int (*poll)(struct pollfd*, nfds_t, int);
  ssize_t (*read)(int, void*, size_t);
  int (*setsockopt)(int, int, int, const void*, socklen_t);
  ssize_t (*write)(int, const void*, size_t);
};

static struct calls bound, real;

static int listener, epoll, event, connection, client_of_it, epoll_of_it;
static int clients[few], accepted[few];

static void check(bool fine, const char* what) {
  if (!fine) {
    fprintf(stderr, "bench-calls: %s: %s\n", what, strerror(errno));
    exit(111);
  }
}

// ---- The calls --------------------------------------------------------------------

static int connect_client(void) {
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  check(getsockname(listener, (struct sockaddr*)&address, &length) == 0, "getsockname");
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  check(client >= 0, "socket");
  // Nobody waits for what it says: no TIME_WAIT is left behind.
  const struct linger abort_at_close = {.l_onoff = 1, .l_linger = 0};
  setsockopt(client, SOL_SOCKET, SO_LINGER, &abort_at_close, sizeof abort_at_close);
  check(connect(client, (struct sockaddr*)&address, length) == 0, "connect");
  return client;
}

static void connect_clients(void) {
  for (int i = 0; i < few; ++i) {
    clients[i] = connect_client();
  }
}

static void accept_batch(const struct calls* with) {
  for (int i = 0; i < few; ++i) {
    accepted[i] = with->accept(listener, NULL, NULL);
  }
}

static void accept4_batch(const struct calls* with) {
  for (int i = 0; i < few; ++i) {
    accepted[i] = with->accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  }
}

static void close_connections(void) {
  for (int i = 0; i < few; ++i) {
    check(accepted[i] >= 0, "accept");
    real.close(clients[i]);
    real.close(accepted[i]);
  }
}

// Copies of one file: closing them ends nothing, so the call itself is all there is.
static void open_copies(void) {
  for (int i = 0; i < few; ++i) {
    accepted[i] = dup(event);
  }
}

static void close_batch(const struct calls* with) {
  for (int i = 0; i < few; ++i) {
    with->close(accepted[i]);
  }
}

static void copies_are_closed(void) {
  check(fcntl(accepted[few - 1], F_GETFD) == -1 && errno == EBADF, "close");
}

static void epoll_batch(const struct calls* with) {
  struct epoll_event events[8];
  int ready = 0;
  for (int i = 0; i < many; ++i) {
    ready += with->epoll_wait(epoll, events, 8, -1);
  }
  check(ready == many, "epoll_wait");
}

static void poll_batch(const struct calls* with) {
  struct pollfd fds[] = {{.fd = event, .events = POLLIN}, {.fd = connection, .events = POLLIN}};
  int ready = 0;
  for (int i = 0; i < many; ++i) {
    ready += with->poll(fds, 2, -1);
  }
  check(ready == many, "poll");
}

static void poll_listener_batch(const struct calls* with) {
  struct pollfd fds[] = {{.fd = event, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
  int ready = 0;
  for (int i = 0; i < many; ++i) {
    ready += with->poll(fds, 2, -1);
  }
  check(ready == many, "poll");
}

static void fcntl_batch(const struct calls* with) {
  for (int i = 0; i < many; ++i) {
    with->fcntl(connection, F_GETFL, 0);
  }
}

static void setsockopt_batch(const struct calls* with) {
  const int on = 1;
  for (int i = 0; i < many; ++i) {
    with->setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
}

// The smallest that a server answers, its client's two calls among them.
static void request_batch(const struct calls* with) {
  char said[100] = "";
  struct epoll_event events[8];
  for (int i = 0; i < many; ++i) {
    check(real.write(client_of_it, said, sizeof said) == sizeof said, "write");
    check(with->epoll_wait(epoll_of_it, events, 8, -1) == 1, "epoll_wait");
    check(with->read(connection, said, sizeof said) == sizeof said, "read");
    check(with->write(connection, said, sizeof said) == sizeof said, "write");
    check(real.read(client_of_it, said, sizeof said) == sizeof said, "read");
  }
}

static void nothing(void) {}

struct measure {
  const char* name;
  int calls;
  void (*prepare)(void);
  void (*batch)(const struct calls*);
  void (*clean)(void);
};

static const struct measure measures[] = {
    {"accept", few, connect_clients, accept_batch, close_connections},
    {"accept4", few, connect_clients, accept4_batch, close_connections},
    {"close", few, open_copies, close_batch, copies_are_closed},
    {"epoll_wait", many, nothing, epoll_batch, nothing},
    {"poll", many, nothing, poll_batch, nothing},
    {"fcntl", many, nothing, fcntl_batch, nothing},
    {"setsockopt", many, nothing, setsockopt_batch, nothing},
    {"request", many, nothing, request_batch, nothing},
    // What the blocking listener is not to see comes last.
    {"poll-listener", many, nothing, poll_listener_batch, nothing},
};
enum { all_measures = sizeof measures / sizeof *measures, measures_if_blocking = 8 };

// ---- Timing -----------------------------------------------------------------------

static double time_batch(const struct measure* measure, const struct calls* with) {
  struct timespec begin, end;
  measure->prepare();
  clock_gettime(CLOCK_MONOTONIC, &begin);
  measure->batch(with);
  clock_gettime(CLOCK_MONOTONIC, &end);
  measure->clean();
  const double seconds = (double)(end.tv_sec - begin.tv_sec);
  return (seconds * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) / measure->calls;
}

static int compare(const void* one, const void* other) {
  const double a = *(const double*)one;
  const double b = *(const double*)other;
  return (a > b) - (a < b);
}

static double median(double* values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return (values[count / 2] + values[(count - 1) / 2]) / 2;
}

static void take(const struct measure* measure, int batches) {
  static double as_bound[max_batches], as_real[max_batches], difference[max_batches];
  for (int i = -1; i < batches; ++i) {
    // The one that comes first finds colder caches: they take turns.
    const bool bound_first = i % 2 == 0;
    const double first = time_batch(measure, bound_first ? &bound : &real);
    const double second = time_batch(measure, bound_first ? &real : &bound);
    if (i >= 0) {
      as_bound[i] = bound_first ? first : second;
      as_real[i] = bound_first ? second : first;
      difference[i] = as_bound[i] - as_real[i];
    }
  }
  printf("%s %.2f %.2f %.2f\n", measure->name, median(as_bound, batches), median(as_real, batches),
         median(difference, batches));
}

// ---- The process --------------------------------------------------------------------

static void find_calls(void) {
  void* libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  check(libc != NULL, "libc.so.6");
#define FIND(name)                                \
  do {                                            \
    void* address = dlsym(libc, #name);           \
    bound.name = name;                            \
    check(address != NULL, #name);                \
    memcpy(&real.name, &address, sizeof address); \
  } while (0)
  FIND(accept);
  FIND(accept4);
  FIND(close);
  FIND(epoll_wait);
  FIND(fcntl);
  FIND(poll);
  FIND(read);
  FIND(setsockopt);
  FIND(write);
#undef FIND
}

static void settle_listener(bool blocking) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  listener = socket(AF_INET, SOCK_STREAM | (blocking ? 0 : SOCK_NONBLOCK), 0);
  check(listener >= 0 && bind(listener, (struct sockaddr*)&address, sizeof address) == 0 &&
            listen(listener, 2 * few) == 0,
        "listener");
  event = eventfd(1, 0);
  epoll = epoll_create1(0);
  struct epoll_event about = {.events = EPOLLIN};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, event, &about) == 0, "epoll_ctl");
  client_of_it = connect_client();
  if (!blocking) {
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &about) == 0, "epoll_ctl");
    check(epoll_wait(epoll, &about, 1, -1) == 1, "epoll_wait");
  }
  connection = accept(listener, NULL, NULL);
  check(connection >= 0, "accept");
  epoll_of_it = epoll_create1(0);
  check(epoll_ctl(epoll_of_it, EPOLL_CTL_ADD, connection, &about) == 0, "epoll_ctl");
}

int main(int argc, char** argv) {
  const bool blocking = argc > 1 && strcmp(argv[1], "--blocking") == 0;
  const int given = blocking ? 2 : 1;
  const int batches = argc > given ? atoi(argv[given]) : 1000;
  if (argc > given + 1 || batches < 1 || batches > max_batches) {
    fprintf(stderr, "usage: bench-calls [--blocking] [BATCHES]\n");
    return 2;
  }
  alarm(time_limit);
  find_calls();
  settle_listener(blocking);
  for (int i = 0; i < (blocking ? measures_if_blocking : all_measures); ++i) {
    take(&measures[i], batches);
  }
  return 0;
}
