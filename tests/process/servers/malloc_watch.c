// Preloaded: ends the program if a thread that is not its first takes memory from libc, gives
// it back, or looks up a symbol.
#include <dlfcn.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void __libc_free(void* memory);

static void watch(void) {
  if (gettid() != getpid()) {
    const char text[] = "malloc-watch: another thread uses malloc or dlsym\n";
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
    abort();
  }
}

void* malloc(size_t size) {
  watch();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  watch();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  watch();
  return __libc_realloc(memory, size);
}
void free(void* memory) {
  watch();
  __libc_free(memory);
}

// What comes next comes after this library, and so after the one that asks.
void* dlsym(void* handle, const char* name) {
  static void* (*real)(void*, const char*);
  watch();
  if (real == NULL) {
    *(void**)&real = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
  }
  return real(handle, name);
}
