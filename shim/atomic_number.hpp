// The number of a descriptor, or a handle for one of ours (own_descriptors.hpp), which any
// thread and any signal handler may read; -1 is none.
//
// Memory of zeros is none as well: what begins with anything else is in the library's .data,
// and a library without that has a mapping less, which each fork of the program would copy
// (tests/abi keeps it empty).
#pragma once

#include <atomic>

namespace continuity::shim {

class AtomicNumber {
 public:
  [[nodiscard]] int load(std::memory_order order = std::memory_order_seq_cst) const {
    return ~word_.load(order);
  }
  void store(int number) { word_.store(~number); }
  void raise_to(int number) {
    int word = word_.load();
    while (number > ~word && !word_.compare_exchange_weak(word, ~number)) {
    }
  }

 private:
  std::atomic<int> word_{~-1};
};

}  // namespace continuity::shim
