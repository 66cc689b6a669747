// Servers that are families of processes in which a listener does not simply
// come over fork: it is bound by each worker for itself, comes over exec, or is
// passed on.
//
//   family-server SHAPE ADDRESS
//
// Answers like the tiny server. Workers end with their parent.
#include "tiny.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct settings settings = {.backlog = 128};
int listeners[max_listeners];
int listener_count;

static const char* program;
static const char* address;
enum { workers = 3, told_here = 9 };

void say(const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  line[length++] = '\n';
  if (write(STDOUT_FILENO, line, (size_t)length) != length) {
    _exit(1);
  }
}

void fail(const char* what) {
  say("%s %s", what, strerror(errno));
  exit(1);
}

static _Noreturn void accept_for_ever(int listener) {
  for (;;) {
    int connection = accept_connection(listener);
    if (connection >= 0) {
      serve(connection);
    }
  }
}

static void in_child(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static _Noreturn void wait_for_children(void) {
  while (wait(NULL) > 0) {
  }
  exit(0);
}

static int make_socket(bool shared) {
  union address to;
  socklen_t length = parse_address(address, &to);
  int fd = socket(to.any.sa_family, SOCK_STREAM, 0);
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (shared) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  }
  if (bind(fd, &to.any, length) != 0) {
    say("bind %s", errno == EADDRINUSE ? "EADDRINUSE" : strerror(errno));
    exit(1);
  }
  return fd;
}

static int make_listening(bool shared) {
  int fd = make_socket(shared);
  if (listen(fd, settings.backlog) != 0) {
    fail("listen");
  }
  return fd;
}

static void say_listening(void) {
  say("listening pid=%d port=0 other=0", getpid());
}

static _Noreturn void execute(const char* shape, int fd) {
  char number[16];
  snprintf(number, sizeof number, "%d", fd);
  execl(program, program, shape, address, number, (char*)NULL);
  fail("exec");
}

// The parent binds and listens; workers are other programs that inherit the
// listener over exec.
static void workers_by_exec(void) {
  int listener = make_listening(false);
  for (int i = 0; i < workers; ++i) {
    if (fork() == 0) {
      in_child();
      execute("accept", listener);
    }
  }
  say_listening();
  wait_for_children();
}

static pid_t spawn(char* const* arguments) {
  pid_t worker = -1;
  int error = posix_spawn(&worker, program, NULL, NULL, arguments, environ);
  if (error != 0) {
    errno = error;
    fail("posix_spawn");
  }
  return worker;
}

static pid_t vfork_and_execute(char* const* arguments) {
  pid_t worker = vfork();
  if (worker == 0) {
    execv(program, arguments);
    _exit(1);
  }
  return worker;
}

// The same past the handlers of fork.
static void workers_by_spawn(pid_t (*start)(char* const* arguments)) {
  char number[16];
  snprintf(number, sizeof number, "%d", make_listening(false));
  char* const arguments[] = {(char*)program, "child", (char*)address, number, NULL};
  for (int i = 0; i < workers; ++i) {
    if (start(arguments) < 0) {
      fail("start a worker");
    }
  }
  say_listening();
  wait_for_children();
}

// The parent only binds; the workers listen, and say so by closing what they
// have of a pipe.
static void workers_that_listen(void) {
  int listener = make_socket(false);
  int listening[2];
  if (pipe(listening) != 0 || dup2(listening[1], told_here) != told_here) {
    fail("pipe");
  }
  close(listening[1]);
  for (int i = 0; i < workers; ++i) {
    if (fork() == 0) {
      in_child();
      execute("listen", listener);
    }
  }
  close(told_here);
  char none = 0;
  if (read(listening[0], &none, 1) != 0) {
    fail("read");
  }
  say_listening();
  wait_for_children();
}

static void send_descriptor(int channel, int fd) {
  char byte = 0;
  struct iovec body = {.iov_base = &byte, .iov_len = 1};
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof fd)];
  } control = {0};
  struct msghdr message = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  control.header = (struct cmsghdr){
      .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
  memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  if (sendmsg(channel, &message, 0) != 1) {
    fail("sendmsg");
  }
}

static int receive_descriptor(int channel) {
  char byte = 0;
  struct iovec body = {.iov_base = &byte, .iov_len = 1};
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct msghdr message = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  int fd = -1;
  if (recvmsg(channel, &message, 0) != 1) {
    fail("recvmsg");
  }
  memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
  return fd;
}

// Workers forked, and executed, before the bind get the listener later.
static void workers_that_are_given_it(void) {
  int channels[workers];
  for (int i = 0; i < workers; ++i) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
      fail("socketpair");
    }
    channels[i] = pair[0];
    if (fork() == 0) {
      in_child();
      close(pair[0]);
      execute("receive", pair[1]);
    }
    close(pair[1]);
  }
  int listener = make_listening(false);
  for (int i = 0; i < workers; ++i) {
    send_descriptor(channels[i], listener);
  }
  say_listening();
  wait_for_children();
}

// Nothing is bound by the parent: each worker has a socket of its own.
static void workers_that_bind(void) {
  int done[2];
  if (pipe(done) != 0) {
    fail("pipe");
  }
  for (int i = 0; i < workers; ++i) {
    if (fork() == 0) {
      in_child();
      int listener = make_listening(true);
      char byte = 0;
      if (write(done[1], &byte, 1) != 1) {
        fail("write");
      }
      accept_for_ever(listener);
    }
  }
  for (int i = 0; i < workers; ++i) {
    char byte = 0;
    if (read(done[0], &byte, 1) != 1) {
      fail("read");
    }
  }
  say_listening();
  wait_for_children();
}

// The parent binds too, and serves.
static void all_bind(void) {
  int own = make_listening(true);
  for (int i = 0; i < workers; ++i) {
    if (fork() == 0) {
      in_child();
      close(own);
      accept_for_ever(make_listening(true));
    }
  }
  say_listening();
  accept_for_ever(own);
}

static pid_t late_worker;

static void tell_late_worker(int signal) {
  kill(late_worker, signal);
}

// One worker serves. If there is to be a `late` one it has a socket of its own as well, but
// listens, or binds before it, only when the parent is sent SIGUSR2.
static void one_binds(bool late, bool binds_late) {
  sigset_t told;
  sigemptyset(&told);
  sigaddset(&told, SIGUSR2);
  sigprocmask(SIG_BLOCK, &told, NULL);
  int ready[2];
  if (pipe(ready) != 0) {
    fail("pipe");
  }
  if (fork() == 0) {
    in_child();
    int own = make_listening(true);
    close(ready[1]);
    accept_for_ever(own);
  }
  late_worker = late ? fork() : -1;
  if (late_worker == 0) {
    in_child();
    int own = binds_late ? -1 : make_socket(true);
    close(ready[1]);
    int number = 0;
    sigwait(&told, &number);
    own = binds_late ? make_socket(true) : own;
    if (listen(own, settings.backlog) != 0) {
      fail("listen");
    }
    say("late pid=%d", getpid());
    accept_for_ever(own);
  }
  close(ready[1]);
  char none = 0;
  if (read(ready[0], &none, 1) != 0) {
    fail("read");
  }
  if (late) {
    signal(SIGUSR2, tell_late_worker);
    sigprocmask(SIG_UNBLOCK, &told, NULL);
  }
  say_listening();
  wait_for_children();
}

// The master executes itself anew with the listener, as some do to reload, while
// its workers serve.
static void master_by_exec(void) {
  int listener = make_listening(false);
  for (int i = 0; i < workers; ++i) {
    if (fork() == 0) {
      in_child();
      accept_for_ever(listener);
    }
  }
  execute("wait", listener);
}

int main(int argc, char** argv) {
  if (argc < 3) {
    say("usage: family-server SHAPE ADDRESS");
    return 2;
  }
  program = argv[0];
  address = argv[2];
  int inherited = argc > 3 ? atoi(argv[3]) : -1;
  alarm(240);  // outlives no test
  const char* shape = argv[1];
  if (strcmp(shape, "accept") == 0) {
    accept_for_ever(inherited);
  } else if (strcmp(shape, "listen") == 0) {
    if (listen(inherited, settings.backlog) != 0) {
      fail("listen");
    }
    close(told_here);
    accept_for_ever(inherited);
  } else if (strcmp(shape, "receive") == 0) {
    accept_for_ever(receive_descriptor(inherited));
  } else if (strcmp(shape, "wait") == 0) {
    say_listening();
    wait_for_children();
  } else if (strcmp(shape, "child") == 0) {
    in_child();
    accept_for_ever(inherited);
  } else if (strcmp(shape, "spawn") == 0) {
    workers_by_spawn(spawn);
  } else if (strcmp(shape, "vfork") == 0) {
    workers_by_spawn(vfork_and_execute);
  } else if (strcmp(shape, "exec") == 0) {
    workers_by_exec();
  } else if (strcmp(shape, "exec-listen") == 0) {
    workers_that_listen();
  } else if (strcmp(shape, "given") == 0) {
    workers_that_are_given_it();
  } else if (strcmp(shape, "each") == 0) {
    workers_that_bind();
  } else if (strncmp(shape, "one", 3) == 0) {
    one_binds(shape[3] != 0, strcmp(shape, "one-binds-late") == 0);
  } else if (strcmp(shape, "all") == 0) {
    all_bind();
  } else if (strcmp(shape, "master") == 0) {
    master_by_exec();
  }
  say("no such shape");
  return 2;
}
