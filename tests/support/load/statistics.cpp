#include "statistics.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

namespace continuity::load {
namespace {

constexpr std::size_t kept_failures = 10;

// Below 64 each value has a slot, above that each power of two has 32.
constexpr unsigned fine_bits = 5;

std::size_t slot_of(std::uint64_t value) {
  const auto width = static_cast<unsigned>(std::bit_width(value));
  const unsigned shift = width > fine_bits + 1 ? width - fine_bits - 1 : 0;
  return (static_cast<std::size_t>(shift) << fine_bits) + (value >> shift);
}

// The least value of a slot.
std::uint64_t value_of(std::size_t slot) {
  const std::size_t fine = std::size_t{1} << fine_bits;
  const std::size_t shift = slot < 2 * fine ? 0 : slot / fine - 1;
  return (slot - shift * fine) << shift;
}

std::string failures_of(const std::array<std::uint64_t, outcome_count>& outcomes) {
  std::vector<std::string> named;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes.at(i) != 0) {
      named.push_back(fmt::format(R"("{}":{})", outcome_names.at(i), outcomes.at(i)));
    }
  }
  return fmt::format("{}", fmt::join(named, ","));
}

}  // namespace

void Histogram::add(std::chrono::microseconds time) {
  const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 0));
  ++counts_.at(std::min(slot_of(value), counts_.size() - 1));
  ++total_;
  worst_ = std::max(worst_, value);
}

std::uint64_t Histogram::percentile(double share) const {
  const auto rank =
      static_cast<std::uint64_t>(std::ceil(share / 100 * static_cast<double>(total_)));
  std::uint64_t seen = 0;
  for (std::size_t slot = 0; slot < counts_.size(); ++slot) {
    seen += counts_.at(slot);
    if (seen >= std::max<std::uint64_t>(rank, 1)) {
      return value_of(slot);
    }
  }
  return 0;
}

void Counts::add(const Report& report) {
  const auto& [outcome, detail] = report.verdict;
  ++outcomes_.at(static_cast<std::size_t>(outcome));
  if (outcome != Outcome::ok) {
    const std::string server = report.owner == 0 ? "" : fmt::format(", pid {}", report.owner);
    note_failure(fmt::format("{}: {} ({} ms{})", name_of(outcome), detail,
                             report.took.count() / 1000, server));
  }
  if (outcome == Outcome::client_error) {
    return;
  }
  times_.add(report.took);
  if (outcome == Outcome::ok) {
    longest_silence_ = silence(report.ended);
    last_answer_ = std::max(last_answer_, report.ended);
  } else if (report.owner != 0) {
    ++failed_by_pid_[report.owner].at(static_cast<std::size_t>(outcome));
  }
  if (report.is_stale) {
    ++stale_;
    note_failure(fmt::format("stale: served by {}", report.owner));
  }
  // Without an answer, nobody has served it.
  if (report.is_owner_wanted && outcome == Outcome::ok) {
    ++(report.owner == 0 ? unknown_owner_ : by_pid_[report.owner]);
  }
}

void Counts::note_failure(const std::string& text) {
  if (first_failures_.size() < kept_failures) {
    first_failures_.push_back(json_string(text));
  }
}

std::uint64_t Counts::requests() const {
  return std::accumulate(outcomes_.begin(), outcomes_.end(), std::uint64_t{0}) -
         of(Outcome::client_error);
}

Clock::duration Counts::silence(Clock::time_point until) const {
  return std::max(longest_silence_, until - last_answer_);
}

std::string Counts::to_json() const {
  std::string text = fmt::format(R"({{"requests":{},"failed":{})", requests(), failed());
  for (const Outcome outcome :
       {Outcome::ok, Outcome::refused, Outcome::reset, Outcome::closed, Outcome::cut,
        Outcome::timeout, Outcome::other, Outcome::client_error}) {
    text += fmt::format(R"(,"{}":{})", name_of(outcome), of(outcome));
  }
  const std::chrono::duration<double, std::milli> silent = silence(Clock::now());
  text +=
      fmt::format(R"(,"stale":{},"unknown_owner":{},"worst_ms":{:.3f},"silence_ms":{:.3f})", stale_,
                  unknown_owner_, static_cast<double>(times_.worst()) / 1000, silent.count());
  for (const int share : {50, 90, 99}) {
    text += fmt::format(R"(,"p{}_us":{})", share, times_.percentile(share));
  }
  std::vector<std::string> by_pid;
  for (const auto& [pid, count] : by_pid_) {
    by_pid.push_back(fmt::format(R"("{}":{})", pid, count));
  }
  std::vector<std::string> failed_by_pid;
  for (const auto& [pid, outcomes] : failed_by_pid_) {
    failed_by_pid.push_back(fmt::format(R"("{}":{{{}}})", pid, failures_of(outcomes)));
  }
  return text + fmt::format(R"(,"by_pid":{{{}}},"failed_by_pid":{{{}}},"first_failures":[{}]}})",
                            fmt::join(by_pid, ","), fmt::join(failed_by_pid, ","),
                            fmt::join(first_failures_, ","));
}

void Statistics::add(const Report& report) {
  const std::lock_guard lock(mutex_);
  total_.add(report);
  since_mark_.add(report);
}

Counts Statistics::total() {
  const std::lock_guard lock(mutex_);
  return total_;
}

Counts Statistics::mark() {
  const std::lock_guard lock(mutex_);
  return std::exchange(since_mark_, {});
}

std::string json_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      quoted += fmt::format("\\{}", letter);
    } else if (code < ' ' || code > '~') {
      quoted += fmt::format("\\u{:04x}", code);
    } else {
      quoted += letter;
    }
  }
  return quoted + '"';
}

}  // namespace continuity::load
