// The library: a predecessor and a successor in one object, for programs that
// ask. Nothing is wrapped here, so what the preload learns from calls is
// looked up instead: who is inside accept, in /proc.
#include "continuity/upgrader.h"

#include "core/directory.hpp"
#include "core/local_owner.hpp"
#include "core/taker.hpp"
#include "core/wake.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <errno.h>  // program_invocation_short_name
#include <fcntl.h>
#include <map>
#include <mutex>
#include <netinet/in.h>
#include <optional>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

namespace continuity {
namespace {

bool nothing_is_hidden(int) {
  return false;
}

std::string own_identity(const Options& options) {
  return options.name.empty() ? program_invocation_short_name : options.name;
}

std::uint64_t random_number() {
  std::uint64_t number = 0;
  while (::getrandom(&number, sizeof number, 0) != sizeof number) {
  }
  return number;
}

// A program that registers its listeners with us.
class LibraryOwner : public Program, public LocalOwner {
 public:
  LibraryOwner(const Sys& sys, Log& log, int proc, Rendezvous& rendezvous, std::string identity,
               std::uint64_t generation, std::atomic<bool>& completed)
      : LocalOwner(sys, log, proc, rendezvous.directory(), *this, &nothing_is_hidden),
        log_(&log),
        proc_(proc),
        rendezvous_(&rendezvous),
        identity_(std::move(identity)),
        generation_(generation),
        completed_(&completed) {}

  void add(int fd, SocketFile file) {
    const std::lock_guard lock(mutex_);
    registered_[fd] = {socket_inode(sys(), fd), std::move(file)};
  }

  std::vector<Item> inventory() override {
    const std::lock_guard lock(mutex_);
    std::vector<Item> items;
    for (const auto& [fd, known] : registered_) {
      auto listener = describe_socket(sys(), fd);
      if (is_listening(sys(), fd) && listener && socket_inode(sys(), fd) == known.inode) {
        listener->file = known.file;
        items.push_back({.listener = std::move(*listener), .fd = fd, .inode = known.inode});
      }
    }
    return items;
  }

  // The program leaves by itself when has_completed() tells it.
  void stop(int) override {}

  void withdraw() override { rendezvous_->withdraw(identity_, generation_); }

  // Probation is over. Threads asleep in accept are woken for good.
  void forget_listeners() override {
    LocalOwner::forget_listeners();
    completed_->store(true);
    const std::lock_guard lock(mutex_);
    for (const auto& [fd, known] : registered_) {
      if (socket_inode(sys(), fd) != known.inode && is_listening(sys(), fd)) {
        sys().shutdown(fd, SHUT_RDWR);  // a stand-in: nobody else's
      }
    }
  }

  void lock_descriptors() override {}
  void unlock_descriptors() override {}
  void note_retired(int, const Listener&, bool, bool) override {}
  void note_settled() override {}

  void note_reviving(int) override {}

  void note_revived(int fd) override {
    for (const pid_t thread : perhaps_inside({&fd, 1})) {
      wake_thread(sys(), thread, wake_signal());
    }
  }

  // Numbers have been replaced by non-blocking stand-ins. A thread that has got
  // our signal since has been between two system calls, and finds the stand-in
  // at the next; until then it may have the listener in its hands, asleep or on
  // its way to sleep.
  bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) override {
    std::vector<pid_t> untold = perhaps_inside(fds);
    std::vector<pid_t> told;
    for (;;) {
      std::erase_if(untold, [&](pid_t thread) {
        errno = 0;
        const bool exists = wake_thread(sys(), thread, wake_signal());
        if (exists && errno == 0) {  // else there is no room for a signal just now
          told.push_back(thread);
        }
        return !exists || errno == 0 || !is_perhaps_inside(thread, fds);
      });
      std::erase_if(told, [&](pid_t thread) {
        return !is_perhaps_inside(thread, fds) || !is_pending(sys(), proc_, thread, wake_signal());
      });
      const bool clear = untold.empty() && told.empty();
      if (clear || now(sys()) >= deadline) {
        return clear;
      }
      const timespec pause = to_timespec(20 * microsecond);
      sys().ppoll(nullptr, 0, &pause);
    }
  }

 private:
  struct Known {
    std::uint64_t inode;
    SocketFile file;
  };

  int wake_signal() {
    if (wake_signal_ == 0) {
      wake_signal_ = choose_wake_signal(sys());
    }
    return wake_signal_;
  }

  // A thread that runs may be on its way into accept, or out of it.
  bool is_perhaps_inside(pid_t thread, std::span<const int> fds) {
    const int found = find_accept(sys(), proc_, thread);
    return found == running || std::find(fds.begin(), fds.end(), found) != fds.end();
  }

  std::vector<pid_t> perhaps_inside(std::span<const int> fds) {
    std::vector<pid_t> threads;
    const OwnedFd tasks(sys(), sys().openat(proc_, "self/task", O_RDONLY | O_CLOEXEC, 0));
    const auto visit = [&](int thread) {
      if (thread != ::gettid() && is_perhaps_inside(thread, fds)) {
        threads.push_back(thread);
      }
    };
    if (!for_each_number(sys(), tasks.get(), visit)) {
      log_->warn("threads inside accept cannot be found; one may take a connection too many");
    }
    return threads;
  }

  Log* log_;
  int proc_;
  Rendezvous* rendezvous_;
  std::string identity_;
  std::uint64_t generation_;
  std::atomic<bool>* completed_;
  int wake_signal_ = 0;
  std::mutex mutex_;
  std::map<int, Known> registered_;
};

thread_local std::string t_error;

}  // namespace

class SocketUpgrader::Implementation {
 public:
  Implementation() : sys_(libc_sys()), generation_(random_number()) {
    // Like everybody's, this is a race with a setenv of another thread.
    // NOLINTBEGIN(concurrency-mt-unsafe)
    auto read = read_options([](const char* name) -> const char* { return ::getenv(name); });
    options_ = std::move(read.options);
    log_.open(sys_, options_.log_level, options_.log_file, ::getenv("JOURNAL_STREAM"));
    // NOLINTEND(concurrency-mt-unsafe)
    for (const OptionError& error : read.errors) {
      log_.error("{}={} is not {}; the default is used", error.variable, error.value,
                 error.expected);
    }
    // The program leaves by itself: nothing is sent, and nothing may be said to be.
    options_.stop_signal = 0;
    identity_ = own_identity(options_);
    proc_ = OwnedFd(sys_, sys_.openat(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    std::string problem;
    if (!options_.disabled) {
      rendezvous_ = Rendezvous::open(sys_, options_.directory, sys_.geteuid(), problem);
    }
    if (!rendezvous_) {
      problem_ = problem.empty() ? "CONTINUITY_DISABLE is set" : problem;
      return;
    }
    taker_.emplace(sys_, log_, options_, Taker::Self{identity_, generation_});
    owner_.emplace(sys_, log_, proc_.get(), *rendezvous_, identity_, generation_, completed_);
  }

  ~Implementation() {
    if (thread_running_) {
      ending_.store(true);
      ring(sys_, wake_.get());
      ::pthread_join(thread_, nullptr);
      holder_->say_goodbye();
      rendezvous_->withdraw(identity_, generation_);
    }
  }

  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;

  int get_listener(const std::string& text) {
    const std::lock_guard lock(mutex_);
    t_error.clear();
    const auto address = parse_address(text);
    if (!address) {
      t_error = compose(
          "\"{}\" is not an address: host:port, [v6]:port, *:port, unix:/path or "
          "unix:@name",
          text);
      return -1;
    }
    if (!rendezvous_ || ready_) {
      t_error = rendezvous_ ? "get_listener comes before ready" : problem_;
      return -1;
    }
    const OwnedFd probe(sys_, sys_.socket(address->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    auto wanted = describe_socket(sys_, probe.get(), &*address);
    if (!wanted) {
      t_error = compose("{}: {}", text, error_text(wanted.error().code));
      return -1;
    }
    if (!address->unix_path().empty()) {
      const auto file = find_socket_file(sys_, address->unix_path());
      if (!file) {
        return -1;  // nobody is there
      }
      wanted->file = *file;
    }
    auto claim = taker_->claim(*rendezvous_, *wanted);
    if (claim.found != Taker::Found::claimed) {
      if (claim.found == Taker::Found::refused) {
        t_error = compose("{} is held by another generation that does not hand it over now", text);
      }
      return -1;
    }
    const int fd = claim.fd.release();
    owner_->add(fd, claim.listener.file);
    return fd;
  }

  bool register_listener(int fd) {
    const std::lock_guard lock(mutex_);
    t_error.clear();
    if (!rendezvous_) {
      t_error = problem_;
      return false;
    }
    const auto listener = describe_socket(sys_, fd);
    if (!listener || !is_listening(sys_, fd)) {
      t_error = compose("descriptor {} is not a listening socket", fd);
      return false;
    }
    const auto file = find_socket_file(sys_, listener->address.unix_path());
    owner_->add(fd, file.value_or(SocketFile{}));
    return true;
  }

  bool ready() {
    const std::lock_guard lock(mutex_);
    t_error.clear();
    if (!ready_) {
      ready_ = true;
      become_owner();
    }
    if (!refusal_.empty()) {
      t_error = refusal_;
    }
    return refusal_.empty();
  }

  bool has_completed() {
    if (!started_.load(std::memory_order_acquire)) {
      ready();
      started_.store(true, std::memory_order_release);
    }
    return completed_.load();
  }

 private:
  void become_owner() {
    if (!rendezvous_) {
      return;  // serves, but nobody can follow
    }
    // Before the predecessor is asked: who finds that it has handed over looks for us.
    wake_ = OwnedFd(sys_, sys_.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    auto door = rendezvous_->publish(identity_, generation_);
    auto outcome = taker_->become_owner(*rendezvous_);
    if (!outcome.owner) {
      rendezvous_->withdraw(identity_, generation_);
      refusal_ = outcome.reason;
      completed_.store(true);
      return;
    }
    if (!wake_.is_open() || !door) {
      rendezvous_->withdraw(identity_, generation_);
      log_.error(
          "the rendezvous socket cannot be made; this program cannot be restarted without "
          "loss");
      return;
    }
    door_ = std::move(*door);
    holder_.emplace(sys_, log_, options_, *owner_, Holder::Self{identity_, generation_},
                    door_.get(), wake_.get());
    for (Channel& channel : outcome.predecessors) {
      holder_->watch_predecessor(std::move(channel), outcome.probation_ends);
    }
    start_thread();
  }

  void start_thread() {
    sigset_t all;
    sigset_t old_mask;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &old_mask);
    thread_running_ = ::pthread_create(&thread_, nullptr, &Implementation::run, this) == 0;
    ::pthread_sigmask(SIG_SETMASK, &old_mask, nullptr);
    if (!thread_running_) {
      log_.error("no thread can be started; this program cannot be restarted without loss");
      rendezvous_->withdraw(identity_, generation_);
    }
  }

  static void* run(void* self) {
    auto* implementation = static_cast<Implementation*>(self);
    while (!implementation->ending_.load()) {
      try {
        implementation->holder_->run_once();
      } catch (const std::exception&) {  // no memory just now: who asked asks again
      }
    }
    return nullptr;
  }

  const Sys& sys_;
  Options options_;
  Log log_;
  std::string identity_;
  std::uint64_t generation_;
  OwnedFd proc_;
  std::string problem_;
  std::optional<Rendezvous> rendezvous_;
  std::atomic<bool> completed_{false};
  std::atomic<bool> started_{false};
  std::atomic<bool> ending_{false};
  std::optional<Taker> taker_;
  std::optional<LibraryOwner> owner_;
  OwnedFd wake_;
  OwnedFd door_;
  std::optional<Holder> holder_;
  std::mutex mutex_;
  bool ready_ = false;
  std::string refusal_;
  pthread_t thread_{};
  bool thread_running_ = false;
};

namespace {

// No exception leaves us: there is none but a lack of memory.
template <typename Call, typename T>
T guarded(Call call, T otherwise) noexcept {
  try {
    return call();
  } catch (...) {
    return otherwise;
  }
}

}  // namespace

SocketUpgrader::SocketUpgrader() noexcept {
  try {
    implementation_ = std::make_unique<Implementation>();
  } catch (...) {
  }
}

SocketUpgrader::~SocketUpgrader() = default;

int SocketUpgrader::get_listener(const std::string& address) noexcept {
  return guarded([&] { return implementation_ ? implementation_->get_listener(address) : -1; }, -1);
}

bool SocketUpgrader::register_listener(int fd) noexcept {
  return guarded([&] { return implementation_ && implementation_->register_listener(fd); }, false);
}

bool SocketUpgrader::ready() noexcept {
  return guarded([&] { return !implementation_ || implementation_->ready(); }, true);
}

bool SocketUpgrader::has_completed() noexcept {
  return guarded([&] { return implementation_ && implementation_->has_completed(); }, false);
}

const char* SocketUpgrader::error() const noexcept {
  return implementation_ ? t_error.c_str() : "no memory";
}

}  // namespace continuity
