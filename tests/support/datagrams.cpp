#include "support/datagrams.hpp"

#include "support/client.hpp"
#include "support/waiting.hpp"

#include <array>
#include <cstring>
#include <map>
#include <poll.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

namespace continuity::test {
namespace {

class DatagramSocket {
 public:
  explicit DatagramSocket(const std::string& address)
      : server_(address), fd_(::socket(server_.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    // A UNIX socket is answered only if it has a name; the kernel finds one.
    sockaddr any{};
    any.sa_family = AF_UNIX;
    if (server_.storage.ss_family == AF_UNIX && ::bind(fd_, &any, sizeof any.sa_family) != 0) {
      throw std::runtime_error("a client has no name");
    }
  }
  ~DatagramSocket() { ::close(fd_); }
  DatagramSocket(const DatagramSocket&) = delete;
  DatagramSocket& operator=(const DatagramSocket&) = delete;

  [[nodiscard]] bool send(const std::string& text) const {
    return ::sendto(fd_, text.data(), text.size(), 0, server_.get(), server_.length) >= 0;
  }
  // Empty: nothing came in time.
  std::string receive(std::chrono::milliseconds longest) {
    pollfd entry{.fd = fd_, .events = POLLIN, .revents = 0};
    if (::poll(&entry, 1, static_cast<int>(longest.count())) <= 0) {
      return {};
    }
    std::array<char, 512> text{};
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    const ssize_t size =
        ::recvfrom(fd_, text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
    from_server = length == server_.length && std::memcmp(&from, &server_.storage, length) == 0;
    return size < 0 ? std::string() : std::string(text.data(), static_cast<std::size_t>(size));
  }

  bool from_server = true;  // what was received last

 private:
  SocketAddress server_;
  int fd_;
};

}  // namespace

DatagramLoad::DatagramLoad(std::string address, unsigned clients, unsigned window)
    : address_(std::move(address)) {
  for (unsigned client = 0; client < clients; ++client) {
    threads_.emplace_back([this, client, window] { run(client, window); });
  }
}

DatagramLoad::~DatagramLoad() {
  ends_.store(true);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) {
      thread.join();
    }
  }
}

void DatagramLoad::run(unsigned client, unsigned window) {
  DatagramSocket socket(address_);
  std::map<std::string, std::uint64_t> open;  // what is asked, and when: the epoch
  Totals totals;
  std::uint64_t number = 0;
  auto gives_up = Clock::time_point::max();
  while (!ends_.load() || !open.empty()) {
    while (!ends_.load() && open.size() < window) {
      const std::string text = std::to_string(client) + "-" + std::to_string(++number);
      {
        const std::lock_guard lock(mutex_);
        open[text] = epoch_;
      }
      ++totals.asked;
      if (!socket.send(text)) {
        break;  // counts as lost
      }
      has_asked_.store(true);
    }
    if (ends_.load() && gives_up == Clock::time_point::max()) {
      gives_up = Clock::now() + std::chrono::milliseconds(longest_end_.load());
    }
    const std::string answer = socket.receive(std::chrono::milliseconds(100));
    if (answer.empty()) {
      if (Clock::now() > gives_up) {
        break;
      }
      continue;
    }
    const auto space = answer.find(' ');
    const auto question = open.find(answer.substr(0, space));
    if (question == open.end()) {
      ++totals.twice;
      continue;
    }
    totals.strange += socket.from_server ? 0U : 1U;
    const auto pid = static_cast<pid_t>(std::stol(answer.substr(answer.find('=') + 1)));
    {
      const std::lock_guard lock(mutex_);
      totals.stale +=
          question->second == epoch_ && !allowed_.empty() && !allowed_.contains(pid) ? 1U : 0U;
    }
    open.erase(question);
    ++totals.answered;
    answered_.fetch_add(1);
  }
  // One more answer to what has been answered already would be here by now.
  while (!socket.receive(std::chrono::milliseconds(0)).empty()) {
    ++totals.twice;
  }
  const std::lock_guard lock(mutex_);
  totals_.asked += totals.asked;
  totals_.answered += totals.answered;
  totals_.lost += open.size();
  totals_.twice += totals.twice;
  totals_.strange += totals.strange;
  totals_.stale += totals.stale;
}

void DatagramLoad::only(std::set<pid_t> processes) {
  const std::lock_guard lock(mutex_);
  allowed_ = std::move(processes);
  ++epoch_;
}

bool DatagramLoad::await_question() const {
  return wait_until([&] { return has_asked_.load(); });
}

bool DatagramLoad::await_answers(std::uint64_t more) const {
  const std::uint64_t wanted = answered_.load() + more;
  return wait_until([&] { return answered_.load() >= wanted; });
}

DatagramLoad::Totals DatagramLoad::finish(std::chrono::milliseconds longest) {
  longest_end_.store(longest.count());
  ends_.store(true);
  for (std::thread& thread : threads_) {
    thread.join();
  }
  threads_.clear();
  return totals_;
}

std::string ask_by_datagram(const std::string& address, const std::string& text) {
  DatagramSocket socket(address);
  return socket.send(text) ? socket.receive(patience) : "";
}

}  // namespace continuity::test
