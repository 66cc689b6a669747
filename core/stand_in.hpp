// The deaf socket that takes a listener's place in a retired process.
//
// The program goes on using its descriptor number: it waits on it, accepts
// from it, asks it for options. What it finds there must be a listening socket
// of the right family that nobody can ever connect to. In a datagram socket's place
// it is one that nobody can send to.
#pragma once

#include "core/listener.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"
#include "core/sys.hpp"

#include <string_view>
#include <vector>

namespace continuity {

// What a UNIX stand-in is called while it has a name.
constexpr std::string_view stand_in_prefix = ".stand-in.";

// Makes stand-ins as they are needed and keeps one of each kind: one costs
// 64 us, a copy of it next to nothing.
class StandIns {
 public:
  // UNIX stand-ins are bound in the open `directory` and unlinked at once.
  StandIns(const Sys& sys, int directory) : sys_(&sys), directory_(directory) {}

  // A stand-in for the listener under `fd`, owned by this object: same family,
  // same type, same receive time-out.
  Result<int> get(int fd, const Listener& listener, bool blocking);

  // What answers in the place of a UDP socket that several processes have: see
  // make_answering. One of them at a time.
  [[nodiscard]] OwnedFd answering_for(int fd, const Listener& listener) const;

  void clear() { made_.clear(); }
  // Descriptors of ours in here, appended to `fds`.
  void append_descriptors(std::vector<int>& fds) const {
    for (const Made& made : made_) {
      fds.push_back(made.fd.get());
    }
  }

 private:
  struct Made {
    int family;
    int type;
    timeval timeout;
    bool blocking;
    OwnedFd fd;
  };
  [[nodiscard]] Result<OwnedFd> make(int family, int type) const;

  const Sys* sys_;
  int directory_;
  std::vector<Made> made_;
};

// In the place of a UDP socket: one that is sent from the same address, and hears nothing as
// long as that is open. Not open: there is none, for this address or just now.
// `several`: other processes that have it make theirs, one at a time.
OwnedFd make_answering(const Sys& sys, int fd, const Listener& listener, bool several = false);

// From now on nobody new comes to this listener; what its queue holds, and who has
// begun to connect, is still to be served. To do it again changes nothing. Nothing can be done for
// a UNIX socket, nor for a datagram socket that is in no group: ENOTSUP.
// `grouped`: others with SO_REUSEPORT share its address.
Status close_to_newcomers(const Sys& sys, int fd, const Listener& listener, bool grouped);
// Takes that back, of a TCP listener.
void open_to_newcomers(const Sys& sys, int fd, const Listener& listener);
// Closed so that newcomers come to another listener, if one fits: it need not stop to
// listen for that.
bool is_passed_over(const Sys& sys, int fd);

}  // namespace continuity
