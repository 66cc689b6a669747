// Watches a process that is no child of ours, to know how it has ended.
#pragma once

#include "core/clock.hpp"
#include "core/owned_fd.hpp"
#include "core/processes.hpp"

namespace continuity {

// Not thread-safe.
class ProcessWatch {
 public:
  // `proc` is an open /proc.
  ProcessWatch(const Sys& sys, int proc) : sys_(&sys), processes_(sys, proc) {}

  // From now on `elder`, which `process` is or was forked from. 0: nobody. Where another
  // was watched that has failed meanwhile, that stays what has ended.
  void begin(pid_t process, pid_t elder);
  // Readable once it has ended; -1: nobody is watched, or it is known how that ended.
  [[nodiscard]] int handle() const { return handle_.get(); }
  // It has ended, and what was forked from it has not: it has become a daemon, and from
  // now on what is left is watched. False: what it has left behind ends as it did, and so
  // does what SIGKILL ends a moment later.
  bool move_on();
  // How it has ended; waits until `deadline` for that. Unknown if it lives, and where
  // nothing is left of it and the kernel does not remember (before Linux 6.15).
  ProcessEnd await(Nanoseconds deadline);

 private:
  [[nodiscard]] ProcessEnd read_remains() const;
  [[nodiscard]] ProcessEnd ask_kernel() const;

  const Sys* sys_;
  Processes processes_;
  pid_t process_ = 0;
  pid_t elder_ = 0;
  OwnedFd handle_;
  ProcessEnd end_;
  ProcessEnd parent_end_;  // of who was watched before
  Nanoseconds parent_gone_at_ = 0;
};

}  // namespace continuity
