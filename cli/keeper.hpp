// Copies of a server's listeners, for when none of its processes is left: clients wait in
// their queues instead of being refused, and the next run takes over from us, as it would
// from the run before.
#pragma once

#include "cli/servers.hpp"
#include "core/upgrader.hpp"

#include <memory>

namespace continuity::cli {

class Keeper {
 public:
  explicit Keeper(const Sys& sys) : sys_(&sys) {}

  // What the server serves now. What it serves no more is let go of. The conversation with
  // it is over then. True: there are other copies than before.
  bool follow(Server& server);
  // The same of descriptors from elsewhere; those that are no listeners are closed.
  void hold(std::vector<OwnedFd> fds);
  void let_go();
  [[nodiscard]] std::size_t count() const { return copies_.size(); }
  [[nodiscard]] std::vector<int> descriptors() const;

  // From now on the next run of this identity takes over from us. False: it cannot.
  bool offer(const std::string& identity);
  [[nodiscard]] bool offers() const { return upgrader_ != nullptr; }
  // A run has taken over and passed its probation: there is nothing here any more.
  bool look_whether_taken();

 private:
  const Sys* sys_;
  std::vector<OwnedFd> copies_;
  std::string followed_;  // what the copies are of
  std::string identity_;
  std::unique_ptr<Upgrader> upgrader_;
};

}  // namespace continuity::cli
