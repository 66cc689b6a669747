// What all clients together have seen, since the beginning and since the last
// mark.
#pragma once

#include "outcome.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <sys/types.h>
#include <vector>

namespace continuity::load {

struct Report {
  Verdict verdict;
  std::chrono::microseconds took{};
  Clock::time_point ended;
  bool is_owner_wanted = false;
  pid_t owner = 0;        // 0: not found
  bool is_stale = false;  // served by a process that should not serve any more
};

// Times, each kept to within 3 %.
class Histogram {
 public:
  void add(std::chrono::microseconds time);
  [[nodiscard]] std::uint64_t percentile(double share) const;
  [[nodiscard]] std::uint64_t worst() const { return worst_; }

 private:
  std::array<std::uint64_t, 1024> counts_{};
  std::uint64_t total_ = 0;
  std::uint64_t worst_ = 0;
};

class Counts {
 public:
  void add(const Report& report);
  [[nodiscard]] std::uint64_t of(Outcome outcome) const {
    return outcomes_.at(static_cast<std::size_t>(outcome));
  }
  // Every request that has ended, however it did. A fault of ours is none.
  [[nodiscard]] std::uint64_t requests() const;
  [[nodiscard]] std::uint64_t failed() const { return requests() - of(Outcome::ok); }
  [[nodiscard]] std::uint64_t stale() const { return stale_; }
  // The longest time in which nobody had a good answer, from the first of these
  // counts on.
  [[nodiscard]] Clock::duration silence(Clock::time_point until) const;
  [[nodiscard]] std::string to_json() const;

 private:
  void note_failure(const std::string& text);

  std::array<std::uint64_t, outcome_count> outcomes_{};
  std::uint64_t stale_ = 0;
  std::uint64_t unknown_owner_ = 0;
  std::map<pid_t, std::uint64_t> by_pid_;  // good answers
  // What became of the others, where somebody had accepted them.
  std::map<pid_t, std::array<std::uint64_t, outcome_count>> failed_by_pid_;
  Clock::time_point last_answer_ = Clock::now();
  Clock::duration longest_silence_{};
  std::vector<std::string> first_failures_;
  Histogram times_;
};

class Statistics {
 public:
  void add(const Report& report);
  Counts total();
  // Since the last call of this.
  Counts mark();

 private:
  std::mutex mutex_;
  Counts total_;
  Counts since_mark_;
};

std::string json_string(std::string_view text);

}  // namespace continuity::load
