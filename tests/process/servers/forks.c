// A server that forks, and says what its children have and what forking has cost it.
//
//   forking-server [thread]
//
// It has one listener, which it has looked at once. With "thread" it has a second thread
// that sleeps. Says one line and ends: page faults of the parent in fork, the fewest of
// some; threads, mappings and arenas of malloc, without the first, of the child.
#include "looked_at.h"

#include <dirent.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void* sleep_for_ever(void* nothing) {
  for (;;) {
    pause();
  }
  return nothing;
}

static long faults(void) {
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

static long fewest_faults(void) {
  long fewest = 1000;
  for (int i = 0; i < 20; ++i) {
    long before = faults();
    pid_t child = fork();
    if (child == 0) {
      _exit(0);
    }
    long found = faults() - before;
    if (child < 0 || waitpid(child, NULL, 0) != child) {
      fail("fork");
    }
    fewest = found < fewest ? found : fewest;
  }
  return fewest;
}

static int count_threads(void) {
  int count = 0;
  DIR* directory = opendir("/proc/self/task");
  for (const struct dirent* entry; (entry = readdir(directory)) != NULL;) {
    count += entry->d_name[0] != '.';
  }
  closedir(directory);
  return count;
}

// An arena begins at a multiple of 64 MB, of which little can be used at first: the rest
// is kept for it (glibc's malloc/arena.c, HEAP_MAX_SIZE).
static void count_mappings(int* mappings, int* arenas) {
  const uintptr_t heap = (uintptr_t)64 << 20;
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[4096];
  uintptr_t heap_end = 0;
  *mappings = 0;
  *arenas = 0;
  while (fgets(line, sizeof line, maps) != NULL) {
    char* at = NULL;
    uintptr_t begin = strtoul(line, &at, 16);
    uintptr_t end = strtoul(at + 1, &at, 16);
    ++*mappings;
    *arenas += strncmp(at, " ---p", 5) == 0 && begin == heap_end && end % heap == 0;
    heap_end = strncmp(at, " rw-p", 5) == 0 && begin % heap == 0 ? end : 0;
  }
  fclose(maps);
}

int main(int argc, char** argv) {
  listen_and_look();
  pthread_t thread = 0;
  if (argc > 1 && strcmp(argv[1], "thread") == 0 &&
      pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0) {
    fail("pthread_create");
  }
  printf("faults=%ld ", fewest_faults());
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    int mappings = 0;
    int arenas = 0;
    count_mappings(&mappings, &arenas);
    printf("threads=%d mappings=%d arenas=%d\n", count_threads(), mappings, arenas);
    fflush(stdout);
    _exit(0);
  }
  if (waitpid(child, NULL, 0) != child) {
    fail("waitpid");
  }
  return 0;
}
