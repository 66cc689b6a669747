// A ring made with IORING_SETUP_SINGLE_ISSUER obeys the thread alone that made it. That
// thread is interrupted by a signal, makes our call in the handler, and goes on as if
// nothing had been.
#pragma once

#include "core/rings.hpp"

#include <cstdint>
#include <map>

namespace continuity::shim {

class ThreadIssuer {
 public:
  // `proc` is an open /proc.
  ThreadIssuer(const Sys& sys, int proc) : sys_(&sys), proc_(proc) {}

  // Finds the thread of a ring. False: it cannot be told, or takes no signal.
  bool reach(int ring);
  // As io_uring_register, by that thread. EEXIST: it cannot be reached.
  int call(int ring, unsigned operation, void* argument, unsigned count);

 private:
  [[nodiscard]] pid_t find_thread(int ring) const;
  [[nodiscard]] bool takes_signal(pid_t thread) const;

  const Sys* sys_;
  int proc_;
  std::map<std::uint64_t, pid_t> threads_;  // by the ring's inode
};

}  // namespace continuity::shim
