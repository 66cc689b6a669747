#include "given.h"
#include "notices.h"
#include "tiny.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { most_seconds = 240 };  // outlives no test

struct settings settings = {.backlog = 128, .workers = 4};
int listeners[max_listeners];
int listener_count;

static const struct {
  const char* name;
  serving_loop run;
} loops[] = {
    {"loop", one_by_one},
    {"threads", thread_per_connection},
    {"pool", pool_of_threads},
    {"fork", process_per_connection},
    {"exec", program_per_connection},
    {"prefork", prefork},
    {"prefork-epoll", prefork_epoll},
    {"prefork-pool", prefork_pool},
    {"leave-workers", leave_workers_behind},
    {"fork-and-forget", fork_and_forget},
    {"pass", pass_connections},
    {"copies", copy_connections},
    {"timeout", with_timeout},
    {"jump", jump_out_of_accept},
    {"cancel", cancel_in_accept},
    {"poll", poll_loop},
    {"poll-blocking", poll_blocking_listener},
    {"select", select_loop},
    {"epoll-level", epoll_level},
    {"epoll-edge", epoll_edge},
    {"epoll-oneshot", epoll_oneshot},
    {"epoll-exclusive", epoll_exclusive},
};

void say(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char line[256];
  int size = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  line[size++] = '\n';
  if (write(STDOUT_FILENO, line, (size_t)size) != size) {
    _exit(3);
  }
}

_Noreturn void fail(const char* what) {
  say("%s %s", what, strerrorname_np(errno));
  _exit(EXIT_FAILURE);
}

void set_nonblocking(int fd) {
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

// ---- Where it listens -------------------------------------------------------------

static int bound_socket(const char* text, int type) {
  union address address;
  socklen_t length = parse_address(text, &address);
  int fd = socket(address.any.sa_family, type, 0);
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (settings.reuseport) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  }
  if (settings.options) {
    int size = settings.options * 1024;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  }
  if (bind(fd, &address.any, length) != 0) {
    fail("bind");
  }
  return fd;
}

// Some set options before bind, some after, some after listen.
int make_listener(const char* text) {
  if (strcmp(text, "none") == 0) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (listen(fd, settings.backlog) != 0) {
      fail("listen");
    }
    return fd;
  }
  const int given = take_given(SOCK_STREAM);
  if (given >= 0) {
    if (settings.nonblocking) {
      set_nonblocking(given);
    }
    return given;
  }
  int fd = bound_socket(text, SOCK_STREAM);
  if (settings.rebind) {
    close(fd);
    fd = bound_socket(text, SOCK_STREAM);
  }
  int priority = settings.options % 7;
  setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
  if (listen(fd, settings.backlog) != 0) {
    fail("listen");
  }
  if (settings.options) {
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &settings.options, sizeof settings.options);
  }
  if (settings.nonblocking) {
    set_nonblocking(fd);
  }
  return fd;
}

static int port_of(int fd) {
  union address address = {0};
  socklen_t length = sizeof address;
  getsockname(fd, &address.any, &length);
  return address.any.sa_family == AF_UNIX ? 0 : ntohs(address.v4.sin_port);
}

// ---- What it does on its way ----------------------------------------------------------

// As daemons do, who do not know what they inherit.
static void close_others(int first) {
  if (settings.close_others == NULL) {
    return;
  }
  if (strcmp(settings.close_others, "loop") == 0) {
    for (int fd = first; fd < 1024; ++fd) {
      close(fd);
    }
  } else if (strcmp(settings.close_others, "range") == 0) {
    close_range((unsigned)first, ~0U, 0);
  } else {
    closefrom(first);
  }
}

// Whoever handles every signal would not hear of a restart by one.
static void handle_every_signal(void) {
  for (int signal = 1; signal < 32; ++signal) {
    if (signal != SIGALRM) {
      struct sigaction action = {.sa_handler = SIG_IGN};
      sigaction(signal, &action, NULL);
    }
  }
}

// In the handler itself: nothing it calls may do more there than libc does.
static void clean_up_and_exit(int signal) {
  (void)signal;
  if (settings.pid_file) {
    unlink(settings.pid_file);
  }
  if (settings.remove) {
    unlink(settings.remove);
  }
  _exit(0);
}

// As servers wake their threads that are in accept.
static void shut_down_listener(int signal) {
  (void)signal;
  shutdown(listeners[0], SHUT_RDWR);
}

// It waits for work meanwhile, and holds nothing of libc's.
static void exit_as_told(int signal) {
  (void)signal;
  exit(settings.exit_status);
}

static void tell_success(int signal) {
  (void)signal;
  say("told of success");
}

static void tell_signal(int signal) {
  say("told %s pid=%d", sigabbrev_np(signal), getpid());
}

// As some servers get rid of their workers.
static void kill_group_and_exit(int number) {
  signal(number, SIG_IGN);
  if (strcmp(settings.kills, "zero") == 0) {
    kill(0, number);
  } else if (strcmp(settings.kills, "negative") == 0) {
    kill(-getpgrp(), number);
  } else {
    killpg(getpgrp(), number);
  }
  clean_up_and_exit(number);
}

static void say_stopping_and_exit(int signal) {
  tell_manager("sendto", "STOPPING=1");
  clean_up_and_exit(signal);
}

static void set_handlers(void) {
  signal(SIGUSR1, tell_success);
  if (settings.says_stopping) {
    signal(SIGTERM, say_stopping_and_exit);
  }
  if (settings.pid_file || settings.remove) {
    signal(SIGTERM, clean_up_and_exit);
  }
  if (settings.shut_down) {
    signal(SIGTERM, shut_down_listener);
  }
  if (settings.kills) {
    signal(SIGTERM, kill_group_and_exit);
  }
  if (settings.tell_signals) {
    const int told[] = {SIGQUIT, SIGINT, SIGUSR1, SIGWINCH};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; ++i) {
      signal(told[i], tell_signal);
    }
  }
  if (settings.deaf_to_signals) {
    handle_every_signal();
  }
}

// Ends in the middle of its start: after listen, before it waits for work.
static void end_as_told(void) {
  if (settings.end == NULL) {
    return;
  }
  if (strcmp(settings.end, "exit0") == 0) {
    clean_up_and_exit(0);
  }
  if (strcmp(settings.end, "exit1") == 0) {
    exit(1);
  }
  if (strcmp(settings.end, "segv") == 0) {
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
  }
  if (strcmp(settings.end, "kill") == 0) {
    kill(getpid(), SIGKILL);
  }
  // "hang": until it is told to go on.
  char told = 0;
  while (read(STDIN_FILENO, &told, 1) != 1) {
  }
}

static bool becomes_nobody(const char* when) {
  return settings.nobody != NULL && strcmp(settings.nobody, when) == 0;
}

static void prepare_to_bind(void) {
  if (settings.helper) {
    fork_helper();
  }
  if (settings.serving_helper) {
    fork_serving_helper();
  }
  if (settings.no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    fail("prctl");
  }
  if (becomes_nobody("before")) {
    become_nobody();
  }
  if (becomes_nobody("to-and-fro")) {
    become_nobody_for_a_while();
  }
}

static void change_when_bound(void) {
  if (becomes_nobody("after")) {
    become_nobody();
  }
  if (becomes_nobody("to-and-fro")) {
    become_root_again();
    become_nobody_for_a_while();
  }
  if (settings.background != NULL) {
    if (strcmp(settings.background, "twice") == 0) {
      go_to_background_twice();
    } else if (strcmp(settings.background, "late") == 0) {
      go_to_background_late();
    } else if (daemon(1, 1) != 0) {
      fail("daemon");
    }
    alarm(most_seconds);  // which no child inherits
  }
}

static void start(int count, char** addresses) {
  enum { first_unknown = 3 };
  close_others(first_unknown);
  if (settings.supervised && getenv("CONTINUITY_NEW") != NULL) {
    supervise_the_rest();
  }
  if (settings.daemon && daemon(1, 1) != 0) {
    fail("daemon");
  }
  alarm(most_seconds);  // outlives no test
  set_handlers();
  if (settings.refuse) {
    refuse_to_run_twice(addresses[0]);
  }
  if (settings.comm != NULL) {
    prctl(PR_SET_NAME, settings.comm);
  }
  prepare_to_bind();
  if (settings.remove) {
    unlink(settings.remove);
  }
  for (; listener_count < count; ++listener_count) {
    listeners[listener_count] = make_listener(addresses[listener_count]);
  }
  if (settings.udp) {
    answer_datagram(bound_socket(addresses[0], SOCK_DGRAM));
  }
  if (settings.duplicate) {
    int original = listeners[0];
    listeners[0] = dup(original);
    close(original);
  }
  close_others(listeners[listener_count - 1] + 1);
  change_when_bound();
  if (settings.pid_file) {
    write_pid_file();
  }
  if (settings.shut_down) {
    shutdown(listeners[0], SHUT_RDWR);
    listen(listeners[0], settings.backlog);
  }
  if (settings.describe) {
    char description[256];
    describe_options(description, sizeof description);
    say("options %s", description);
  }
  if (settings.try_accept) {
    int connection = accept(listeners[0], NULL, NULL);
    say("accept %s", connection < 0 ? strerrorname_np(errno) : "took a connection");
  }
}

static const struct option option_names[] = {
    {"close-others", required_argument, NULL, 'c'},
    {"daemon", no_argument, NULL, 'd'},
    {"dup", no_argument, NULL, 'D'},
    {"rebind", no_argument, NULL, 'r'},
    {"reuseport", no_argument, NULL, 'g'},
    {"udp", no_argument, NULL, 'u'},
    {"nonblocking", no_argument, NULL, 'n'},
    {"try-accept", no_argument, NULL, 't'},
    {"describe", no_argument, NULL, 'a'},
    {"shutdown", no_argument, NULL, 's'},
    {"deaf-to-signals", no_argument, NULL, 'S'},
    {"options", required_argument, NULL, 'o'},
    {"backlog", required_argument, NULL, 'b'},
    {"late", required_argument, NULL, 'l'},
    {"end", required_argument, NULL, 'e'},
    {"pid-file", required_argument, NULL, 'p'},
    {"remove", required_argument, NULL, 'R'},
    {"refuse", required_argument, NULL, 'f'},
    {"workers", required_argument, NULL, 'w'},
    {"max-requests", required_argument, NULL, 'm'},
    {"nobody", required_argument, NULL, 'N'},
    {"chroot", required_argument, NULL, 'C'},
    {"background", required_argument, NULL, 'B'},
    {"no-new-privileges", no_argument, NULL, 'P'},
    {"helper", no_argument, NULL, 'h'},
    {"stranger", no_argument, NULL, 'x'},
    {"serving-helper", no_argument, NULL, 'H'},
    {"idle", no_argument, NULL, 'i'},
    {"serve", no_argument, NULL, 'I'},
    {"deploy", required_argument, NULL, 'y'},
    {"supervised", no_argument, NULL, 'v'},
    {"tell-signals", no_argument, NULL, 'T'},
    {"exit-on-signal", required_argument, NULL, 'E'},
    {"comm", required_argument, NULL, 'O'},
    {"kills-group", required_argument, NULL, 'k'},
    {"say-ready", required_argument, NULL, 'q'},
    {"say-ready-later", required_argument, NULL, 'Q'},
    {"say-stopping", no_argument, NULL, 'z'},
    {0},
};

static void do_nothing(void) {
  alarm(most_seconds);
  for (;;) {
    pause();
  }
}

static void read_options(int argc, char** argv) {
  for (int option; (option = getopt_long(argc, argv, "+", option_names, NULL)) != -1;) {
    switch (option) {
      case 'c':
        settings.close_others = optarg;
        break;
      case 'd':
        settings.daemon = true;
        break;
      case 'D':
        settings.duplicate = true;
        break;
      case 'r':
        settings.rebind = true;
        break;
      case 'g':
        settings.reuseport = true;
        break;
      case 'u':
        settings.udp = true;
        break;
      case 'n':
        settings.nonblocking = true;
        break;
      case 't':
        settings.try_accept = true;
        break;
      case 'a':
        settings.describe = true;
        break;
      case 's':
        settings.shut_down = true;
        break;
      case 'S':
        settings.deaf_to_signals = true;
        break;
      case 'o':
        settings.options = atoi(optarg);
        break;
      case 'b':
        settings.backlog = atoi(optarg);
        break;
      case 'l':
        settings.late = optarg;
        break;
      case 'e':
        settings.end = optarg;
        break;
      case 'p':
        settings.pid_file = optarg;
        break;
      case 'R':
        settings.remove = optarg;
        break;
      case 'f':
        settings.refuse = optarg;
        break;
      case 'w':
        settings.workers = atoi(optarg);
        break;
      case 'm':
        settings.max_requests = atoi(optarg);
        break;
      case 'N':
        settings.nobody = optarg;
        break;
      case 'C':
        settings.root = optarg;
        break;
      case 'B':
        settings.background = optarg;
        break;
      case 'P':
        settings.no_new_privileges = true;
        break;
      case 'h':
        settings.helper = true;
        break;
      case 'x':
        settings.stranger = true;
        break;
      case 'H':
        settings.serving_helper = true;
        break;
      case 'i':
        do_nothing();
        break;
      case 'I':
        serve(STDIN_FILENO);
        exit(0);
      case 'y':
        settings.deploy = optarg;
        break;
      case 'v':
        settings.supervised = true;
        break;
      case 'T':
        settings.tell_signals = true;
        break;
      case 'E':
        settings.exit_status = atoi(optarg);
        signal(SIGPWR, exit_as_told);
        break;
      case 'O':
        settings.comm = optarg;
        break;
      case 'k':
        settings.kills = optarg;
        break;
      case 'q':
        settings.says_ready = optarg;
        break;
      case 'Q':
        settings.says_ready_later = optarg;
        break;
      case 'z':
        settings.says_stopping = true;
        break;
      default:
        exit(2);
    }
  }
}

int main(int argc, char** argv) {
  read_options(argc, argv);
  if (argc - optind < 2 || argc - optind - 1 > max_listeners) {
    say("usage: tiny-server [OPTION...] LOOP ADDRESS...");
    return 2;
  }
  const char* name = argv[optind];
  start(argc - optind - 1, argv + optind + 1);
  say("listening pid=%d port=%d other=%d", getpid(), port_of(listeners[0]),
      port_of(listeners[listener_count - 1]));
  if (settings.says_ready != NULL && tell_manager(settings.says_ready, "READY=1") != 0) {
    fail("tell");
  }
  end_as_told();
  if (settings.says_ready_later != NULL) {
    say_ready_later(settings.says_ready_later);
  }
  if (settings.deploy != NULL) {
    deploy_when_told(argv);
  }
  if (settings.stranger) {
    fork_stranger(argv[0]);
  }
  if (settings.late) {
    serve_late();
  }
  for (size_t i = 0; i < sizeof loops / sizeof loops[0]; ++i) {
    if (strcmp(loops[i].name, name) == 0) {
      loops[i].run();
    }
  }
  say("ended");
  return 1;
}
