// A datagram server of a few lines in every shape that they come in; built with HAS_RING it
// has those that receive and send by an io_uring.
//
//   datagram-server [--workers N] [--sockets N] [--end N] [--say-ready 1] [--options N] LOOP
//                   ADDRESS
//
// It answers "TEXT" by "TEXT pid=PID", and "slow MILLISECONDS TEXT" as much later; that
// it has been asked it says on its standard output. With
// workers the socket is bound before they are forked, and with sockets each thread has
// one of its own, in a group. It says "listening pid=PID" when its sockets are bound;
// then, with --end, it ends by that signal, or with 0 it hangs. With --say-ready it tells
// systemd that it is ready when it is told to. With --options N that number appears in its
// socket's options, some of which it sets before it binds, some after; asked for "options"
// it tells them.
#include "given.h"
#include "notices.h"

#ifdef HAS_RING
#include <liburing.h>
#endif

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
static int options = 0;

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

static void think_about(const char* question) {
  int milliseconds = 0;
  if (sscanf(question, "slow %d", &milliseconds) == 1) {
    printf("asked pid=%d\n", getpid());
    fflush(stdout);
    usleep((useconds_t)milliseconds * 1000);
  }
}

static int option_of(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  getsockopt(fd, level, name, &value, &size);
  return value;
}

static void describe_options(int fd, char* text) {
  snprintf(text, room, "rcvbuf=%d broadcast=%d pktinfo=%d priority=%d nonblock=%d",
           option_of(fd, SOL_SOCKET, SO_RCVBUF), option_of(fd, SOL_SOCKET, SO_BROADCAST),
           option_of(fd, IPPROTO_IP, IP_PKTINFO), option_of(fd, SOL_SOCKET, SO_PRIORITY),
           (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

static void answer(int fd, struct request* request, ssize_t size) {
  char text[room + 32];
  request->text[size] = '\0';
  think_about(request->text);
  if (strcmp(request->text, "options") == 0) {
    describe_options(fd, request->text);
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

#ifdef HAS_RING
// ---- By a ring: receives and answers ------------------------------------------------------

enum { most_requests = 64, receives_at_once = 4, buffer_size = 1024, buffer_group = 1 };

static struct ring_request {
  struct request request;
  struct iovec part;
  struct msghdr message;
  bool is_sent;
} ring_requests[most_requests];
static struct io_uring ring;
static int ring_file;
static bool is_fixed;
static char buffers[most_requests][buffer_size];
static struct msghdr multishot = {.msg_namelen = sizeof(struct sockaddr_storage)};

static struct io_uring_sqe* ask_ring(void* what) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  if (sqe == NULL) {
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
  }
  io_uring_sqe_set_data(sqe, what);
  return sqe;
}

static void use_file(struct io_uring_sqe* sqe, void* what) {
  io_uring_sqe_set_data(sqe, what);
  if (is_fixed) {
    sqe->flags |= IOSQE_FIXED_FILE;
  }
}

static void receive_by_ring(struct ring_request* one) {
  one->part = (struct iovec){.iov_base = one->request.text, .iov_len = room - 1};
  one->message = (struct msghdr){.msg_name = &one->request.from,
                                 .msg_namelen = sizeof one->request.from,
                                 .msg_iov = &one->part,
                                 .msg_iovlen = 1};
  one->is_sent = false;
  struct io_uring_sqe* sqe = ask_ring(one);
  io_uring_prep_recvmsg(sqe, ring_file, &one->message, 0);
  use_file(sqe, one);
}

static void answer_by_ring(struct ring_request* one, size_t size) {
  one->request.text[size] = '\0';
  think_about(one->request.text);
  int length = snprintf(one->request.text + size, room - size, " pid=%d", getpid());
  one->part.iov_base = one->request.text;
  one->part.iov_len = size + (size_t)length;
  one->is_sent = true;
  struct io_uring_sqe* sqe = ask_ring(one);
  io_uring_prep_sendmsg(sqe, ring_file, &one->message, 0);
  use_file(sqe, one);
}

static void receive_all_by_ring(void) {
  struct io_uring_sqe* sqe = ask_ring(&multishot);
  io_uring_prep_recvmsg_multishot(sqe, ring_file, &multishot, 0);
  use_file(sqe, &multishot);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = buffer_group;
}

static void give_buffers(int first, int count) {
  io_uring_prep_provide_buffers(ask_ring(NULL), buffers[first], buffer_size, count, buffer_group,
                                first);
}

static void answer_one_of_many(const struct io_uring_cqe* done) {
  const int index = (int)(done->flags >> IORING_CQE_BUFFER_SHIFT);
  struct io_uring_recvmsg_out* out =
      io_uring_recvmsg_validate(buffers[index], done->res, &multishot);
  if (out == NULL) {
    fail("validate");
  }
  struct ring_request* one = &ring_requests[index];
  unsigned size = io_uring_recvmsg_payload_length(out, done->res, &multishot);
  memcpy(&one->request.from, io_uring_recvmsg_name(out), sizeof one->request.from);
  memcpy(one->request.text, io_uring_recvmsg_payload(out, &multishot), size);
  one->message = (struct msghdr){.msg_name = &one->request.from,
                                 .msg_namelen = out->namelen,
                                 .msg_iov = &one->part,
                                 .msg_iovlen = 1};
  answer_by_ring(one, size);
}

static void ring_has_done(const struct io_uring_cqe* done, bool many) {
  struct ring_request* one = io_uring_cqe_get_data(done);
  const bool passes = done->res == -ECANCELED || done->res == -EINTR || done->res == -ENOBUFS;
  if (done->res < 0 && !passes) {
    errno = -done->res;
    fail("ring");
  }
  if ((void*)one == &multishot) {
    if ((done->flags & IORING_CQE_F_BUFFER) != 0) {
      answer_one_of_many(done);
    }
    if ((done->flags & IORING_CQE_F_MORE) == 0) {
      receive_all_by_ring();
    }
  } else if (one != NULL && one->is_sent && many) {
    give_buffers((int)(one - ring_requests), 1);
  } else if (one != NULL && (one->is_sent || done->res < 0)) {
    receive_by_ring(one);
  } else if (one != NULL) {
    answer_by_ring(one, (size_t)done->res);
  }
}

static void serve_by_ring(int fd, bool fixed, bool many, unsigned flags) {
  const int failure = io_uring_queue_init(most_requests, &ring, flags);
  if (failure != 0) {
    errno = -failure;
    fail("io_uring");
  }
  ring_file = fixed ? 0 : fd;
  is_fixed = fixed;
  if (fixed && io_uring_register_files(&ring, &fd, 1) != 0) {
    fail("register");
  }
  if (many) {
    give_buffers(0, most_requests);
    receive_all_by_ring();
  }
  for (int i = 0; !many && i < receives_at_once; ++i) {
    receive_by_ring(&ring_requests[i]);
  }
  for (;;) {
    struct io_uring_cqe* cqe = NULL;
    io_uring_submit(&ring);
    const int result = io_uring_wait_cqe(&ring, &cqe);
    if (result != 0) {
      errno = -result;
      fail("wait");
    }
    const struct io_uring_cqe done = *cqe;
    io_uring_cqe_seen(&ring, cqe);
    ring_has_done(&done, many);
  }
}

static void serve_by_ring_requests(int fd) {
  serve_by_ring(fd, false, false, 0);
}
static void serve_by_fixed_file(int fd) {
  serve_by_ring(fd, true, false, 0);
}
static void serve_by_multishot(int fd) {
  serve_by_ring(fd, false, true, 0);
}
static void serve_by_own_thread(int fd) {
  serve_by_ring(fd, false, true, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}
static void serve_by_polled_ring(int fd) {
  serve_by_ring(fd, false, false, IORING_SETUP_SQPOLL);
}
#endif

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
#ifdef HAS_RING
             {"ring", serve_by_ring_requests},
             {"ring-fixed", serve_by_fixed_file},
             {"ring-multishot", serve_by_multishot},
             {"ring-issuer", serve_by_own_thread},
             {"ring-polled", serve_by_polled_ring},
#endif
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
  if (options != 0) {
    const int size = options * 1024;
    const int odd = options % 2;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &odd, sizeof odd);
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &odd, sizeof odd);
  }
  if (bind(fd, (struct sockaddr*)&address, length) != 0) {
    fail("bind");
  }
  if (options != 0) {
    const int priority = options % 7;
    setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
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
                  : strcmp(arguments[at], "--options") == 0   ? &options
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
