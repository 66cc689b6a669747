// A server with one thread, which says whether it is one for libc, too.
//
//   one-thread-server [thread | becomes-nobody | becomes-nobody-by-number]
//
// It has one listener, which it has looked at once. With "thread" it has a second thread that
// has used malloc. With "becomes-nobody" it changes its groups and user since, by libc or past
// it. Says one line, and stays until it is ended.
#include "looked_at.h"

#include <grp.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { nobody = 65534 };

static void* volatile used;

static void* use_malloc(void* is_done) {
  used = malloc(1);
  free(used);
  sem_post(is_done);
  for (;;) {
    pause();
  }
  return NULL;
}

static void become_nobody(int by_libc) {
  gid_t group = nobody;
  long failed = by_libc ? setgroups(1, &group) : syscall(SYS_setgroups, 1, &group);
  failed |=
      by_libc ? setresgid(nobody, nobody, nobody) : syscall(SYS_setresgid, nobody, nobody, nobody);
  failed |=
      by_libc ? setresuid(nobody, nobody, nobody) : syscall(SYS_setresuid, nobody, nobody, nobody);
  if (failed != 0) {
    fail("become nobody");
  }
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  listen_and_look();
  pthread_t thread = 0;
  static sem_t is_done;
  if (strcmp(what, "thread") == 0 &&
      (pthread_create(&thread, NULL, use_malloc, &is_done) != 0 || sem_wait(&is_done) != 0)) {
    fail("pthread_create");
  }
  if (strncmp(what, "becomes-nobody", strlen("becomes-nobody")) == 0) {
    become_nobody(strcmp(what, "becomes-nobody") == 0);
  }
  printf("single=%d\n", __libc_single_threaded);
  fflush(stdout);
  for (;;) {
    pause();
  }
}
