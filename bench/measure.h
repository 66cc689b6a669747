// How long something took: for programs that measure in C.
#ifndef MEASURE_H
#define MEASURE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline void check(bool fine, const char* what) {
  if (!fine) {
    perror(what);
    exit(111);
  }
}

static inline long nanoseconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static inline int compare_longs(const void* one, const void* other) {
  const long a = *(const long*)one;
  const long b = *(const long*)other;
  return (a > b) - (a < b);
}

// Sorts them.
static inline long median(long* values, size_t count) {
  qsort(values, count, sizeof *values, compare_longs);
  return values[count / 2];
}

#endif
