// A server whose threads are cancelled inside accept, and whose answers are thrown: both
// unwind, the first through whatever stands in accept's place. Every line is answered by
// "pid=PID", a thread per connection.
//
//   cancelled-server ADDRESS:PORT
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <netinet/in.h>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace {

struct Answer : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int make_listener(const std::string& host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<in_port_t>(port));
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  const int sock = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(sock, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(sock, 128) != 0) {
    throw std::runtime_error("bind");
  }
  return sock;
}

std::atomic<int> g_unwound{0};

struct Unwinds {
  Unwinds() = default;
  Unwinds(const Unwinds&) = delete;
  Unwinds& operator=(const Unwinds&) = delete;
  ~Unwinds() { ++g_unwound; }
};

// Waits where nobody ever connects, and is cancelled there.
class Sleeper {
 public:
  Sleeper() : sock_(make_listener("127.0.0.1", 0)) { start(); }
  void cancel_and_start_again() {
    const std::lock_guard lock(mutex_);
    const int before = g_unwound;
    void* result = nullptr;
    pthread_cancel(thread_);
    pthread_join(thread_, &result);
    if (result != PTHREAD_CANCELED || g_unwound != before + 1) {
      std::abort();
    }
    start();
  }

 private:
  void start() { pthread_create(&thread_, nullptr, &Sleeper::sleep, this); }
  static void* sleep(void* self) {
    const Unwinds unwinds;
    for (;;) {
      accept(static_cast<Sleeper*>(self)->sock_, nullptr, nullptr);
    }
  }

  int sock_;
  std::mutex mutex_;
  pthread_t thread_{};
};

void answer(const std::string& line) {
  if (!line.empty()) {
    throw Answer("pid=" + std::to_string(getpid()) + "\n");
  }
}

void serve(int client, Sleeper& sleeper) {
  std::array<char, 256> buffer{};
  std::string line;
  ssize_t size = 0;
  while ((size = recv(client, buffer.data(), buffer.size(), 0)) > 0) {
    for (ssize_t i = 0; i < size; ++i) {
      if (buffer.at(static_cast<std::size_t>(i)) != '\n') {
        line += buffer.at(static_cast<std::size_t>(i));
        continue;
      }
      try {
        answer(line);
      } catch (const Answer& thrown) {
        const std::string text = thrown.what();
        send(client, text.data(), text.size(), MSG_NOSIGNAL);
      }
      line.clear();
    }
  }
  close(client);
  sleeper.cancel_and_start_again();
}

}  // namespace

// NOLINTNEXTLINE(bugprone-exception-escape): a test sees how it ends
int main(int argc, char** argv) {
  constexpr unsigned most_seconds = 240;
  alarm(most_seconds);  // outlives no test
  const std::string address = argc > 1 ? argv[1] : "";
  const auto colon = address.rfind(':');
  if (colon == std::string::npos) {
    std::cerr << "usage: cancelled-server ADDRESS:PORT\n";
    return 2;
  }
  Sleeper sleeper;
  const int sock = make_listener(address.substr(0, colon), std::stoi(address.substr(colon + 1)));
  std::cout << "listening pid=" << getpid() << std::endl;
  for (;;) {
    if (const int client = accept(sock, nullptr, nullptr); client >= 0) {
      std::thread(serve, client, std::ref(sleeper)).detach();
    }
  }
}
