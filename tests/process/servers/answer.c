// What happens on a connection, the same for every mode.
#include "tiny.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { max_descriptors = 1024, max_line = 128 };

// The beginning of a line whose end has not come. A connection is served by one
// thread at a time.
static struct {
  size_t size;
  char text[max_line];
} unfinished[max_descriptors];

static int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  getsockopt(fd, level, name, &value, &size);
  return value;
}

void describe_options(char* description, size_t room) {
  int fd = listeners[0];
  struct tcp_info info = {0};
  socklen_t size = sizeof info;
  getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  // For a listener this is the longest queue (tcp_get_info).
  snprintf(description, room, "keepidle=%d priority=%d rcvbuf=%d nonblock=%d backlog=%u",
           option_of(fd, IPPROTO_TCP, TCP_KEEPIDLE), option_of(fd, SOL_SOCKET, SO_PRIORITY),
           option_of(fd, SOL_SOCKET, SO_RCVBUF), (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0,
           info.tcpi_sacked);
}

// Until something can be read from the file that is named in the rest of the line.
static void wait_for(const char* line) {
  char path[max_line];
  size_t length = strcspn(line, "\n");
  memcpy(path, line, length);
  path[length] = 0;
  char byte = 0;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  while (read(file, &byte, 1) < 0 && errno == EINTR) {
  }
  close(file);
}

// For so many milliseconds, without a system call (clock_gettime is none).
static void work_for(const char* line) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  long long end = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + atoll(line);
  while (now.tv_sec * 1000LL + now.tv_nsec / 1000000 < end) {
    clock_gettime(CLOCK_MONOTONIC, &now);
  }
}

// "FROM TO", both as listeners are named: says that it has said all, and hears what the other
// side then says.
static void ask_and_say_that_is_all(const char* line, char* answer, size_t room) {
  char from[max_line] = "";
  char to[max_line] = "";
  union address own;
  union address peer;
  sscanf(line, "%127s %127s", from, to);
  socklen_t own_length = parse_address(from, &own);
  socklen_t peer_length = parse_address(to, &peer);
  int asks = socket(own.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  setsockopt(asks, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  ssize_t heard = -1;
  if (bind(asks, &own.any, own_length) == 0 && connect(asks, &peer.any, peer_length) == 0 &&
      shutdown(asks, SHUT_WR) == 0) {
    heard = read(asks, answer, room - 1);
  }
  answer[heard < 0 ? 0 : heard] = 0;
  close(asks);
}

static bool answer_line(int connection, const char* line) {
  char answer[256];
  if (strncmp(line, "wait ", 5) == 0) {
    wait_for(line + 5);
  } else if (strncmp(line, "work ", 5) == 0) {
    work_for(line + 5);
  }
  if (strncmp(line, "ask ", 4) == 0) {
    ask_and_say_that_is_all(line + 4, answer, sizeof answer - 1);
  } else if (strncmp(line, "options", 7) == 0) {
    describe_options(answer, sizeof answer);
  } else if (strncmp(line, "descriptors", 11) == 0) {
    int open_ones = 0;
    for (int fd = 0; fd < max_descriptors; ++fd) {
      open_ones += fcntl(fd, F_GETFD) >= 0;
    }
    int lowest = dup(STDIN_FILENO);
    close(lowest);
    snprintf(answer, sizeof answer, "open=%d lowest-free=%d", open_ones, lowest);
  } else {
    snprintf(answer, sizeof answer, "pid=%d", getpid());
  }
  strcat(answer, "\n");
  ssize_t size = (ssize_t)strlen(answer);
  return send(connection, answer, (size_t)size, MSG_NOSIGNAL) == size;
}

bool serve_some(int connection) {
  size_t* size = &unfinished[connection].size;
  char* text = unfinished[connection].text;
  ssize_t received = 0;
  do {
    received = read(connection, text + *size, max_line - 1 - *size);
  } while (received < 0 && (errno == EINTR || errno == EAGAIN));  // inherited SO_RCVTIMEO
  if (received <= 0) {
    *size = 0;
    return false;
  }
  *size += (size_t)received;
  text[*size] = 0;
  for (char* end; (end = strchr(text, '\n')) != NULL;) {
    if (!answer_line(connection, text)) {
      return false;
    }
    *size -= (size_t)(end + 1 - text);
    memmove(text, end + 1, *size + 1);
  }
  return true;
}

void serve(int connection) {
  while (serve_some(connection)) {
  }
  close(connection);
}

// An accept may fail for reasons that are none of ours: who gives up for them
// would give up without us, too.
int accept_connection(int listener) {
  int connection = accept(listener, NULL, NULL);
  if (connection < 0 && errno != EINTR && errno != ECONNABORTED && errno != EAGAIN) {
    fail("accept");
  }
  return connection;
}

static void* answer_datagrams(void* argument) {
  int fd = (int)(intptr_t)argument;
  for (;;) {
    char question[max_line];
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    if (recvfrom(fd, question, sizeof question, 0, (struct sockaddr*)&peer, &length) >= 0) {
      char answer[32];
      int size = snprintf(answer, sizeof answer, "udp pid=%d\n", getpid());
      sendto(fd, answer, (size_t)size, 0, (struct sockaddr*)&peer, length);
    }
  }
  return NULL;
}

void answer_datagram(int fd) {
  pthread_t thread;
  pthread_create(&thread, NULL, answer_datagrams, (void*)(intptr_t)fd);
}
