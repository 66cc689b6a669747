// Servers that ask, of several processes or threads: what the headers promise to these.
// Every line is answered by "pid=PID", the pid of the process that was started.
//
//   asking-family shared|own|threads ADDRESS...
//
// shared: the process that asks gets the listener, and forks workers that accept from it.
// They are told of the restart by has_completed(), and by their parent, that they look.
// own: each worker asks itself, under a name of its own, for its socket of a group.
// threads: each thread gets its own address, all at once, and all say that they are ready.
#include "continuity/upgrader.h"
#include "line_threads.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr int workers = 3;
pid_t g_answer = 0;
[[noreturn]] void fail(const std::string& what, const std::string& why) {
  say(what + ": " + why);
  _exit(EXIT_FAILURE);
}

// A worker that its parent does not survive.
bool is_forked_worker() {
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  return child == 0;
}

// Waits until all children have ended well.
void await_children() {
  int status = 0;
  while (wait(&status) > 0) {
    if (status != 0) {
      fail("a worker", std::to_string(status));
    }
  }
}

// What only the process that asks may do, in one that it has forked.
void check_nothing_else_works(SocketUpgrader& upgrader, int sock) {
  const bool refused = upgrader.get_listener("127.0.0.1:1") < 0 && errno == ENOTSUP &&
                       !upgrader.register_listener(sock) && !upgrader.ready() &&
                       upgrader.listen("127.0.0.1:0") < 0 && upgrader.event_descriptor() < 0 &&
                       upgrader.upgrade() < 0 && std::strstr(upgrader.error(), "forked") != nullptr;
  if (!refused) {
    fail("a forked process", upgrader.error());
  }
}

void accept_until(SocketUpgrader& upgrader, int sock, int parent) {
  std::array<pollfd, 2> waited{pollfd{sock, POLLIN, 0}, pollfd{parent, POLLIN, 0}};
  while (!upgrader.has_completed()) {
    if (waited[1].revents != 0) {
      fail("a worker", "was told, and has_completed() was false");
    }
    poll(waited.data(), waited.size(), -1);
    if (const int client = accept(sock, nullptr, nullptr); client >= 0) {
      serve_in_thread(client, g_answer);
    }
  }
  finish_what_is_in_hand();
}

int run_shared(const std::string& address) {
  SocketUpgrader upgrader;
  const int sock = upgrader.listen(address);
  if (sock < 0) {
    fail("listen", upgrader.error());
  }
  // Before it is ready, too: what a helper does at its end is its own affair.
  if (fork() == 0) {
    return upgrader.has_completed() ? 1 : 0;
  }
  await_children();
  if (!upgrader.ready()) {
    fail("ready", upgrader.error());
  }
  fcntl(sock, F_SETFL, O_NONBLOCK);
  std::array<int, 2> told{};
  if (pipe2(told.data(), O_CLOEXEC) != 0) {
    fail("pipe", strerrorname_np(errno));
  }
  for (int i = 0; i < workers; ++i) {
    if (is_forked_worker()) {
      close(told[1]);
      check_nothing_else_works(upgrader, sock);
      accept_until(upgrader, sock, told[0]);
      return 0;  // and its upgrader ends
    }
  }
  say("listening pid=" + std::to_string(getpid()));
  pollfd event{upgrader.event_descriptor(), POLLIN, 0};
  while (!upgrader.has_completed()) {
    poll(&event, 1, -1);
    static_cast<void>(upgrader.outcome());
  }
  close(told[1]);
  await_children();
  return 0;
}

int group_member(const std::string& address) {
  const int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  any.sin_port = htons(static_cast<in_port_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(sock, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (bind(sock, reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      listen(sock, 128) != 0) {
    fail("bind", strerrorname_np(errno));
  }
  return sock;
}

int work_by_itself(int index, const std::string& address, int ready) {
  continuity::UpgraderOptions options;
  options.name = "worker-" + std::to_string(index);
  SocketUpgrader upgrader(options);
  int sock = upgrader.get_listener(address);
  if (sock < 0) {
    sock = group_member(address);
    upgrader.register_listener(sock);
  }
  if (!upgrader.ready()) {
    fail("ready", upgrader.error());
  }
  close(ready);
  while (!upgrader.has_completed()) {
    if (const int client = accept(sock, nullptr, nullptr); client >= 0) {
      serve_in_thread(client, g_answer);
    }
  }
  finish_what_is_in_hand();
  return 0;
}

int run_own(const std::string& address) {
  std::array<int, 2> ready{};
  if (pipe2(ready.data(), O_CLOEXEC) != 0) {
    fail("pipe", strerrorname_np(errno));
  }
  for (int i = 0; i < workers; ++i) {
    if (is_forked_worker()) {
      close(ready[0]);
      return work_by_itself(i, address, ready[1]);
    }
  }
  close(ready[1]);
  char nothing = 0;
  if (read(ready[0], &nothing, 1) != 0) {
    fail("read", strerrorname_np(errno));
  }
  say("listening pid=" + std::to_string(getpid()));
  await_children();
  return 0;
}

int run_threads(const std::vector<std::string>& addresses) {
  SocketUpgrader upgrader;
  std::vector<std::thread> threads;
  std::atomic<std::size_t> got{0};
  for (const std::string& address : addresses) {
    threads.emplace_back([&upgrader, &got, &addresses, address] {
      const int sock = upgrader.listen(address);
      if (sock < 0) {
        fail("listen", upgrader.error());
      }
      got.fetch_add(1);
      while (got.load() < addresses.size()) {  // what comes after ready() is another test's
        std::this_thread::yield();
      }
      if (!upgrader.ready()) {
        fail("ready", upgrader.error());
      }
      if (got.fetch_add(1) + 1 == 2 * addresses.size()) {
        say("listening pid=" + std::to_string(getpid()));
      }
      while (!upgrader.has_completed()) {
        if (const int client = accept(sock, nullptr, nullptr); client >= 0) {
          serve_in_thread(client, g_answer);
        }
        static_cast<void>(upgrader.outcome());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  finish_what_is_in_hand();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr unsigned most_seconds = 240;
  alarm(most_seconds);  // outlives no test
  g_answer = getpid();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string way = arguments.empty() ? "" : arguments.front();
  if (arguments.size() < 2 || (way != "shared" && way != "own" && way != "threads")) {
    say("usage: asking-family shared|own|threads ADDRESS...");
    return 2;
  }
  if (way == "threads") {
    return run_threads({arguments.begin() + 1, arguments.end()});
  }
  return way == "shared" ? run_shared(arguments[1]) : run_own(arguments[1]);
}
