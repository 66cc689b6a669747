// How a server sees that it runs already: its pid file names a living process, or
// is locked; somebody answers at its path, or there is a file.
#include "tiny.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int locked_pid_file = -1;

static bool names_a_living_process(void) {
  FILE* file = fopen(settings.pid_file, "r");
  int pid = 0;
  bool living = file != NULL && fscanf(file, "%d", &pid) == 1 && kill(pid, 0) == 0;
  if (file != NULL) {
    fclose(file);
  }
  return living;
}

static bool is_locked_by_another(bool whole_file) {
  locked_pid_file = open(settings.pid_file, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (locked_pid_file < 0) {
    fail("pid file");
  }
  return (whole_file ? flock(locked_pid_file, LOCK_EX | LOCK_NB)
                     : lockf(locked_pid_file, F_TLOCK, 0)) != 0;
}

static bool is_answered(const char* path) {
  union address address;
  socklen_t length = parse_address(path, &address);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  bool answered = connect(fd, &address.any, length) == 0;
  close(fd);
  if (!answered) {
    unlink(path);
  }
  return answered;
}

static bool is_there(const char* path) {
  struct stat status;
  return stat(path, &status) == 0;
}

void refuse_to_run_twice(const char* address) {
  const char* how = settings.refuse;
  bool runs = strcmp(how, "pid") == 0       ? names_a_living_process()
              : strcmp(how, "flock") == 0   ? is_locked_by_another(true)
              : strcmp(how, "lockf") == 0   ? is_locked_by_another(false)
              : strcmp(how, "connect") == 0 ? is_answered(address)
                                            : is_there(address);
  if (runs) {
    say("refused by %s", how);
    exit(EXIT_FAILURE);
  }
}

// One that is locked has more in it than a number.
void write_pid_file(void) {
  int fd = locked_pid_file;
  if (fd >= 0) {
    if (ftruncate(fd, 0) != 0 || dprintf(fd, "tiny-server %d\n", getpid()) < 0) {
      fail("pid file");
    }
    return;
  }
  fd = open(settings.pid_file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 || dprintf(fd, "%d\n", getpid()) < 0) {
    fail("pid file");
  }
  close(fd);
}
