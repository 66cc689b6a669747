// Every wait of a test has an end. Most of what a test waits for is announced: a
// line, a byte, an exit. Some states are announced to nobody, such as a file that
// goes; those are looked at every millisecond.
#pragma once

#include <chrono>
#include <thread>

namespace continuity::test {

using Clock = std::chrono::steady_clock;

// Far more than anything takes on a busy machine; nothing waits for it to pass.
constexpr std::chrono::seconds patience{20};

template <typename Condition>
bool wait_until(Condition condition, Clock::duration longest = patience) {
  const auto deadline = Clock::now() + longest;
  while (!condition()) {
    if (Clock::now() >= deadline) {
      return condition();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace continuity::test
