/* A server that knows nothing of Continuity: what makes it restartable is how it is linked.
 *
 *   server 127.0.0.1:8080
 */
#include "../lines.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void* serve(void* told) {
  const int client = (int)(intptr_t)told;
  while (answer(client) != 0) {
  }
  close(client);
  return NULL;
}

int main(int argc, char** argv) {
  const char* text = argc > 1 ? argv[1] : "127.0.0.1:8080";
  const char* colon = strrchr(text, ':');
  char host[64] = "";
  struct sockaddr_in address = {.sin_family = AF_INET};
  const int on = 1;
  if (colon == NULL || colon - text >= (long)sizeof host) {
    return 2;
  }
  memcpy(host, text, (size_t)(colon - text));
  inet_pton(AF_INET, host, &address.sin_addr);
  address.sin_port = htons((in_port_t)atoi(colon + 1));
  const int sock = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(sock, (struct sockaddr*)&address, sizeof address) != 0 || listen(sock, SOMAXCONN) != 0) {
    perror("bind");
    return 1;
  }
  say_listening();
  for (;;) {
    pthread_t thread;
    const int client = accept(sock, NULL, NULL);
    if (client >= 0 && pthread_create(&thread, NULL, serve, (void*)(intptr_t)client) == 0) {
      pthread_detach(thread);
    }
  }
}
