#include "tiny.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// 127.0.0.1:PORT, [::1]:PORT, /path, @abstract
socklen_t parse_address(const char* text, union address* address) {
  memset(address, 0, sizeof *address);
  if (text[0] == '/' || text[0] == '@') {
    address->path.sun_family = AF_UNIX;
    size_t length = strlen(text);
    memcpy(address->path.sun_path, text, length);
    if (text[0] == '@') {
      address->path.sun_path[0] = 0;
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (text[0] == '/'));
  }
  char host[64] = "";
  const char* colon = strrchr(text, ':');
  bool v6 = text[0] == '[';
  memcpy(host, text + v6, (size_t)(colon - text) - 2 * v6);
  in_port_t port = htons((in_port_t)atoi(colon + 1));
  if (v6) {
    address->v6.sin6_family = AF_INET6;
    address->v6.sin6_port = port;
    inet_pton(AF_INET6, host, &address->v6.sin6_addr);
    return sizeof address->v6;
  }
  address->v4.sin_family = AF_INET;
  address->v4.sin_port = port;
  inet_pton(AF_INET, host, &address->v4.sin_addr);
  return sizeof address->v4;
}
