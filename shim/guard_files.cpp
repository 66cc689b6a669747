// Files that another generation lives by: socket files of listeners that have
// been, or are about to be, handed over, and pid files that name somebody
// else. What a program does to them on its way out would hit its successor;
// what a successor does on its way in, its predecessor.
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

constexpr off_t longest_pid_file = 32;

// Whether the file holds the pid of a living process that is not this one.
bool names_somebody_else(int directory, const char* path, const struct stat& status) {
  if (!S_ISREG(status.st_mode) || status.st_size == 0 || status.st_size > longest_pid_file) {
    return false;
  }
  const OwnedFd file(real_sys(),
                     real_sys().openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0));
  std::array<char, longest_pid_file> text{};
  const ssize_t size = real_sys().read(file.get(), text.data(), text.size());
  if (size <= 0) {
    return false;
  }
  pid_t pid = 0;
  const char* end = text.data() + size;
  const auto [rest, error] = std::from_chars(text.data(), end, pid);
  const bool only_a_number =
      std::all_of(rest, end, [](char c) { return c == '\n' || c == ' ' || c == '\0'; });
  return error == std::errc{} && only_a_number && pid > 1 && pid != ::getpid() &&
         (real().kill(pid, 0) == 0 || errno == EPERM);
}

// One of ours that has gone to a successor.
bool is_handed_over(const Process& process, const struct stat& status) {
  const DescriptorsHeld held;
  return std::any_of(process.handed_over.begin(), process.handed_over.end(),
                     [&](const SocketFile& file) {
                       return file.device == status.st_dev && file.inode == status.st_ino;
                     });
}

bool has_handed_over(const Process& process) {
  const DescriptorsHeld held;
  return process.has_handed_over;
}

bool is_claimed(const Process& process, const struct stat& status) {
  return std::any_of(process.claims.begin(), process.claims.end(), [&](const ClaimedListener& one) {
    return one.listener.file.device == status.st_dev && one.listener.file.inode == status.st_ino;
  });
}

// A successor clears the way before it binds: the path is a predecessor's.
bool is_predecessors(Process& process, const struct stat& status) {
  if (process.rendezvous() == nullptr) {
    return false;
  }
  return process.own_taker().is_held(*process.rendezvous(),
                                     {.path = {}, .device = status.st_dev, .inode = status.st_ino});
}

// One of CONTINUITY_HIDE, and the successor's by now, whatever is in it.
bool is_successors(Process& process, int directory, const char* path) {
  if (!process.hidden || !has_handed_over(process)) {
    return false;
  }
  const auto index = process.hidden->find(directory, path);
  return index && process.hidden->is_replaced(*index);
}

bool must_stay(Process& process, int directory, const char* path, const struct stat& status) {
  if (is_successors(process, directory, path)) {
    return true;
  }
  if (S_ISSOCK(status.st_mode)) {
    return is_handed_over(process, status) || is_claimed(process, status) ||
           (process.agent == nullptr && is_predecessors(process, status));
  }
  return (!process.claims.empty() || has_handed_over(process)) &&
         names_somebody_else(directory, path, status);
}

}  // namespace

bool keeps_path(int directory, const char* path) noexcept {
  const ErrnoGuard guard;
  struct stat status {};
  // Most files are neither sockets nor small, and most programs no servers.
  if (real().fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
      (!S_ISSOCK(status.st_mode) && (Process::existing() == nullptr || !S_ISREG(status.st_mode)))) {
    return false;
  }
  try {
    const SlowPath process(Process::get());
    return process && must_stay(*process, directory, path, status);
  } catch (...) {
    return false;
  }
}

// Moving the path of a handed-over listener away is as bad as removing it.
bool keeps_rename(int directory, const char* from) noexcept {
  const ErrnoGuard guard;
  struct stat status {};
  return Process::existing() != nullptr &&
         real().fstatat(directory, from, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         S_ISSOCK(status.st_mode) && keeps_path(directory, from);
}

bool keeps_content(int fd, std::int64_t length) noexcept {
  if (length != 0 || Process::existing() == nullptr) {
    return false;
  }
  const ErrnoGuard guard;
  struct stat status {};
  if (::fstat(fd, &status) != 0 || status.st_size == 0 || status.st_size > longest_pid_file) {
    return false;
  }
  try {
    const SlowPath process(Process::existing());
    if (!process) {
      return false;
    }
    // The program may have opened it for writing alone.
    const std::string path = compose("self/fd/{}", fd);
    return has_handed_over(*process) &&
           names_somebody_else(process->proc.get(), path.c_str(), status);
  } catch (...) {
    return false;
  }
}

}  // namespace continuity::shim
