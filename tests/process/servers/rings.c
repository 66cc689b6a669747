// ring-server [OPTION...] MODE ADDRESS: a server that asks an io_uring for everything
// it waits for, and calls neither accept nor poll (all modes but "files").
//
//   single    one connection is asked for at a time
//   multishot all are asked for at once
//   direct    listener and connections are in the ring's table of fixed files, and the
//             connections have no descriptor
//   issuer    as multishot, and the ring obeys one thread only
//   poll      as multishot, and a thread of the kernel's looks for what is asked
//   files     an epoll waits for connections; the ring, which a thread of the kernel's
//             looks after, reads a file for each answer
//   early     as multishot, and the ring is there before the listener
//   closed    as multishot, and the ring's descriptor is closed
//
//   --by-syscall   sets the ring up by syscall(2)
//   --idle         waits on the ring for nothing
//   --masked       blocks every signal
//   --masked-by-turns  the same, 20 ms of every 40
//   --threads      has another thread, which is somewhere else
//   --worker       two forked children have a ring each, and the parent looks on
//   --idle-parent  the same, and the parent does not look
//   --past-libc    they are forked past libc's handlers
//   --daemon       becomes a daemon when it listens
//
// It answers every line with "pid=PID", and says "listening pid=PID" when it listens.
#include "tiny.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { most_seconds = 240, entries = 64, max_connections = 128, max_line = 128, listener_slot = 0 };

enum Operation { accepting, receiving, sending, closing };

static struct {
  char text[max_line];
  size_t size;
} connections[max_connections];

static struct io_uring ring;
static int listener;
static pid_t self;  // as it answers: its parent, if it is a worker
static bool direct;
static bool multishot = true;
static bool masked_by_turns;

void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vdprintf(STDOUT_FILENO, format, arguments);
  va_end(arguments);
}

_Noreturn void fail(const char* what) {
  say("%s %s\n", what, strerrorname_np(errno));
  exit(1);
}

static struct io_uring_sqe* request(enum Operation operation, int connection) {
  struct io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  if (sqe == NULL) {
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
  }
  sqe->user_data = (uint64_t)operation << 32 | (uint32_t)connection;
  return sqe;
}

// The helpers of liburing clear what is in the request.
static void name(struct io_uring_sqe* sqe, enum Operation operation, int connection) {
  sqe->user_data = (uint64_t)operation << 32 | (uint32_t)connection;
  if (direct && operation != closing) {
    sqe->flags |= IOSQE_FIXED_FILE;
  }
}

static void ask_for_connection(void) {
  struct io_uring_sqe* sqe = request(accepting, 0);
  if (direct) {
    io_uring_prep_multishot_accept_direct(sqe, listener_slot, NULL, NULL, 0);
  } else if (multishot) {
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
  } else {
    io_uring_prep_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
  }
  name(sqe, accepting, 0);
}

static void receive(int connection) {
  struct io_uring_sqe* sqe = request(receiving, connection);
  io_uring_prep_recv(sqe, connection, connections[connection].text + connections[connection].size,
                     max_line - 1 - connections[connection].size, 0);
  name(sqe, receiving, connection);
}

static void end(int connection) {
  connections[connection].size = 0;
  struct io_uring_sqe* sqe = request(closing, connection);
  if (direct) {
    io_uring_prep_close_direct(sqe, (unsigned)connection);
  } else {
    io_uring_prep_close(sqe, connection);
  }
  name(sqe, closing, connection);
}

static void answer(int connection) {
  static char text[32];
  int size = snprintf(text, sizeof text, "pid=%d\n", self);
  struct io_uring_sqe* sqe = request(sending, connection);
  io_uring_prep_send(sqe, connection, text, (size_t)size, MSG_NOSIGNAL);
  name(sqe, sending, connection);
}

static void received(int connection, int size) {
  if (size <= 0) {
    end(connection);
    return;
  }
  char* text = connections[connection].text;
  connections[connection].size += (size_t)size;
  text[connections[connection].size] = 0;
  char* line_end = strchr(text, '\n');
  if (line_end == NULL) {
    receive(connection);
    return;
  }
  connections[connection].size -= (size_t)(line_end + 1 - text);
  memmove(text, line_end + 1, connections[connection].size + 1);
  answer(connection);
}

static void accepted(int connection, bool more) {
  if (!more) {
    ask_for_connection();
  }
  if (connection >= max_connections) {
    fail("connections");
  }
  if (connection >= 0) {
    receive(connection);
  } else if (connection != -ECANCELED && connection != -EINTR && connection != -ECONNABORTED) {
    errno = -connection;
    fail("accept");
  }
}

static void completed(const struct io_uring_cqe* cqe) {
  const int connection = (int)(uint32_t)cqe->user_data;
  switch ((enum Operation)(cqe->user_data >> 32)) {
    case accepting:
      accepted(cqe->res, (cqe->flags & IORING_CQE_F_MORE) != 0);
      break;
    case receiving:
      received(connection, cqe->res);
      break;
    case sending:
      if (cqe->res < 0) {
        end(connection);
      } else {
        receive(connection);
      }
      break;
    case closing:
      break;
  }
}

static void block_signals(bool blocked) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &all, NULL);
}

static int wait_for_one(struct io_uring_cqe** cqe) {
  if (!masked_by_turns) {
    return io_uring_wait_cqe(&ring, cqe);
  }
  enum { turn = 20 * 1000 * 1000 };
  struct __kernel_timespec longest = {.tv_nsec = turn};
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  block_signals(now.tv_nsec / turn % 2 == 0);
  return io_uring_wait_cqe_timeout(&ring, cqe, &longest);
}

static _Noreturn void serve_by_ring(void) {
  for (;;) {
    struct io_uring_cqe* cqe = NULL;
    io_uring_submit(&ring);
    // Many servers take an interruption for the end: nobody of ours may cause one.
    const int failure = wait_for_one(&cqe);
    if (failure == -ETIME) {
      continue;
    }
    if (failure != 0) {
      errno = -failure;
      fail("wait");
    }
    const struct io_uring_cqe done = *cqe;
    io_uring_cqe_seen(&ring, cqe);
    completed(&done);
  }
}

// ---- A ring for files only --------------------------------------------------------------

static void read_by_ring(int file) {
  static char text[64];
  struct io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  struct io_uring_cqe* cqe = NULL;
  io_uring_prep_read(sqe, file, text, sizeof text, 0);
  io_uring_submit(&ring);
  const int failure = io_uring_wait_cqe(&ring, &cqe);
  if (failure != 0 || cqe->res != sizeof text) {
    errno = failure != 0 ? -failure : EIO;
    fail("read");
  }
  io_uring_cqe_seen(&ring, cqe);
}

static void answer_by_calls(int connection, int file) {
  char line[max_line];
  const ssize_t size = recv(connection, line, sizeof line, 0);
  if (size <= 0) {
    close(connection);
  } else if (line[size - 1] == '\n') {
    read_by_ring(file);
    dprintf(connection, "pid=%d\n", self);
  }
}

static _Noreturn void serve_by_epoll(void) {
  const int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
  fcntl(listener, F_SETFL, O_NONBLOCK);
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    if (epoll_wait(epoll, &event, 1, -1) <= 0) {
      continue;
    }
    if (event.data.fd != listener) {
      answer_by_calls(event.data.fd, file);
      continue;
    }
    const int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection >= 0) {
      event = (struct epoll_event){.events = EPOLLIN, .data.fd = connection};
      epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &event);
    }
  }
}

// ---- Starting ---------------------------------------------------------------------------

static void make_ring(const char* mode, bool by_syscall) {
  struct io_uring_params parameters = {0};
  if (strcmp(mode, "issuer") == 0) {
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  } else if (strcmp(mode, "poll") == 0 || strcmp(mode, "files") == 0) {
    parameters.flags = IORING_SETUP_SQPOLL;
    parameters.sq_thread_idle = 1;  // ms in which it spins
  }
  int failure = 0;
  if (by_syscall) {
    const int fd = (int)syscall(SYS_io_uring_setup, entries, &parameters);
    failure = fd < 0 ? -errno : io_uring_queue_mmap(fd, &parameters, &ring);
    for (unsigned i = 0; failure == 0 && i < parameters.sq_entries; ++i) {
      ring.sq.array[i] = i;
    }
  } else {
    failure = io_uring_queue_init_params(entries, &ring, &parameters);
  }
  if (failure != 0) {
    errno = -failure;
    fail("io_uring");
  }
}

static void register_files(void) {
  if (io_uring_register_files_sparse(&ring, max_connections) != 0 ||
      io_uring_register_files_update(&ring, listener_slot, &listener, 1) != 1) {
    fail("register");
  }
}

static socklen_t parse(const char* text, struct sockaddr_in* address) {
  const char* colon = strrchr(text, ':');
  if (colon == NULL) {
    exit(2);
  }
  *address = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((in_port_t)atoi(colon + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return sizeof *address;
}

static void make_listener_at(const char* text) {
  const int on = 1;
  struct sockaddr_in address;
  const socklen_t length = parse(text, &address);
  listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr*)&address, length) != 0) {
    fail("bind");
  }
  if (listen(listener, 128) != 0) {
    fail("listen");
  }
}

static void* stay_away(void* unused) {
  for (;;) {
    pause();
  }
  return unused;
}

// Does not return in the parent.
static void fork_workers(bool past_libc, bool idle_parent) {
  enum { workers = 2 };
  for (int i = 0; i < workers; ++i) {
    if ((past_libc ? _Fork() : fork()) == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != self) {
        _exit(1);  // it has ended before that
      }
      return;
    }
  }
  while (idle_parent) {
    pause();
  }
  for (struct pollfd look = {.fd = listener, .events = POLLIN};;) {
    poll(&look, 1, -1);
    usleep(1000);
  }
}

int main(int argc, char** argv) {
  static const struct option options[] = {
      {"by-syscall", no_argument, NULL, 's'},  {"idle", no_argument, NULL, 'i'},
      {"masked", no_argument, NULL, 'm'},      {"masked-by-turns", no_argument, NULL, 'M'},
      {"threads", no_argument, NULL, 't'},     {"worker", no_argument, NULL, 'w'},
      {"idle-parent", no_argument, NULL, 'p'}, {"past-libc", no_argument, NULL, 'l'},
      {"daemon", no_argument, NULL, 'd'},      {0}};
  bool by_syscall = false;
  bool idle = false;
  bool workers = false;
  bool idle_parent = false;
  bool past_libc = false;
  bool becomes_daemon = false;
  for (int option; (option = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
    if (option == 'i') {
      idle = true;
    } else if (option == 'w') {
      workers = true;
    } else if (option == 'p') {
      workers = idle_parent = true;
    } else if (option == 'l') {
      past_libc = true;
    } else if (option == 'd') {
      becomes_daemon = true;
    } else if (option == 'm') {
      block_signals(true);
    } else if (option == 'M') {
      masked_by_turns = true;
    } else if (option == 't') {
      pthread_t thread;
      pthread_create(&thread, NULL, stay_away, NULL);
    } else if (option == 's') {
      by_syscall = true;
    } else {
      return 2;
    }
  }
  if (argc - optind != 2) {
    return 2;
  }
  const char* mode = argv[optind];
  alarm(most_seconds);
  direct = strcmp(mode, "direct") == 0;
  multishot = strcmp(mode, "single") != 0;
  const bool early = strcmp(mode, "early") == 0;
  if (early) {
    make_ring(mode, by_syscall);
  }
  make_listener_at(argv[optind + 1]);
  if (becomes_daemon && daemon(1, 1) != 0) {
    fail("daemon");
  }
  self = getpid();
  say("listening pid=%d\n", self);
  if (workers) {
    fork_workers(past_libc, idle_parent);
  }
  if (!early) {
    make_ring(mode, by_syscall);
  }
  if (strcmp(mode, "files") == 0) {
    serve_by_epoll();
  }
  if (direct) {
    register_files();
  }
  if (strcmp(mode, "closed") == 0) {
    io_uring_register_ring_fd(&ring);
    close(ring.ring_fd);
  }
  if (!idle) {
    ask_for_connection();
  }
  serve_by_ring();
}
