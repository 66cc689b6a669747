// What a program overwrites, before it begins: its arguments and its environment with its
// title, its directory and its umask when it becomes a daemon, its limits.
//
// Every program that has the library pays for it, also one that never binds anything: one
// copy of some thousand bytes, and seven calls.
#include "shim/start.hpp"

#include "core/proc_text.hpp"
#include "core/processes.hpp"
#include "shim/placement.hpp"
#include "shim/real_calls.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

constexpr mode_t usual_mask = 022;
// Those that servers raise for themselves; the others are what they were at the first bind.
constexpr auto early_limits =
    std::to_array({RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_NPROC, RLIMIT_MEMLOCK});

// What is not touched costs no memory. Larger ones are read at the first bind, from what
// the program has left of them.
struct Kept {
  std::array<rlimit, early_limits.size()> limits;
  std::size_t arguments_size;
  std::size_t size;
  mode_t mask;
  bool has_mask;
  bool is_there;
  std::array<char, 1024> directory;
};
constinit Kept g_kept{};
// Arguments and variables, as they lay there.
CONTINUITY_LARGE_DATA constinit std::array<char, std::size_t{16} * 1024> g_kept_text{};

// The kernel puts all arguments and then all variables into one piece of memory.
void keep_text(int argc, char** argv, char** variables) noexcept {
  if (argc <= 0 || argv == nullptr) {
    return;
  }
  const char* const begin = argv[0];
  const char* const middle = argv[argc - 1] + std::strlen(argv[argc - 1]) + 1;
  const char* end = middle;
  for (; variables != nullptr && *variables != nullptr; ++variables) {
    end = *variables + std::strlen(*variables) + 1;
  }
  // Somebody may have changed them before us (a library's constructor, setenv).
  if (middle < begin || end < middle ||
      static_cast<std::size_t>(end - begin) > g_kept_text.size()) {
    return;
  }
  std::memcpy(g_kept_text.data(), begin, static_cast<std::size_t>(end - begin));
  g_kept.arguments_size = static_cast<std::size_t>(middle - begin);
  g_kept.size = static_cast<std::size_t>(end - begin);
}

__attribute__((constructor)) void keep_start(int argc, char** argv, char** variables) noexcept {
  if (::getauxval(AT_SECURE) != 0) {
    return;
  }
  const ErrnoGuard guard;
  keep_text(argc, argv, variables);
  if (::getcwd(g_kept.directory.data(), g_kept.directory.size()) == nullptr) {
    g_kept.directory.front() = '\0';
  }
  // Its value is only to be had by setting it: not beside another thread, which may be
  // making a file.
  if (__libc_single_threaded != 0) {
    g_kept.mask = ::umask(S_IRWXG | S_IRWXO);
    ::umask(g_kept.mask);
    g_kept.has_mask = true;
  }
  for (std::size_t i = 0; i < early_limits.size(); ++i) {
    ::getrlimit(early_limits.at(i), &g_kept.limits.at(i));
  }
  g_kept.is_there = true;
}

mode_t mask_of(const Sys& sys, int proc) {
  if (g_kept.has_mask) {
    return g_kept.mask;
  }
  const std::string status = read_proc(sys, proc, "self/status");
  constexpr std::string_view key = "\nUmask:\t";
  const auto at = status.find(key);
  unsigned mask = usual_mask;
  if (at != std::string::npos) {
    std::from_chars(status.data() + at + key.size(), status.data() + status.size(), mask, 8);
  }
  return static_cast<mode_t>(mask);
}

// By the name that it was called by, since a new version may have that name by then. Of a
// script, or of what ld.so has been told to run, that is not what the kernel runs.
std::string program_of(const Sys& sys, int proc, const std::string& directory) {
  std::string real = read_link(sys, proc, "self/exe");
  constexpr std::string_view deleted = " (deleted)";
  struct stat running {};
  struct stat named {};
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel's word for it
  const auto* called = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  if (called != nullptr && *called != '\0' && std::strncmp(called, "/proc/", 6) != 0) {
    std::string path = *called == '/' ? called : directory + '/' + called;
    if (sys.fstatat(AT_FDCWD, path.c_str(), &named, 0) == 0 &&
        sys.fstatat(proc, "self/exe", &running, 0) == 0 && running.st_ino == named.st_ino &&
        running.st_dev == named.st_dev) {
      return path;
    }
  }
  if (real.ends_with(deleted)) {
    real.resize(real.size() - deleted.size());
  }
  return real;
}

}  // namespace

Start how_started(const Sys& sys, int proc) {
  Start start;
  const std::string_view text(g_kept_text.data(), g_kept.size);
  if (g_kept.size != 0) {
    start.arguments = split_at_zeros(text.substr(0, g_kept.arguments_size));
    start.environment = split_at_zeros(text.substr(g_kept.arguments_size));
  } else {
    start.arguments = split_at_zeros(read_proc(sys, proc, "self/cmdline"));
    start.environment = split_at_zeros(read_proc(sys, proc, "self/environ"));
  }
  start.directory = g_kept.directory.front() == '/' ? std::string(g_kept.directory.data())
                                                    : read_link(sys, proc, "self/cwd");
  start.mask = mask_of(sys, proc);
  start.user = static_cast<uid_t>(::getauxval(AT_UID));
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    rlimit limit{};
    const auto* early = std::find(early_limits.begin(), early_limits.end(), resource);
    if (g_kept.is_there && early != early_limits.end()) {
      limit = g_kept.limits.at(static_cast<std::size_t>(early - early_limits.begin()));
    } else if (sys.getrlimit(resource, &limit) != 0) {
      continue;
    }
    start.limits.push_back({.resource = resource, .soft = limit.rlim_cur, .hard = limit.rlim_max});
  }
  start.program = program_of(sys, proc, start.directory);
  return start;
}

}  // namespace continuity::shim
