// Continuity for programs that want to ask: hand listening sockets from one
// run of a program to the next without losing a connection.
//
//   SocketUpgrader upgrader;
//   int sock = upgrader.get_listener("127.0.0.1:8080");
//   if (sock < 0) {
//     sock = ...;  // socket, bind, listen
//     upgrader.register_listener(sock);
//   }
//   while (!upgrader.has_completed()) {
//     int client = accept(sock, nullptr, nullptr);
//     ...
//   }
//
// To restart the program, run it again. Linking this library interposes
// nothing: no call of the program is intercepted. C++17 or later.
#pragma once

#include <memory>
#include <string>

namespace continuity {

// One per program. It reads the CONTINUITY_* environment as the preload does
// (libcontinuity(7)) and speaks the same protocol: a program that uses it can
// follow one that ran under the preload, and the other way round.
//
// Every function may be called from any thread, none from a signal handler.
// No function throws, ends the program or writes to the log unless something
// is to be told to who operates it. Since 0.1.
class SocketUpgrader {
 public:
  // Finds out who we are. Nobody is asked and no thread is started yet.
  SocketUpgrader() noexcept;
  // Ends the thread of ours, if one was started. Registered and returned
  // descriptors stay open: they are the program's.
  ~SocketUpgrader();
  SocketUpgrader(const SocketUpgrader&) = delete;
  SocketUpgrader& operator=(const SocketUpgrader&) = delete;

  // The listening socket of the running predecessor at `address`, or -1 if
  // nobody hands one over; error() then tells why, and is empty if simply
  // nobody is there.
  //
  // address: "host:port", "[v6]:port", "*:port", "unix:/path", "unix:@name";
  // host is a number, names are not looked up. The descriptor is the caller's
  // to close. Until has_completed() is called for the first time the socket
  // still belongs to the predecessor as well: do not accept from it, do not
  // change its options or its blocking mode. May take up to 0.1 s, and longer
  // while another restart is under way (CONTINUITY_BUSY=wait, or a probation).
  [[nodiscard]] int get_listener(const std::string& address) noexcept;

  // Makes a listening socket one that the next run of the program can get.
  // The descriptor stays the caller's. False, and error(), if it is not a
  // listening socket.
  bool register_listener(int fd) noexcept;

  // Says that this process is ready to serve: from now on it owns what it got,
  // the predecessor accepts no more, and a successor may ask. Called by the
  // first has_completed(); calling it again does nothing. False, and error(),
  // if the predecessor has withdrawn its offer or does not answer: then this
  // process must not accept, and has_completed() is true.
  bool ready() noexcept;

  // True once a successor has taken over and passed its probation: then finish
  // what is in hand and leave. Between take-over and that, accept finds
  // nothing: it sleeps, or says EAGAIN; afterwards it says EINVAL, so that a
  // thread that slept in it comes back to ask. If the successor fails in its
  // probation, accept goes on as before. At the take-over a poll, epoll_wait or
  // sleep that another thread is just beginning may end with EINTR.
  [[nodiscard]] bool has_completed() noexcept;

  // What went wrong in the last call of this thread's that failed, a sentence;
  // empty if nothing did. Valid until that thread's next call.
  [[nodiscard]] const char* error() const noexcept;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace continuity

using continuity::SocketUpgrader;
