// What servers of threads have in common: each line that a client sends is answered by
// "pid=PID", by a thread of its own for each connection. C++17, as the servers are.
#pragma once

#include <algorithm>
#include <array>
#include <condition_variable>
#include <mutex>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

inline std::mutex g_mutex;
inline std::condition_variable g_finished;
inline int g_connections = 0;

// One line, one write: an event that a test waits for.
inline void say(const std::string& line) {
  const std::string text = line + "\n";
  if (write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    _exit(3);
  }
}

// Until the peer has finished.
inline void serve(int client, pid_t pid) {
  const std::string answer = "pid=" + std::to_string(pid) + "\n";
  std::array<char, 256> buffer{};
  ssize_t size = 0;
  while ((size = read(client, buffer.data(), buffer.size())) > 0) {
    for (auto lines = std::count(buffer.data(), buffer.data() + size, '\n'); lines > 0; --lines) {
      send(client, answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }
  close(client);
  const std::lock_guard lock(g_mutex);
  --g_connections;
  g_finished.notify_one();
}

inline void serve_in_thread(int client, pid_t pid = getpid()) {
  {
    const std::lock_guard lock(g_mutex);
    ++g_connections;
  }
  std::thread(serve, client, pid).detach();
}

inline void finish_what_is_in_hand() {
  std::unique_lock lock(g_mutex);
  g_finished.wait(lock, [] { return g_connections == 0; });
}
