// A server that wants to ask: the published usage of SocketUpgrader, line for
// line (tests/abi compares it with the README), and around it what the tiny
// server does: every line is answered by "pid=PID", a thread per connection.
//
//   asking-server [--pool | --linger] 127.0.0.1:PORT
//
// C++17, and SocketUpgrader without its namespace: what users may count on.
#include "continuity/upgrader.h"
#include "line_threads.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

static_assert(__cplusplus == 201703L, "what is said of C++17 is tried with C++17");

namespace {

[[noreturn]] void fail(const std::string& what) {
  say(what + " " + strerrorname_np(errno));
  _exit(EXIT_FAILURE);
}

void bind_and_listen(int sock, const std::string& text) {
  const auto colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<in_port_t>(std::stoi(text.substr(colon + 1))));
  inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr);
  const int on = 1;
  setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(sock, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    fail("bind");
  }
  if (listen(sock, 128) != 0) {
    fail("listen");
  }
}

// The same loop in more threads.
std::vector<std::thread> run_pool(SocketUpgrader& upgrader, int sock) {
  constexpr int size = 8;
  std::vector<std::thread> pool;
  for (int i = 1; i < size; ++i) {
    pool.emplace_back([&upgrader, sock] {
      while (!upgrader.has_completed()) {
        if (const int client = accept(sock, nullptr, nullptr); client >= 0) {
          serve_in_thread(client);
        }
      }
    });
  }
  return pool;
}

// Until it is told to go on.
void wait_until_told() {
  say("completed");
  char told = 0;
  while (read(STDIN_FILENO, &told, 1) != 1) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  constexpr unsigned most_seconds = 240;
  alarm(most_seconds);  // outlives no test
  const std::string option = argc > 2 ? argv[1] : "";
  if (argc < 2 || argc > 3 || (argc > 2 && option != "--pool" && option != "--linger")) {
    say("usage: asking-server [--pool | --linger] ADDRESS");
    return 2;
  }
  const std::string address = argv[argc - 1];

  SocketUpgrader upgrader;
  int sock = upgrader.get_listener(address);
  if (sock < 0) {
    sock = socket(AF_INET, SOCK_STREAM, 0);
    bind_and_listen(sock, address);
    upgrader.register_listener(sock);
  }
  say("listening pid=" + std::to_string(getpid()));
  std::vector<std::thread> pool;
  if (option == "--pool") {
    pool = run_pool(upgrader, sock);
  }
  while (!upgrader.has_completed()) {
    int client = accept(sock, nullptr, nullptr);
    if (client >= 0) {
      serve_in_thread(client);
    }
  }
  for (std::thread& thread : pool) {
    thread.join();
  }
  finish_what_is_in_hand();
  if (option == "--linger") {
    wait_until_told();
  }
}
