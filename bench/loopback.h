// What the programs of measurements have in common.
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>

static inline void raise_descriptor_limit(void) {
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

// A TCP socket that will connect from the next of a thousand addresses of the loopback.
// From one alone there are 28,000 connections to a server, those counted which have ended
// within the last minute; the port is chosen at connect, where only what goes to the same
// server is in the way.
static inline int loopback_socket(int flags) {
  static uint32_t turn;
  const int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  const int on = 1;
  const struct sockaddr_in source = {.sin_family = AF_INET,
                                     .sin_addr = {htonl(0x7f010001U + turn++ % 1000U)}};
  if (fd >= 0 && (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) != 0 ||
                  bind(fd, (const struct sockaddr*)&source, sizeof source) != 0)) {
    return -1;
  }
  return fd;
}

// \r and \n as they are meant; "to" may be "from".
static inline void unescape(char* to, const char* from) {
  for (; *from != '\0'; ++from) {
    if (from[0] == '\\' && (from[1] == 'r' || from[1] == 'n')) {
      *to++ = *++from == 'r' ? '\r' : '\n';
    } else {
      *to++ = *from;
    }
  }
  *to = '\0';
}

#endif
