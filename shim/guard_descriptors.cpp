// The close family, and copies: the program may close whatever it likes, and
// ours do not exist for it.
#include "shim/agent.hpp"
#include "shim/early_waits.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"
#include "shim/waits.hpp"

#include <algorithm>
#include <fcntl.h>
#include <linux/close_range.h>

namespace continuity::shim {
namespace {

// Forgets what is known of a listener's number that is about to be closed or
// replaced.
void forget_number(Process& process, int fd) {
  if (ClaimedListener* claim = process.claim_of(fd)) {
    std::erase(claim->fds, fd);
    if (claim->fds.empty()) {
      if (process.taker && !claim->native) {
        process.taker->release(claim->listener, fd);
      }
      process.release_beside(*claim);
      if (!claim->shared) {
        process.page->claims.fetch_sub(1);
      } else if (claim->maker == ::getpid()) {
        // Whoever has it still has more than is asked for.
        process.page->claims.fetch_sub(1);
        process.page->shared_claims.fetch_sub(1);
      }
      process.claims.remove_if([](const ClaimedListener& one) { return one.fds.empty(); });
    }
  }
  process.retired_names.erase(fd);
  forget_early_watches(process, fd);
  set_fd_flags(fd, 0);
}

// Runs `call` on the number while no swap is under way, having forgotten what
// was known of it. In a vfork child the number is not the parent's.
template <typename Call>
int replace_number(int fd, Call call) {
  const SlowPath process(Process::existing());
  if (!process) {
    return call();
  }
  const DescriptorsHeld held;
  forget_number(*process, fd);
  return call();
}

bool in_own_process() {
  const SlowPath process(Process::existing());
  return static_cast<bool>(process);
}

int close_part(unsigned first, unsigned last, int flags) {
  return first > last ? 0 : real().close_range(first, last, flags);
}

}  // namespace

int close_flagged(int fd) {
  if (fd_flags(fd) == 0) {
    return real().close(fd);
  }
  if (is_ours(fd)) {
    if (in_own_process()) {
      errno = EBADF;
      return -1;
    }
    return real().close(fd);
  }
  return replace_number(fd, [&] { return real().close(fd); });
}

// Closes around what is ours, piece by piece.
int close_descriptors(unsigned first, unsigned last, int flags) noexcept {
  const int highest = g_highest_fd.load();
  const bool only_marks = (flags & static_cast<int>(CLOSE_RANGE_CLOEXEC)) != 0;
  if (first > last || highest < 0 || first > static_cast<unsigned>(highest) || only_marks ||
      !in_own_process()) {
    return real().close_range(first, last, flags);
  }
  const SlowPath process(Process::existing());
  const DescriptorsHeld held;
  unsigned begin = first;
  int result = 0;
  const int end = static_cast<int>(std::min(last, static_cast<unsigned>(highest)));
  for (int fd = static_cast<int>(first); fd <= end; ++fd) {
    if (is_ours(fd)) {
      if (begin < static_cast<unsigned>(fd)) {
        result |= close_part(begin, static_cast<unsigned>(fd) - 1, flags);
      }
      begin = static_cast<unsigned>(fd) + 1;
    } else if (is_listener(fd)) {
      forget_number(*process, fd);
    }
  }
  return result | close_part(begin, last, flags);
}

void make_way_for(int fd) noexcept {
  if (!in_own_process()) {
    return;
  }
  const SlowPath process(Process::existing());
  const DescriptorsHeld held;
  if (process && make_way(fd) && process->agent != nullptr) {
    process->agent->notice_moved();
  }
}

int duplicate(int fd) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  const int copy = real().dup(fd);
  note_copy(fd, copy);
  return copy;
}

int duplicate_onto(int from, int to, int flags, bool is_dup2) noexcept {
  const auto call = [&] { return is_dup2 ? real().dup2(from, to) : real().dup3(from, to, flags); };
  if (is_ours(from)) {
    errno = EBADF;
    return -1;
  }
  const bool nothing_known = fd_flags(from) == 0 && fd_flags(to) == 0;
  if (from == to || nothing_known || !in_own_process()) {
    return call();
  }
  if (is_ours(to)) {
    const SlowPath process(Process::existing());
    const DescriptorsHeld held;
    if (!move_own_descriptor(to)) {
      errno = EMFILE;
      return -1;
    }
    const int result = call();
    if (process->agent != nullptr) {
      process->agent->notice_moved();
    }
    return result;
  }
  const bool replaces_listener = is_listener(to);
  const int result = replaces_listener ? replace_number(to, call) : call();
  note_copy(from, result);
  return result;
}

}  // namespace continuity::shim
