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
// nothing: no call of the program is intercepted. C++17 or later, with exceptions and RTTI
// or without.
//
// All of it is inline, and calls what `continuity.h` declares: the library's binary
// interface is that of C, whatever compiler the program is built with. What is not said
// here, of errors and threads, is said there.
#pragma once

#include "continuity.h"

#include <chrono>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace continuity {

/// What may be chosen. What is set comes before the environment (libcontinuity(7)). Since 0.1.
struct UpgraderOptions {
  using Milliseconds = std::chrono::milliseconds;  ///< of every time that may be chosen

  std::string name{};                           ///< who takes over from whom; empty: unset
  std::string directory{};                      ///< where they meet; empty: unset
  std::optional<Milliseconds> ready_timeout{};  ///< a successor not ready by then is told to end
  std::optional<Milliseconds> probation{};      ///< how long it must live to have succeeded
  std::optional<Milliseconds> unclaimed{};      ///< how long what it does not want is served
  std::optional<Milliseconds> drain_timeout{};  ///< how long connections may live after that
  std::optional<bool> waits_when_busy{};        ///< for a restart under way, instead of failing
  std::optional<int> success_signal{};          ///< to this process, when its restart succeeded
  std::optional<int> log_level{};               ///< 0: errors only ... 3: all
  std::optional<bool> disabled{};               ///< nobody is asked and nothing handed on
};

/// How far the last restart of this process has come. Since 0.1.
enum class UpgradeState {
  serving = CONTINUITY_SERVING,          ///< nobody has begun to take over
  starting = CONTINUITY_STARTING,        ///< a successor starts; this process serves
  taken_over = CONTINUITY_TAKEN_OVER,    ///< a successor serves, and may yet fail
  completed = CONTINUITY_COMPLETED,      ///< has_completed(): finish, and leave
  rolled_back = CONTINUITY_ROLLED_BACK,  ///< it ended on probation; this process serves again
  failed = CONTINUITY_FAILED             ///< it was not to be ready; this process served all along
};

/// Who took over, how long it took, and whether it survived. Since 0.1.
struct UpgradeOutcome {
  using Nanoseconds = std::chrono::nanoseconds;  ///< of every time that is told

  UpgradeState state = UpgradeState::serving;  ///< how far it has come
  pid_t successor = 0;                         ///< who takes over, or has tried to; 0: nobody yet
  Nanoseconds start_time{};     ///< from its claim until it was ready, or failed, or until now
  Nanoseconds switch_time{};    ///< in which nobody accepted, because this process went deaf
  Nanoseconds life_time{};      ///< from then until now, its end, or that of its probation
  std::uint64_t changes = 0;    ///< of the state, so far
  pid_t predecessor = 0;        ///< from whom this process took over; 0: from nobody
  Nanoseconds takeover_time{};  ///< how long that took, from being ready to being the owner
};

/// One per program. It reads the CONTINUITY_* environment as the preload does
/// (libcontinuity(7)) and speaks the same protocol: a program that uses it can
/// follow one that ran under the preload, and the other way round.
///
/// Every function may be called from any thread, none from a signal handler, and only in
/// the process that made it; has_completed() and the end of its life in what that has forked,
/// too. No function throws, ends the program or writes to the log
/// unless something is to be told to who operates it. Since 0.1.
class SocketUpgrader {
 public:
  /// Finds out who we are. Nobody is asked and no thread is started yet.
  SocketUpgrader() noexcept : upgrader_(continuity_open(nullptr)) {}
  /// The same, with what `options` choose. They are not needed afterwards.
  explicit SocketUpgrader(const UpgraderOptions& options) noexcept : upgrader_(open(options)) {}

  /// The socket of the running predecessor at `address`, or -1 if nobody hands one over;
  /// error() then tells why, and is empty if simply nobody is there.
  ///
  /// address: "host:port", "[v6]:port", "*:port", "unix:/path", "unix:@name",
  /// "unix-seqpacket:/path", "unix-dgram:/path" or "udp:host:port"; host is a number, names
  /// are not looked up. The descriptor is the caller's to close. Until ready() it still
  /// belongs to the predecessor as well: do not accept from it, do not change its options or
  /// its blocking mode. After ready() it is this process's own at once. Where the predecessor
  /// has another TCP address in the way, as "127.0.0.1:80" of "*:80", it is a new socket that
  /// listens from ready() on. May take up to 0.1 s, and longer while another restart is under
  /// way.
  [[nodiscard]] int get_listener(const std::string& address) noexcept {
    return continuity_get_listener(upgrader_.get(), address.c_str());
  }

  /// The same, or else a new socket: bound, listening with this backlog unless it is for
  /// datagrams, and registered. -1, and error(), if it cannot be had. Caller closes it.
  [[nodiscard]] int listen(const std::string& address, int backlog = most_of_the_kernel) noexcept {
    return continuity_listen(upgrader_.get(), address.c_str(), backlog);
  }

  /// Makes a socket that listens, or receives datagrams, one that the next run of the
  /// program can get. The descriptor stays the caller's. False, and error(), if it is no
  /// such socket.
  bool register_listener(int fd) noexcept {
    return continuity_register_listener(upgrader_.get(), fd) == 0;
  }

  /// What the running predecessor hands on under a name, or -1: a pipe, a memfd, anything. The
  /// predecessor has it still. The descriptor is the caller's to close, and handed on.
  [[nodiscard]] int get_descriptor(const std::string& name) noexcept {
    return continuity_get_descriptor(upgrader_.get(), name.c_str());
  }

  /// Hands a descriptor on to the next run, under a name of 1 to 128 bytes. It stays the
  /// caller's. False, and error(), if it is not open, or there are 128 already.
  bool register_descriptor(const std::string& name, int fd) noexcept {
    return continuity_register_descriptor(upgrader_.get(), name.c_str(), fd) == 0;
  }

  /// Says that this process is ready to serve: from now on it owns what it got,
  /// the predecessor accepts no more, and a successor may ask. Called by the
  /// first has_completed(); calling it again does nothing. False, and error(),
  /// if the predecessor has withdrawn its offer or does not answer: then this
  /// process must not accept, and has_completed() is true.
  bool ready() noexcept { return continuity_ready(upgrader_.get()) == 0; }

  /// True once a successor has taken over and passed its probation: then finish
  /// what is in hand and leave. What the successor does not want is still accepted
  /// here for UpgraderOptions::unclaimed after the take-over, and this is false until
  /// then. Between take-over and that, accept finds nothing else: it sleeps, or says EAGAIN;
  /// afterwards it says EINVAL, so that a thread that slept in it comes back to ask. If the
  /// successor fails in its probation, accept goes on as before. At the take-over a poll,
  /// epoll_wait or sleep that another thread is just beginning may end with EINTR.
  [[nodiscard]] bool has_completed() noexcept {
    return continuity_has_completed(upgrader_.get()) != 0;
  }

  /// For the program's own event loop: readable when a successor has taken over, has passed
  /// its probation, or has failed, until outcome() is asked. Not to be read from or closed.
  /// -1, and error(), if there is no descriptor left.
  [[nodiscard]] int event_descriptor() noexcept {
    return continuity_event_descriptor(upgrader_.get());
  }

  /// How the last restart of this process went, or goes.
  [[nodiscard]] UpgradeOutcome outcome() noexcept {
    continuity_outcome outcome{};
    outcome.size = sizeof outcome;
    continuity_get_outcome(upgrader_.get(), &outcome);
    return from(outcome);
  }

  /// Starts a new run of this program, or of what `arguments` name, and waits until that has
  /// succeeded or failed, but not longer than `longest`. The program must go on serving
  /// meanwhile, in other threads. The new run's pid; outcome() tells how far it has come.
  /// -1, and error(), if it has failed: then this process serves on.
  pid_t upgrade(const std::vector<std::string>& arguments = {},
                std::optional<std::chrono::milliseconds> longest = {}) noexcept {
    const std::unique_ptr<const char*[]> pointers(new (std::nothrow)
                                                      const char*[arguments.size() + 1]);
    if (!pointers) {
      return -1;  // no memory
    }
    std::size_t count = 0;
    for (const std::string& argument : arguments) {
      pointers[count++] = argument.c_str();
    }
    pointers[count] = nullptr;
    return continuity_upgrade(upgrader_.get(), arguments.empty() ? nullptr : pointers.get(),
                              longest ? longest->count() : -1);
  }

  /// What went wrong in the last call of this thread's that failed, a sentence;
  /// empty if nothing did. Valid until that thread's next call.
  [[nodiscard]] const char* error() const noexcept {
    return upgrader_ ? continuity_error() : "no memory";
  }

 private:
  static constexpr int most_of_the_kernel = 4096;

  struct Close {
    void operator()(continuity_upgrader* upgrader) const noexcept { continuity_close(upgrader); }
  };

  static std::int64_t count(const std::optional<UpgraderOptions::Milliseconds>& time) noexcept {
    return time ? time->count() : CONTINUITY_UNSET;
  }
  static continuity_upgrader* open(const UpgraderOptions& chosen) noexcept {
    continuity_options options{};
    continuity_options_init(&options);
    options.name = chosen.name.empty() ? nullptr : chosen.name.c_str();
    options.directory = chosen.directory.empty() ? nullptr : chosen.directory.c_str();
    options.ready_timeout_ms = count(chosen.ready_timeout);
    options.probation_ms = count(chosen.probation);
    options.unclaimed_ms = count(chosen.unclaimed);
    options.drain_timeout_ms = count(chosen.drain_timeout);
    options.busy = chosen.waits_when_busy ? int{*chosen.waits_when_busy} : CONTINUITY_UNSET;
    options.success_signal = chosen.success_signal.value_or(CONTINUITY_UNSET);
    options.log_level = chosen.log_level.value_or(CONTINUITY_UNSET);
    options.disabled = chosen.disabled ? int{*chosen.disabled} : CONTINUITY_UNSET;
    return continuity_open(&options);
  }
  static UpgradeOutcome from(const continuity_outcome& outcome) noexcept {
    using Time = UpgradeOutcome::Nanoseconds;
    UpgradeOutcome result;
    result.state = static_cast<UpgradeState>(outcome.state);
    result.successor = outcome.successor;
    result.start_time = Time(outcome.start_ns);
    result.switch_time = Time(outcome.switch_ns);
    result.life_time = Time(outcome.lived_ns);
    result.changes = outcome.changes;
    result.predecessor = outcome.predecessor;
    result.takeover_time = Time(outcome.takeover_ns);
    return result;
  }

  std::unique_ptr<continuity_upgrader, Close> upgrader_;
};

}  // namespace continuity

using continuity::SocketUpgrader;
