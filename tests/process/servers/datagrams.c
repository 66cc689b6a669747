// A datagram server of a few lines in every shape that they come in.
//
//   datagram-server [--workers N] [--sockets N] [--end N] [--say-ready 1] LOOP ADDRESS
//
// It answers "TEXT" by "TEXT pid=PID", and "slow MILLISECONDS TEXT" as much later; that
// it has been asked it says on its standard output. With
// workers the socket is bound before they are forked, and with sockets each thread has
// one of its own, in a group. It says "listening pid=PID" when its sockets are bound;
// then, with --end, it ends by that signal, or with 0 it hangs. With --say-ready it tells
// systemd that it is ready when it is told to.
#include "given.h"
#include "notices.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { max_sockets = 16, room = 512, most_seconds = 300 };

static int sockets[max_sockets];
static int socket_count = 1;
static int workers = 0;
static int end = -1;
static int says_ready = 0;

struct request {
  struct sockaddr_storage from;
  socklen_t length;
  char text[room];
};

static void fail(const char* what) {
  printf("%s %s\n", what, strerrorname_np(errno));
  fflush(stdout);
  exit(1);
}

static void answer(int fd, struct request* request, ssize_t size) {
  char text[room + 32];
  int milliseconds = 0;
  request->text[size] = '\0';
  if (sscanf(request->text, "slow %d", &milliseconds) == 1) {
    printf("asked pid=%d\n", getpid());
    fflush(stdout);
    usleep((useconds_t)milliseconds * 1000);
  }
  int length = snprintf(text, sizeof text, "%s pid=%d", request->text, getpid());
  if (sendto(fd, text, (size_t)length, 0, (struct sockaddr*)&request->from, request->length) < 0) {
    fail("sendto");
  }
}

// ---- One datagram. False: there was none -------------------------------------------------

static bool by_recvfrom(int fd) {
  struct request request = {.length = sizeof request.from};
  ssize_t size =
      recvfrom(fd, request.text, room - 1, 0, (struct sockaddr*)&request.from, &request.length);
  if (size < 0) {
    return false;
  }
  answer(fd, &request, size);
  return true;
}

static bool by_recvmsg(int fd) {
  struct request request = {.length = 0};
  struct iovec part = {.iov_base = request.text, .iov_len = room - 1};
  struct msghdr message = {.msg_name = &request.from,
                           .msg_namelen = sizeof request.from,
                           .msg_iov = &part,
                           .msg_iovlen = 1};
  ssize_t size = recvmsg(fd, &message, 0);
  if (size < 0) {
    return false;
  }
  request.length = message.msg_namelen;
  answer(fd, &request, size);
  return true;
}

static bool by_recvmmsg(int fd) {
  enum { most = 8 };
  struct request requests[most];
  struct iovec parts[most];
  struct mmsghdr messages[most];
  memset(messages, 0, sizeof messages);
  for (int i = 0; i < most; ++i) {
    parts[i] = (struct iovec){.iov_base = requests[i].text, .iov_len = room - 1};
    messages[i].msg_hdr = (struct msghdr){.msg_name = &requests[i].from,
                                          .msg_namelen = sizeof requests[i].from,
                                          .msg_iov = &parts[i],
                                          .msg_iovlen = 1};
  }
  int count = recvmmsg(fd, messages, most, MSG_WAITFORONE, NULL);
  for (int i = 0; i < count; ++i) {
    requests[i].length = messages[i].msg_hdr.msg_namelen;
    answer(fd, &requests[i], messages[i].msg_len);
  }
  return count > 0;
}

// ---- Waiting ---------------------------------------------------------------------------------

static void do_not_block(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static bool is_passing(int error) {
  return error == EINTR || error == EAGAIN;
}

static void receive_for_ever(int fd, bool (*receive)(int)) {
  for (;;) {
    if (!receive(fd) && !is_passing(errno)) {
      fail("receive");
    }
  }
}

static void serve_by_recvfrom(int fd) {
  receive_for_ever(fd, by_recvfrom);
}
static void serve_by_recvmsg(int fd) {
  receive_for_ever(fd, by_recvmsg);
}
static void serve_by_recvmmsg(int fd) {
  receive_for_ever(fd, by_recvmmsg);
}

static void serve_by_poll(int fd) {
  do_not_block(fd);
  for (;;) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    if (poll(&entry, 1, -1) > 0) {
      while (by_recvfrom(fd)) {
      }
    }
  }
}

// Blocking, and asks before it receives.
static void serve_by_poll_and_block(int fd) {
  for (;;) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    if (poll(&entry, 1, -1) > 0 && !by_recvfrom(fd) && !is_passing(errno)) {
      fail("receive");
    }
  }
}

static void serve_by_select(int fd) {
  do_not_block(fd);
  for (;;) {
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(fd, &readable);
    if (select(fd + 1, &readable, NULL, NULL, NULL) > 0) {
      while (by_recvmsg(fd)) {
      }
    }
  }
}

static void serve_by_epoll_with(int fd, uint32_t how) {
  do_not_block(fd);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN | how, .data.fd = fd};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  for (;;) {
    if (epoll_wait(epoll, &event, 1, -1) > 0) {
      while (by_recvmmsg(fd)) {
      }
      // As event loops do that have something to say, and then have not.
      struct epoll_event again = {.events = EPOLLIN | how, .data.fd = fd};
      if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &again) != 0) {
        fail("epoll_ctl");
      }
    }
  }
}

static void serve_by_epoll(int fd) {
  serve_by_epoll_with(fd, 0);
}
static void serve_by_epoll_edge(int fd) {
  serve_by_epoll_with(fd, EPOLLET);
}

static int watched_epoll = -1;

static void* change_for_ever(void* fd) {
  struct epoll_event again = {.events = EPOLLIN, .data.fd = *(int*)fd};
  while (epoll_ctl(watched_epoll, EPOLL_CTL_MOD, *(int*)fd, &again) == 0) {
  }
  fail("epoll_ctl");
  return NULL;
}

// Other threads change all the time what is waited for: more than there are processors,
// so that some are always stopped between a look and a system call.
static void serve_by_changing_epoll(int fd) {
  enum { threads = 4 };
  do_not_block(fd);
  watched_epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(watched_epoll, EPOLL_CTL_ADD, fd, &event);
  for (int i = 0; i < threads; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, change_for_ever, &fd);
  }
  for (;;) {
    if (epoll_wait(watched_epoll, &event, 1, -1) > 0) {
      while (by_recvmmsg(fd)) {
      }
    }
  }
}

static void (*loop)(int fd);

static void* run_loop(void* fd) {
  loop(*(int*)fd);
  return NULL;
}

// Several threads asleep in a receive on one socket.
static void serve_by_threads(int fd) {
  enum { threads = 4 };
  loop = serve_by_recvfrom;
  for (int i = 1; i < threads; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, run_loop, &fd);
  }
  serve_by_recvfrom(fd);
}

static const struct {
  const char* name;
  void (*serve)(int fd);
} loops[] = {{"recvfrom", serve_by_recvfrom},
             {"recvmsg", serve_by_recvmsg},
             {"recvmmsg", serve_by_recvmmsg},
             {"poll", serve_by_poll},
             {"poll-and-block", serve_by_poll_and_block},
             {"select", serve_by_select},
             {"epoll", serve_by_epoll},
             {"epoll-edge", serve_by_epoll_edge},
             {"epoll-changing", serve_by_changing_epoll},
             {"threads", serve_by_threads}};

// ---- Starting --------------------------------------------------------------------------------

static socklen_t read_address(const char* text, struct sockaddr_storage* address) {
  memset(address, 0, sizeof *address);
  if (text[0] == '/' || text[0] == '@') {
    struct sockaddr_un* path = (struct sockaddr_un*)address;
    path->sun_family = AF_UNIX;
    strncpy(path->sun_path, text, sizeof path->sun_path - 1);
    if (text[0] == '@') {
      path->sun_path[0] = '\0';
      return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(text));
    }
    return sizeof *path;
  }
  const char* colon = strrchr(text, ':');
  in_port_t port = htons((in_port_t)atoi(colon + 1));
  char host[64] = {0};
  if (text[0] == '[') {
    struct sockaddr_in6* v6 = (struct sockaddr_in6*)address;
    memcpy(host, text + 1, (size_t)(colon - text) - 2);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = port;
    inet_pton(AF_INET6, host, &v6->sin6_addr);
    return sizeof *v6;
  }
  struct sockaddr_in* v4 = (struct sockaddr_in*)address;
  memcpy(host, text, (size_t)(colon - text));
  v4->sin_family = AF_INET;
  v4->sin_port = port;
  inet_pton(AF_INET, host, &v4->sin_addr);
  return sizeof *v4;
}

static int bind_to(const char* text) {
  struct sockaddr_storage address;
  socklen_t length = read_address(text, &address);
  int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (socket_count > 1) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  }
  if (bind(fd, (struct sockaddr*)&address, length) != 0) {
    fail("bind");
  }
  return fd;
}

static void run_workers(void) {
  for (int i = 0; i < workers; ++i) {
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      alarm(most_seconds);
      loop(sockets[0]);
    }
  }
  while (wait(NULL) > 0 || errno == EINTR) {
  }
}

int main(int count, char** arguments) {
  int at = 1;
  for (; at < count && strncmp(arguments[at], "--", 2) == 0; at += 2) {
    int* option = strcmp(arguments[at], "--workers") == 0     ? &workers
                  : strcmp(arguments[at], "--end") == 0       ? &end
                  : strcmp(arguments[at], "--say-ready") == 0 ? &says_ready
                                                              : &socket_count;
    *option = atoi(arguments[at + 1]);
  }
  for (size_t i = 0; at < count && i < sizeof loops / sizeof *loops; ++i) {
    if (strcmp(loops[i].name, arguments[at]) == 0) {
      loop = loops[i].serve;
    }
  }
  if (at + 2 != count || loop == NULL || socket_count > max_sockets) {
    fprintf(stderr, "usage: datagram-server [--workers N] [--sockets N] [--end N] LOOP ADDRESS\n");
    return 2;
  }
  alarm(most_seconds);
  for (int i = 0; i < socket_count; ++i) {
    const int given = take_given(SOCK_DGRAM);
    sockets[i] = given >= 0 ? given : bind_to(arguments[at + 1]);
  }
  printf("listening pid=%d\n", getpid());
  fflush(stdout);
  if (end > 0) {
    kill(getpid(), end);
  }
  while (end >= 0) {
    pause();
  }
  if (says_ready) {
    say_ready_later("sendto");
  }
  if (workers > 0) {
    run_workers();
  }
  for (int i = 1; i < socket_count; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, run_loop, &sockets[i]);
  }
  loop(sockets[0]);
}
