// The loop of the README, with a thread for every connection.
//
//   accept_loop 127.0.0.1:8080        and to restart it: the same line again
#include "lines.h"

#include <continuity/upgrader.h>

#include <arpa/inet.h>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <netinet/in.h>
#include <string>
#include <thread>

namespace {

std::mutex g_mutex;
std::condition_variable g_finished;
int g_connections = 0;

void serve(int client) {
  while (answer(client) != 0) {
  }
  close(client);
  const std::lock_guard lock(g_mutex);
  --g_connections;
  g_finished.notify_one();
}

// As without the library.
int bind_and_listen(const std::string& text) {
  const auto colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<in_port_t>(std::atoi(text.c_str() + colon + 1)));
  inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr);
  const int sock = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(sock, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(sock, SOMAXCONN) != 0) {
    perror("bind");
    std::exit(EXIT_FAILURE);
  }
  return sock;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string address = argc > 1 ? argv[1] : "127.0.0.1:8080";

  SocketUpgrader upgrader;
  int sock = upgrader.get_listener(address);
  if (sock < 0) {
    sock = bind_and_listen(address);
    upgrader.register_listener(sock);
  }
  say_listening();
  while (!upgrader.has_completed()) {
    const int client = accept(sock, nullptr, nullptr);
    if (client >= 0) {
      const std::lock_guard lock(g_mutex);
      ++g_connections;
      std::thread(serve, client).detach();
    }
  }

  std::unique_lock lock(g_mutex);
  g_finished.wait(lock, [] { return g_connections == 0; });
}
