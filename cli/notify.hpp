// What a service manager and a service say to each other (sd_notify(3)), from both ends:
// a supervisor is a service to the one and a manager to its server.
#pragma once

#include "core/owned_fd.hpp"

#include <optional>
#include <string>
#include <vector>

namespace continuity::cli {

// A socket of AF_UNIX at a name of the kernel's choice, "@name" in the abstract namespace: nothing
// is left behind in a directory. Not open: it could not be made.
OwnedFd make_named_socket(const Sys& sys, int type, std::string& name);

// The manager that has started us.
class Manager {
 public:
  // `address` as in NOTIFY_SOCKET; empty: there is none, and nothing is said.
  Manager(const Sys& sys, const std::string& address);
  // Lines of NAME=value. Descriptors stay the caller's. Nobody is waited for.
  void say(const std::string& lines, const std::vector<int>& fds = {});
  [[nodiscard]] bool is_there() const { return fd_.is_open(); }

 private:
  const Sys* sys_;
  OwnedFd fd_;
};

// The socket at which our server says the same to us.
class ServerNotices {
 public:
  explicit ServerNotices(const Sys& sys);
  // For NOTIFY_SOCKET of the server; empty: it could not be made.
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

  struct Notice {
    pid_t sender = 0;
    std::string lines{};
    std::vector<OwnedFd> fds{};
  };
  // The next one; nothing if there is none, or it is somebody else's.
  std::optional<Notice> receive();

 private:
  const Sys* sys_;
  std::string address_{};
  OwnedFd fd_;
};

// Of what a server says, what concerns the service and not one of its runs: READY=1,
// MAINPID=, STOPPING=1 and RELOADING=1 are for the supervisor to say.
std::string lines_to_pass_on(const std::string& lines);

// The descriptors that the manager has given us (sd_listen_fds(3)), close-on-exec from now
// on; the variables are removed from our environment.
std::vector<OwnedFd> take_listen_fds(const Sys& sys);

}  // namespace continuity::cli
