// Clients of a datagram server that ask without a pause and account for every answer.
#pragma once

#include "support/waiting.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <sys/types.h>
#include <thread>
#include <vector>

namespace continuity::test {

class DatagramLoad {
 public:
  struct Totals {
    std::uint64_t asked = 0;
    std::uint64_t answered = 0;
    std::uint64_t lost = 0;     // no answer came
    std::uint64_t twice = 0;    // one more answer came
    std::uint64_t strange = 0;  // an answer came from another address
    std::uint64_t stale = 0;    // somebody answered who was not to be asked any more
  };

  // Each client has so many questions on their way at a time.
  explicit DatagramLoad(std::string address, unsigned clients = 4, unsigned window = 4);
  ~DatagramLoad();
  DatagramLoad(const DatagramLoad&) = delete;
  DatagramLoad& operator=(const DatagramLoad&) = delete;

  // What is asked from now on may be answered by these processes alone.
  void only(std::set<pid_t> processes);
  // Waits until something has been asked.
  [[nodiscard]] bool await_question() const;
  // Waits for so many answers more.
  [[nodiscard]] bool await_answers(std::uint64_t more) const;
  // Asks no more, waits for what is still to come, but not longer, and tells.
  Totals finish(std::chrono::milliseconds longest = patience);

 private:
  void run(unsigned client, unsigned window);

  std::string address_;
  std::atomic<bool> ends_{false};
  std::atomic<std::int64_t> longest_end_{0};  // in milliseconds
  std::atomic<std::uint64_t> answered_{0};
  std::atomic<bool> has_asked_{false};
  std::mutex mutex_;  // of what follows
  Totals totals_;
  std::set<pid_t> allowed_;
  std::uint64_t epoch_ = 0;
  std::vector<std::thread> threads_;
};

// One question, one answer; empty if none came.
std::string ask_by_datagram(const std::string& address, const std::string& text);

}  // namespace continuity::test
