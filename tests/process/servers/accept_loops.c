// Servers whose threads wait for work inside accept. With several listeners
// each has a thread of its own.
#include "tiny.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void* as_pointer(int fd) {
  return (void*)(intptr_t)fd;
}
static int as_fd(void* pointer) {
  return (int)(intptr_t)pointer;
}

static pthread_t run_thread(void* (*function)(void*), void* argument) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, function, argument) != 0) {
    fail("thread");
  }
  return thread;
}

// The last one in the calling thread.
static void on_every_listener(void* (*function)(void*)) {
  for (int i = 0; i + 1 < listener_count; ++i) {
    run_thread(function, as_pointer(listeners[i]));
  }
  function(as_pointer(listeners[listener_count - 1]));
}

static void* accept_and_serve(void* listener) {
  for (;;) {
    int connection = accept(as_fd(listener), NULL, NULL);
    if (connection >= 0) {
      serve(connection);
    } else if (errno != EINTR && errno != ECONNABORTED) {
      fail("accept");
    }
  }
  return NULL;
}

static void* listen_when_told(void* unused) {
  char told = 0;
  while (read(STDIN_FILENO, &told, 1) != 1) {
  }
  int listener = make_listener(settings.late);
  say("late");
  accept_and_serve(as_pointer(listener));
  return unused;
}

void serve_late(void) {
  run_thread(listen_when_told, NULL);
}

void one_by_one(void) {
  on_every_listener(accept_and_serve);
}

static void* serve_in_thread(void* connection) {
  serve(as_fd(connection));
  return NULL;
}

static void* accept_for_threads(void* listener) {
  for (;;) {
    int connection = accept_connection(as_fd(listener));
    if (connection >= 0) {
      pthread_detach(run_thread(serve_in_thread, as_pointer(connection)));
    }
  }
  return NULL;
}

void thread_per_connection(void) {
  on_every_listener(accept_for_threads);
}

void pool_of_threads(void) {
  enum { size = 6 };
  for (int i = 1; i < size; ++i) {
    run_thread(accept_and_serve, as_pointer(listeners[0]));
  }
  accept_and_serve(as_pointer(listeners[0]));
}

void process_per_connection(void) {
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int connection = accept_connection(listeners[0]);
    if (connection >= 0 && fork() == 0) {
      close(listeners[0]);
      serve(connection);
      _exit(0);
    }
    close(connection);
  }
}

// Its standard input is the connection.
void program_per_connection(void) {
  enum { first_unknown = 3 };
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int connection = accept_connection(listeners[0]);
    if (connection >= 0 && fork() == 0) {
      dup2(connection, STDIN_FILENO);
      closefrom(first_unknown);
      execl("/proc/self/exe", "serves-one", "--serve", (char*)NULL);
      _exit(1);
    }
    close(connection);
  }
}

void with_timeout(void) {
  const struct timeval timeout = {.tv_usec = 30 * 1000};
  setsockopt(listeners[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  for (;;) {
    int connection = accept_connection(listeners[0]);
    if (connection >= 0) {
      pthread_detach(run_thread(serve_in_thread, as_pointer(connection)));
    }
  }
}

static sigjmp_buf before_accept;

static void jump(int signal) {
  (void)signal;
  siglongjmp(before_accept, 1);
}

// Told by a signal it leaves accept without returning from it, never to come
// back; another thread goes on.
void jump_out_of_accept(void) {
  signal(SIGUSR2, jump);
  if (sigsetjmp(before_accept, 1) == 0) {
    accept_and_serve(as_pointer(listeners[0]));
  }
  run_thread(accept_for_threads, as_pointer(listeners[0]));
  say("jumped");
  for (;;) {
    pause();
  }
}

// Told by a signal it cancels the thread that is in accept, and accepts itself.
void cancel_in_accept(void) {
  sigset_t told;
  sigemptyset(&told);
  sigaddset(&told, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &told, NULL);
  pthread_t thread = run_thread(accept_and_serve, as_pointer(listeners[0]));
  int signal = 0;
  sigwait(&told, &signal);
  pthread_cancel(thread);
  pthread_join(thread, NULL);
  say("cancelled");
  accept_for_threads(as_pointer(listeners[0]));
}
