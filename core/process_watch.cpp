#include "core/process_watch.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <sys/ioctl.h>

namespace continuity {
namespace {

// What the kernel knows of a process by its pidfd (include/uapi/linux/pidfd.h of 6.15,
// newer than the headers we are built with).
struct PidfdInfo {
  std::uint64_t mask = 0;
  std::uint64_t cgroup = 0;
  std::array<std::uint32_t, 3> processes{};  // it, its group of threads, its parent
  std::array<std::uint32_t, 8> users{};      // and groups
  std::int32_t wait_status = 0;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr std::uint64_t info_exit = 1U << 3U;                   // PIDFD_INFO_EXIT
constexpr unsigned long get_info = _IOWR(0xFF, 11, PidfdInfo);  // PIDFD_GET_INFO

// Not one that a signal has ended: the others may be about to follow it, and that is its
// end.
bool may_be_parent(const ProcessEnd& end) {
  return end.how == ProcessEnd::How::unknown ||
         (end.how == ProcessEnd::How::exited && end.value == 0);
}

// Workers that their main process's end kills (PR_SET_PDEATHSIG) are gone by then.
constexpr Nanoseconds end_of_family = 100 * millisecond;

}  // namespace

void ProcessWatch::begin(pid_t process, pid_t elder) {
  OwnedFd handle(*sys_, elder > 0 ? sys_->pidfd_open(elder, 0) : -1);
  ProcessEnd before;
  if (process != 0 && elder_ != 0 && elder != elder_) {
    before = await(now(*sys_));
    if (!may_be_parent(before)) {
      return;
    }
  }
  if (process != 0 && !handle.is_open() && handle_.is_open()) {
    return;  // it is gone already: how it has ended is known by what was watched until now
  }
  process_ = process;
  elder_ = elder;
  handle_ = std::move(handle);
  end_ = {};
  parent_end_ = before;
  parent_gone_at_ = now(*sys_);
}

bool ProcessWatch::move_on() {
  if (!may_be_parent(await(now(*sys_))) || process_ == elder_ || !is_running(*sys_, process_)) {
    return false;
  }
  // We may be its parent by now (PR_SET_CHILD_SUBREAPER).
  const pid_t elder = processes_.topmost(process_);
  begin(process_, elder == sys_->getpid() ? process_ : elder);
  return true;
}

ProcessEnd ProcessWatch::await(Nanoseconds deadline) {
  const bool follows_parent = now(*sys_) < parent_gone_at_ + end_of_family;
  if (handle_.is_open() && await_end_of(*sys_, handle_.get(), deadline)) {
    // Its parent may wait for it at any moment. Before the remains are gone the kernel
    // notes the end (release_task in kernel/exit.c calls pidfs_exit): one of the two knows.
    end_ = read_remains();
    if (end_.how == ProcessEnd::How::unknown) {
      end_ = ask_kernel();
    }
    handle_.reset();
    // Or by the same hand.
    const bool was_told_to = end_ == ProcessEnd{.how = ProcessEnd::How::killed, .value = SIGKILL};
    if (follows_parent && parent_end_.is_on_purpose() && was_told_to) {
      end_ = parent_end_;
    }
  }
  return end_;
}

ProcessEnd ProcessWatch::read_remains() const {
  const ProcessEnd end = processes_.end_of(elder_);
  const uid_t user = sys_->geteuid();
  const bool may_look = user == 0 || processes_.user_of(elder_) == user;
  // While it can be sent a signal its number is nobody else's.
  const bool was_it = sys_->pidfd_send_signal(handle_.get(), 0) == 0 || errno == EPERM;
  return was_it && (may_look || end.value != 0) ? end : ProcessEnd{};
}

ProcessEnd ProcessWatch::ask_kernel() const {
  PidfdInfo info{.mask = info_exit};
  if (sys_->ioctl(handle_.get(), get_info, reinterpret_cast<int*>(&info)) != 0 ||
      (info.mask & info_exit) == 0) {
    return {};
  }
  return from_wait_status(info.wait_status);
}

}  // namespace continuity
