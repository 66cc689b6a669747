// What became of a request, from the client's side.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

namespace continuity::load {

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

enum class Outcome : unsigned char {
  ok,
  refused,       // nobody listens there
  reset,         // the connection was torn down
  closed,        // an end, and not a byte of an answer before it
  cut,           // an end in the middle of the answer; reported as "short"
  timeout,       // none of it in time
  other,         // an answer that is not the expected one, or another errno
  client_error,  // the fault is ours (no port, no descriptor): says nothing about the server
  closed_idle,   // an end between two requests on one connection: nothing was lost
};

constexpr std::size_t outcome_count = 9;
// In the order of the enumeration.
constexpr std::array<std::string_view, outcome_count> outcome_names = {
    "ok", "refused", "reset", "closed", "short", "timeout", "other", "client_error", "closed-idle"};

constexpr std::string_view name_of(Outcome outcome) {
  return outcome_names.at(static_cast<std::size_t>(outcome));
}

struct Verdict {
  Outcome outcome = Outcome::ok;
  std::string detail;  // for people

  [[nodiscard]] bool is_ok() const { return outcome == Outcome::ok; }
};

// What an errno at that step tells of the server, or of ourselves.
Verdict verdict_of_errno(int error, std::string_view step);

}  // namespace continuity::load
