// Runs a command, and says when: what it takes to start is counted from here on.
//
//   bench-stamp FILE COMMAND [ARGUMENT...]
//
// Writes CLOCK_MONOTONIC to the file, in nanoseconds.
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: bench-stamp FILE COMMAND [ARGUMENT...]\n");
    return 2;
  }
  FILE* file = fopen(argv[1], "we");
  if (file == NULL) {
    perror(argv[1]);
    return 111;
  }
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  fprintf(file, "%lld\n", time.tv_sec * 1000000000LL + time.tv_nsec);
  fclose(file);
  execvp(argv[2], argv + 2);
  perror(argv[2]);
  return 111;
}
