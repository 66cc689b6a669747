// A client that opens a connection at every tick, whatever has become of those before:
// so what a server leaves waiting is counted for each connection that waits, and the
// longest time without an answer is seen to within a tick.
//
//   bench-paced PORT MICROSECONDS TEXT
//
// Each connection to 127.0.0.1:PORT says TEXT, with \r and \n understood, and is answered
// when "pid=NUMBER\n" has come: whoever serves says who it is. Commands come one a line on
// standard input, each is answered by a line of JSON: "mark" forgets what was counted,
// "stats" tells what has been since, "who" only who has answered, first and last and how
// often, which takes no time, and "silence FROM TO" the longest time without an answer of
// which a part is between these. It ends with its input. Times are nanoseconds of
// CLOCK_MONOTONIC.
//
// It asks for a real-time priority. What it is late with all the same, because the machine
// did not let it run, is no server's doing, and taken out of all times.
#define _GNU_SOURCE
#include "loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
  time_limit = 1800,  // seconds; somebody has to be left to end it
  batch = 64,
  max_descriptors = 60000,
  max_servers = 512,
  room = 1024,  // for an answer
};

static const int64_t second = 1000000000;
static const int64_t patience = 2 * 1000000000LL;  // with a connection

struct connection {
  bool is_open, has_sent;
  int64_t begun;
  int64_t lost;  // lost_time when it began
  size_t size;
  char said[room];
};

struct server {
  long pid;
  int64_t first, last;  // of its answers
  long answers;
};

static struct counts {
  long answered, refused, reset, closed, late, other;
  int64_t begun, most_behind;
  int64_t lost;  // lost_time when it began
} counts;

static struct connection* connections;
static struct server servers[max_servers];
static size_t server_count;
static struct answer {
  int64_t at, took;
  int64_t lost;  // lost_time by then
} * answers;
static size_t answers_room;
static int epoll, timer, highest;
static int64_t interval, next_tick;
static int64_t lost_time;  // in which we did not run
static const char* text;
static struct sockaddr_in server_address = {.sin_family = AF_INET};

static void check(bool fine, const char* what) {
  if (!fine) {
    fprintf(stderr, "bench-paced: %s: %s\n", what, strerror(errno));
    exit(111);
  }
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * second + time.tv_nsec;
}

// ---- What is counted ----------------------------------------------------------------

static void mark(void) {
  memset(&counts, 0, sizeof counts);
  counts.begun = now();
  counts.lost = lost_time;
  server_count = 0;
}

static void note_server(long pid, int64_t at) {
  struct server* server = servers;
  while (server < servers + server_count && server->pid != pid) {
    ++server;
  }
  if (server == servers + server_count) {
    if (server_count == max_servers) {
      return;
    }
    ++server_count;
    *server = (struct server){.pid = pid, .first = at};
  }
  server->last = at;
  ++server->answers;
}

static void note_answer(int64_t begun, int64_t lost, long pid) {
  const int64_t at = now();
  const int64_t took = at - begun - (lost_time - lost);
  if ((size_t)counts.answered == answers_room) {
    answers_room = answers_room == 0 ? 65536 : 2 * answers_room;
    answers = realloc(answers, answers_room * sizeof *answers);
    check(answers != NULL, "realloc");
  }
  answers[counts.answered++] =
      (struct answer){.at = at, .took = took > 0 ? took : 0, .lost = lost_time};
  note_server(pid, at);
}

static int compare(const void* one, const void* other) {
  const int64_t a = *(const int64_t*)one;
  const int64_t b = *(const int64_t*)other;
  return (a > b) - (a < b);
}

// The times that they took, in order, for whoever frees them.
static int64_t* sorted_times(void) {
  const size_t count = (size_t)counts.answered;
  int64_t* times = malloc((count + 1) * sizeof *times);
  check(times != NULL, "malloc");
  for (size_t i = 0; i < count; ++i) {
    times[i] = answers[i].took;
  }
  qsort(times, count, sizeof *times, compare);
  return times;
}

// The smallest that this share of them, in thousandths, does not exceed.
static int64_t percentile(const int64_t* times, long share) {
  const long rank = (counts.answered * share + 999) / 1000;
  return counts.answered == 0 ? 0 : times[rank > 0 ? rank - 1 : 0];
}

// The longest time without an answer of which a part is between these. What is before the first
// answer began with the mark, and what is after the last has not ended.
static int64_t longest_silence(int64_t from, int64_t to) {
  int64_t longest = 0;
  struct answer before = {.at = counts.begun, .lost = counts.lost};
  for (long i = 0; i <= counts.answered; ++i) {
    const struct answer after =
        i < counts.answered ? answers[i] : (struct answer){.at = now(), .lost = lost_time};
    if (after.at > from && before.at < to) {
      const int64_t silence = after.at - before.at - (after.lost - before.lost);
      longest = silence > longest ? silence : longest;
    }
    before = after;
  }
  return longest;
}

static void tell_silence(int64_t from, int64_t to) {
  printf("{\"silence\":%" PRId64 "}\n", longest_silence(from, to));
  fflush(stdout);
}

static void tell_servers(void) {
  printf("\"pids\":{");
  for (size_t i = 0; i < server_count; ++i) {
    printf("%s\"%ld\":[%" PRId64 ",%" PRId64 ",%ld]", i == 0 ? "" : ",", servers[i].pid,
           servers[i].first, servers[i].last, servers[i].answers);
  }
  printf("}}\n");
  fflush(stdout);
}

static void tell_all(void) {
  const int64_t gap = longest_silence(counts.begun, now());
  int64_t* times = sorted_times();
  printf(
      "{\"answered\":%ld,\"refused\":%ld,\"reset\":%ld,\"closed\":%ld,\"timeout\":%ld,"
      "\"other\":%ld,\"begun\":%" PRId64 ",\"p50\":%" PRId64 ",\"p99\":%" PRId64
      ",\"p999\":%" PRId64 ",\"worst\":%" PRId64 ",\"gap\":%" PRId64 ",\"behind\":%" PRId64 ",",
      counts.answered, counts.refused, counts.reset, counts.closed, counts.late, counts.other,
      counts.begun, percentile(times, 500), percentile(times, 990), percentile(times, 999),
      percentile(times, 1000), gap, counts.most_behind);
  free(times);
  tell_servers();
}

// ---- Connections --------------------------------------------------------------------

static void end(int fd, long* counter) {
  ++*counter;
  connections[fd].is_open = false;
  close(fd);
}

static void fail(int fd) {
  if (errno == ECONNREFUSED) {
    end(fd, &counts.refused);
  } else if (errno == ECONNRESET || errno == EPIPE) {
    end(fd, &counts.reset);
  } else {
    end(fd, &counts.other);
  }
}

static void ask(int fd) {
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) >= 0) {
    connections[fd].has_sent = true;
  } else if (errno != EAGAIN) {
    fail(fd);
  }
}

static void hear(int fd) {
  struct connection* connection = &connections[fd];
  const ssize_t size =
      recv(fd, connection->said + connection->size, room - 1 - connection->size, 0);
  if (size < 0) {
    if (errno != EAGAIN) {
      fail(fd);
    }
    return;
  }
  connection->size += (size_t)size;
  connection->said[connection->size] = '\0';
  const char* pid = strstr(connection->said, "pid=");
  if (pid != NULL && strchr(pid, '\n') != NULL) {
    const int64_t begun = connection->begun;
    const int64_t lost = connection->lost;
    long nobody = 0;
    end(fd, &nobody);
    note_answer(begun, lost, strtol(pid + 4, NULL, 10));
  } else if (size == 0 || connection->size == room - 1) {
    end(fd, &counts.closed);
  }
}

static void open_one(void) {
  const int64_t begun = now();
  const int fd = loopback_socket(SOCK_NONBLOCK | SOCK_CLOEXEC);
  check(fd >= 0 && fd < max_descriptors, "socket");
  struct connection* connection = &connections[fd];
  connection->is_open = true;
  connection->has_sent = false;
  connection->begun = begun;
  connection->lost = lost_time;
  connection->size = 0;
  highest = fd > highest ? fd : highest;
  if (connect(fd, (struct sockaddr*)&server_address, sizeof server_address) != 0 &&
      errno != EINPROGRESS) {
    fail(fd);
    return;
  }
  // Edges: it is told of each change once, that it is connected among them.
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.fd = fd}};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void go_on(int fd) {
  if (!connections[fd].is_open) {
    return;
  }
  if (!connections[fd].has_sent) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    if (error != 0) {
      fail(fd);
      return;
    }
    ask(fd);
  }
  if (connections[fd].is_open && connections[fd].has_sent) {
    hear(fd);
  }
}

static void give_up_on_old(void) {
  const int64_t oldest = now() - patience;
  for (int fd = 0; fd <= highest; ++fd) {
    if (connections[fd].is_open && connections[fd].begun < oldest) {
      end(fd, &counts.late);
    }
  }
}

static void tick(void) {
  uint64_t ticks = 0;
  if (read(timer, &ticks, sizeof ticks) != sizeof ticks) {
    return;
  }
  next_tick += (int64_t)ticks * interval;
  const int64_t behind = now() - next_tick + (int64_t)(ticks - 1) * interval;
  counts.most_behind = behind > counts.most_behind ? behind : counts.most_behind;
  lost_time += ticks > 1 ? behind : 0;  // a tick is as fine as it sees
  for (uint64_t i = 0; i < ticks && i < (uint64_t)(second / interval); ++i) {
    open_one();
  }
  static int64_t looked;
  if (next_tick - looked > second / 10) {
    looked = next_tick;
    give_up_on_old();
  }
}

// ---- The process --------------------------------------------------------------------

// Whether there may be more commands.
static bool obey(void) {
  static char said[256];
  static size_t size;
  const ssize_t more = read(STDIN_FILENO, said + size, sizeof said - 1 - size);
  if (more <= 0) {
    return false;
  }
  size += (size_t)more;
  said[size] = '\0';
  char* line = said;
  for (char* newline = strchr(line, '\n'); newline != NULL; newline = strchr(line, '\n')) {
    *newline = '\0';
    int64_t from = 0;
    int64_t to = 0;
    if (strcmp(line, "stats") == 0) {
      tell_all();
    } else if (sscanf(line, "silence %" SCNd64 " %" SCNd64, &from, &to) == 2) {
      tell_silence(from, to);
    } else {
      if (strcmp(line, "mark") == 0) {
        mark();
      }
      printf("{");
      tell_servers();
    }
    line = newline + 1;
  }
  size -= (size_t)(line - said);
  memmove(said, line, size);
  return true;
}

static void watch(int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void start_ticking(void) {
  timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  next_tick = now();
  const int64_t first = next_tick + interval;
  const struct itimerspec ticks = {
      .it_interval = {.tv_sec = interval / second, .tv_nsec = interval % second},
      .it_value = {.tv_sec = first / second, .tv_nsec = first % second}};
  check(timer >= 0 && timerfd_settime(timer, TFD_TIMER_ABSTIME, &ticks, NULL) == 0, "timerfd");
  watch(timer);
}

int main(int argc, char** argv) {
  if (argc != 4 || atol(argv[2]) < 1) {
    fprintf(stderr, "usage: bench-paced PORT MICROSECONDS TEXT\n");
    return 2;
  }
  alarm(time_limit);
  raise_descriptor_limit();
  const struct sched_param priority = {.sched_priority = 1};
  sched_setscheduler(0, SCHED_FIFO, &priority);  // if it may
  server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  server_address.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
  interval = atol(argv[2]) * 1000;
  unescape(argv[3], argv[3]);
  text = argv[3];
  connections = calloc(max_descriptors, sizeof *connections);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  check(connections != NULL && epoll >= 0, "epoll_create1");
  mark();
  watch(STDIN_FILENO);
  start_ticking();
  for (bool more = true; more;) {
    struct epoll_event events[batch];
    const int ready = epoll_wait(epoll, events, batch, -1);
    tick();  // first, since it knows how late we are
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      if (fd == STDIN_FILENO) {
        more = obey();
      } else if (fd != timer) {
        go_on(fd);
      }
    }
  }
  return 0;
}
