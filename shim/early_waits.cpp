#include "shim/early_waits.hpp"

#include "core/clock.hpp"
#include "shim/atomic_number.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"

#include <algorithm>
#include <fcntl.h>

namespace continuity::shim {
namespace {

constinit AtomicNumber g_early_bed;

bool is_claimed(int fd) {
  return (fd_flags(fd) & fd_flag::claimed) != 0;
}

}  // namespace

void begin_early_waits(Process& process) {
  if (process.options.ready != ReadyEvidence::notify || waits_early() || has_said_ready() ||
      process.page->ready_said.load() != 0) {
    return;
  }
  process.early_bed = OwnedFd(real_sys(), real_sys().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!process.early_bed.is_open()) {
    process.log.error(
        "CONTINUITY_READY=notify: {}; the first wait shows that this program is ready",
        error_text(errno));
    return;
  }
  g_early_bed.store(process.early_bed.get());
  g_waits_early.store(true);
}

bool must_wait_early(const Process& process) {
  return waits_early() && process.page != nullptr &&
         process.page->current_phase() == GenerationPhase::starting &&
         process.page->ready_said.load() == 0;
}

int early_bed_number() noexcept {
  return real_sys().number(g_early_bed.load());
}

void end_early_waits(Process& process) {
  if (!g_waits_early.exchange(false)) {
    return;
  }
  for (EarlyWatch& watch : process.early_watches) {
    if (is_listener(watch.fd)) {
      real().epoll_ctl(watch.epoll, EPOLL_CTL_ADD, watch.fd, &watch.event);
    }
  }
  process.early_watches.clear();
  // Who sleeps there reads the end, and so does who comes late, since it has seen before that
  // it is to wait. So it stays open: the next descriptor to get its number would be waited on.
  real_sys().shutdown(process.early_bed.get(), SHUT_RD);
}

void forget_early_watches(Process& process, int fd) {
  std::erase_if(process.early_watches, [&](const EarlyWatch& one) { return one.fd == fd; });
}

bool await_readiness(int fd, bool waits) {
  while (waits_early() && is_claimed(fd)) {
    if (!waits || (control_file(fd, F_GETFL, 0) & O_NONBLOCK) != 0) {
      errno = EAGAIN;
      return false;
    }
    // The kernel knows the program's time-out and its handlers.
    timeval timeout{};
    socklen_t size = sizeof timeout;
    get_option(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size);
    const int bed = early_bed_number();
    real().setsockopt(bed, SOL_SOCKET, SO_RCVTIMEO, &timeout, size);
    char nothing = 0;
    if (real().recv(bed, &nothing, sizeof nothing, 0) < 0 && errno != EBADF) {
      return false;
    }
    before_accept(fd);
    if (waits_early()) {
      pause_for(real_sys(), millisecond);  // another process has the end already
    }
  }
  return true;
}

namespace {

// What errno is to be; 0: done.
int note_watch(int epoll, int operation, int fd, const epoll_event* event) noexcept {
  try {
    const SlowPath process(Process::existing());
    if (!process || !waits_early() || !is_claimed(fd)) {
      return not_early;
    }
    // Whether it is an epoll: it does not know the number.
    if (real().epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nullptr) != 0 && errno != ENOENT) {
      return errno;
    }
    auto& watches = process->early_watches;
    const auto found = std::find_if(watches.begin(), watches.end(), [&](const EarlyWatch& one) {
      return one.epoll == epoll && one.fd == fd;
    });
    const bool known = found != watches.end();
    if (known == (operation == EPOLL_CTL_ADD)) {
      return known ? EEXIST : ENOENT;
    }
    if (operation == EPOLL_CTL_DEL) {
      watches.erase(found);
    } else if (event == nullptr) {
      return EFAULT;
    } else if (known) {
      found->event = *event;
    } else {
      watches.push_back({.epoll = epoll, .fd = fd, .event = *event});
    }
    return 0;
  } catch (...) {
    return ENOMEM;
  }
}

}  // namespace

int control_early_epoll(int epoll, int operation, int fd, const epoll_event* event) noexcept {
  const int error = note_watch(epoll, operation, fd, event);
  if (error > 0) {
    errno = error;
    return -1;
  }
  return error;
}

}  // namespace continuity::shim
