// Signals that a program sends to its own process group. Some servers end like
// that: kill(0, SIGTERM), to be rid of their workers. Where one script has started
// predecessor and successor they are in one group, and the one that ends would
// take the other with it.
//
// So as long as a restart makes a difference, such a signal reaches the generation
// of who sends it: its processes and what descends from them.
//
// It is sent in signal handlers more often than not. Hence nothing here allocates,
// locks, or says anything.
#include "core/directory.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

namespace continuity::shim {
namespace {

struct Stat {
  pid_t parent = 0;
  pid_t group = 0;
  std::uint64_t started = 0;
};

class Proc {
 public:
  explicit Proc(const Process& process) {
    const int known = real_sys().number(process.proc.get());
    // In a root directory of its own a program has no other.
    directory_ = known >= 0 ? real().openat(known, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                            : real().open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  ~Proc() { real().close(directory_); }
  Proc(const Proc&) = delete;
  Proc& operator=(const Proc&) = delete;

  // Zeros where there is no such process.
  [[nodiscard]] Stat stat(pid_t process) const {
    std::array<char, 32> path{};
    char* const end = std::to_chars(path.data(), path.data() + path.size() / 2, process).ptr;
    std::copy_n("/stat", sizeof "/stat", end);
    std::array<char, 1024> text{};
    const int file = real().openat(directory_, path.data(), O_RDONLY | O_CLOEXEC);
    const ssize_t size = file >= 0 ? real().read(file, text.data(), text.size()) : 0;
    if (file >= 0) {
      real().close(file);
    }
    return parse({text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))});
  }

  template <typename Visit>
  void for_each(Visit visit) const {
    // Where /proc cannot be read to its end, who was found is told.
    static_cast<void>(for_each_number(real_sys(), directory_, visit));
  }

 private:
  // "4711 (any name) S parent group ...": the start time is the twentieth after the name.
  static Stat parse(std::string_view text) {
    constexpr int parent_at = 1;
    constexpr int group_at = 2;
    constexpr int started_at = 19;
    Stat found;
    const std::size_t bracket = text.rfind(')');
    if (bracket == std::string_view::npos) {
      return found;
    }
    text.remove_prefix(bracket + 1);
    for (int i = 0; i <= started_at && !text.empty(); ++i) {
      text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
      const std::string_view word = text.substr(0, text.find(' '));
      const auto read_into = [&](auto& number) {
        std::from_chars(word.data(), word.data() + word.size(), number);
      };
      if (i == parent_at) {
        read_into(found.parent);
      } else if (i == group_at) {
        read_into(found.group);
      } else if (i == started_at) {
        read_into(found.started);
      }
      text.remove_prefix(word.size());
    }
    return found;
  }

  int directory_;
};

// Whoever we took over from has not ended.
bool is_watched(const Page& page, const Proc& proc) {
  const std::uint32_t count = std::min(page.outlived_count.load(), std::uint32_t{max_outlived});
  for (std::uint32_t i = 0; i < count; ++i) {
    const Outlived& one = page.outlived.at(i);
    if (proc.stat(one.process.load()).started == one.started.load() && one.started.load() != 0) {
      return true;
    }
  }
  return false;
}

// From the claim of a successor to the end of its predecessor.
bool has_part_in_restart(const Page& page, const Proc& proc) {
  const auto stage = static_cast<Stage>(page.stage.load());
  if (stage != Stage::serving) {
    return true;
  }
  return page.current_phase() == GenerationPhase::active ? is_watched(page, proc)
                                                         : page.claims.load() > 0;
}

bool is_member(const Page& page, pid_t process) {
  const std::uint32_t limit = page.member_limit.load();
  for (std::uint32_t i = 0; i < limit; ++i) {
    if (page.members.at(i).agent.load().process == process) {
      return true;
    }
  }
  return process == page.main.load();
}

bool belongs(const Page& page, const Proc& proc, pid_t process) {
  constexpr int deepest = 64;
  const pid_t self = ::getpid();
  const pid_t successor = page.successor_pid.load();
  for (int i = 0; i < deepest && process > 1; ++i) {
    if (process == successor) {
      return false;
    }
    if (process == self || is_member(page, process)) {
      return true;
    }
    process = proc.stat(process).parent;
  }
  return false;
}

// All of its generation that are in its group, but not itself. False: there is no
// restart, and so nobody to be spared.
bool signal_own(const Process& process, pid_t group, int signal) {
  const ErrnoGuard guard;
  const Page& page = *process.page;
  const Proc proc(process);
  if (!has_part_in_restart(page, proc)) {
    return false;
  }
  const pid_t self = ::getpid();
  proc.for_each([&](pid_t other) {
    if (other != self && proc.stat(other).group == group && belongs(page, proc, other)) {
      real().kill(other, signal);
    }
  });
  return true;
}

}  // namespace

int signal_group(pid_t group, int signal) noexcept {
  const pid_t self = ::getpid();
  const pid_t own = ::getpgrp();
  const Process* process = Process::existing();
  if ((group == 0 || group == own) && process != nullptr && process->page != nullptr) {
    if (signal_own(*process, own, signal)) {
      // Last, and it is there when kill returns, as ever.
      return real().kill(self, signal);
    }
  }
  return real().kill(group == 0 ? 0 : -group, signal);
}

}  // namespace continuity::shim
