// A lock of ours. Not libc's: while libc knows of no second thread it takes locks as if there
// were none (glibc 2.34, nptl/pthread_mutex_lock.c), and it may not know of our agent
// (unlisted_thread.hpp).
//
// Memory of zeros is a free lock. Not recursive. Lets errno be.
#pragma once

#include <atomic>
#include <cstdint>

namespace continuity::shim {

class Lock {
 public:
  void lock() noexcept {
    std::uint32_t free = is_free;
    if (!word_.compare_exchange_strong(free, is_taken)) [[unlikely]] {
      wait();
    }
  }
  void unlock() noexcept {
    if (word_.exchange(is_free) == is_waited_for) [[unlikely]] {
      wake();
    }
  }
  // In a forked child, whoever had it. Written to only where that changes something: its page
  // would be copied for it.
  void free() noexcept {
    if (word_.load() != is_free) {
      word_.store(is_free);
    }
  }

 private:
  void wait() noexcept;
  void wake() noexcept;

  static constexpr std::uint32_t is_free = 0;
  static constexpr std::uint32_t is_taken = 1;
  static constexpr std::uint32_t is_waited_for = 2;
  std::atomic<std::uint32_t> word_{is_free};
};

}  // namespace continuity::shim
