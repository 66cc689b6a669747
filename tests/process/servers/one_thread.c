// A server with one thread, which says what it is for libc and for the kernel.
//
//   one-thread-server [thread | becomes-nobody | becomes-nobody-by-number]
//
// It has one listener, which it has looked at once. With "thread" it has a second thread that
// has used malloc, and sleeps. With "becomes-nobody" it changes its groups and user since, by libc
// or past it. Says one line and ends: whether libc takes it for a program of one thread, how many
// there are, and as how many different users and groups they run.
#include <arpa/inet.h>
#include <dirent.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { nobody = 65534, most_threads = 16, longest = 1024 };

static void fail(const char* what) {
  perror(what);
  exit(1);
}

static int listen_somewhere(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 1) != 0) {
    fail("listen");
  }
  return fd;
}

static void* volatile used;

static void* sleep_for_ever(void* is_done) {
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

// "Uid:", "Gid:" and "Groups:" of a thread.
static void identity_of(const char* thread, char* identity) {
  char path[64];
  char line[256];
  snprintf(path, sizeof path, "/proc/self/task/%.20s/status", thread);
  FILE* status = fopen(path, "r");
  if (status == NULL) {
    fail(path);
  }
  *identity = '\0';
  while (fgets(line, sizeof line, status) != NULL) {
    if (strncmp(line, "Uid:", 4) == 0 || strncmp(line, "Gid:", 4) == 0 ||
        strncmp(line, "Groups:", 7) == 0) {
      strncat(identity, line, longest - strlen(identity) - 1);
    }
  }
  fclose(status);
}

static void count_threads(int* threads, int* identities) {
  static char known[most_threads][longest];
  char identity[longest];
  DIR* directory = opendir("/proc/self/task");
  *threads = 0;
  *identities = 0;
  for (const struct dirent* entry; (entry = readdir(directory)) != NULL;) {
    if (entry->d_name[0] == '.' || *identities == most_threads) {
      continue;
    }
    ++*threads;
    identity_of(entry->d_name, identity);
    int at = 0;
    while (at < *identities && strcmp(known[at], identity) != 0) {
      ++at;
    }
    if (at == *identities) {
      memcpy(known[(*identities)++], identity, sizeof identity);
    }
  }
  closedir(directory);
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  struct pollfd waiting = {.fd = listen_somewhere(), .events = POLLIN};
  if (poll(&waiting, 1, 0) != 0) {
    fail("poll");
  }
  pthread_t thread = 0;
  static sem_t is_done;
  if (strcmp(what, "thread") == 0 &&
      (pthread_create(&thread, NULL, sleep_for_ever, &is_done) != 0 || sem_wait(&is_done) != 0)) {
    fail("pthread_create");
  }
  if (strncmp(what, "becomes-nobody", strlen("becomes-nobody")) == 0) {
    become_nobody(strcmp(what, "becomes-nobody") == 0);
  }
  int threads = 0;
  int identities = 0;
  count_threads(&threads, &identities);
  // On a busy machine the other thread may not have had a processor.
  for (int i = 0; i < 500 && identities > 1 && strcmp(what, "becomes-nobody") == 0; ++i) {
    usleep(10000);
    count_threads(&threads, &identities);
  }
  printf("single=%d threads=%d identities=%d\n", __libc_single_threaded, threads, identities);
  return 0;
}
