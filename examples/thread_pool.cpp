// Eight threads that wait in accept, each for a connection of its own.
//
//   thread_pool 127.0.0.1:8080
#include "lines.h"

#include <continuity/upgrader.h>

#include <iostream>
#include <thread>
#include <vector>

int main(int argc, char** argv) {
  constexpr int threads = 8;
  SocketUpgrader upgrader;
  const int sock = upgrader.listen(argc > 1 ? argv[1] : "127.0.0.1:8080");
  if (sock < 0) {
    std::cerr << upgrader.error() << '\n';
    return 1;
  }
  say_listening();
  const auto work = [&] {
    while (!upgrader.has_completed()) {
      const int client = accept(sock, nullptr, nullptr);
      if (client >= 0) {
        while (answer(client) != 0) {
        }
        close(client);
      }
    }
  };
  std::vector<std::thread> pool;
  for (int i = 0; i < threads; ++i) {
    pool.emplace_back(work);
  }
  for (std::thread& thread : pool) {
    thread.join();
  }
}
