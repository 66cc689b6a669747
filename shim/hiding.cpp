#include "shim/hiding.hpp"

#include "core/clock.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/placement.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"

#include <array>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/un.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

// The variable as it was at the start: looked at without a lock.
CONTINUITY_LARGE_DATA constinit std::array<char, 4096> g_paths{};
constinit SharedHiding* g_shared = nullptr;
// What wrappers are given, in turn: nobody makes so many calls with hidden paths at
// once. A wrapper that had the room itself would need it on its stack for each call.
using PathRoom = std::array<char, 4096>;
CONTINUITY_LARGE_DATA constinit std::array<PathRoom, 32> g_rooms{};
constinit std::atomic<unsigned> g_next_room{0};

HidingStage stage() {
  return static_cast<HidingStage>(g_shared->stage.load());
}

bool change_stage(HidingStage from, HidingStage to) {
  auto expected = static_cast<std::uint32_t>(from);
  return g_shared->stage.compare_exchange_strong(expected, static_cast<std::uint32_t>(to));
}

std::uint64_t bit(std::size_t index) {
  return std::uint64_t{1} << index;
}

// At start, before anybody can fork.
__attribute__((constructor)) void read_hidden() noexcept {
  const char* paths = ::getenv("CONTINUITY_HIDE");  // NOLINT(concurrency-mt-unsafe): at start
  if (paths == nullptr || !are_hidable(paths) || std::strlen(paths) >= g_paths.size() ||
      ::getauxval(AT_SECURE) != 0) {
    return;  // what is wrong with it is said at the first bind
  }
  void* memory = ::mmap(nullptr, sizeof(SharedHiding), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return;
  }
  g_shared = new (memory) SharedHiding{};
  std::memcpy(g_paths.data(), paths, std::strlen(paths));
  g_hides.store(true);
}

// A generation that starts with somebody of its name there, who has something to
// hand over. What is left of others that were killed goes.
bool has_predecessor(Process& process) {
  if (process.page != nullptr && process.page->current_phase() != GenerationPhase::starting) {
    return false;
  }
  Rendezvous* place = process.rendezvous();
  if (place == nullptr) {
    return false;
  }
  const Taker::Present present = process.own_taker().look_around(*place);
  if (present.settled) {
    process.hidden->sweep(place->directory());
  }
  return present.predecessor || !process.claims.empty();
}

void decide(Process& process) {
  if (!has_predecessor(process)) {
    change_stage(HidingStage::undecided, HidingStage::over);
    return;
  }
  std::uint64_t nobody = 0;
  g_shared->generation.compare_exchange_strong(nobody, process.generation);
  const auto held = process.hidden->hold(process.rendezvous()->directory(), process.generation);
  if (!held) {
    process.log.error("{}: {}; CONTINUITY_HIDE hides nothing", held.error().step,
                      error_text(held.error().code));
  }
  if (change_stage(HidingStage::undecided, held ? HidingStage::hiding : HidingStage::over) &&
      held) {
    process.log.debug("hides {} until the take-over", process.options.hide);
  }
}

// The exchange takes microseconds, unless who does it has been killed.
bool await_placed() {
  constexpr int longest = 1000;
  for (int i = 0; i < longest && stage() == HidingStage::taking_place; ++i) {
    pause_for(real_sys(), millisecond);
  }
  return stage() != HidingStage::taking_place;
}

}  // namespace

std::optional<Beside> find_hidden(Process& process, int directory, std::string_view path) {
  if (g_shared == nullptr || !process.hidden ||
      !is_last_name_among(g_paths.data(), last_name(path))) {
    return std::nullopt;
  }
  const auto index = process.hidden->find(directory, path);
  if (!index) {
    return std::nullopt;
  }
  if (stage() == HidingStage::undecided) {
    decide(process);
  }
  await_placed();
  if (stage() != HidingStage::hiding) {
    g_hides.store(false);
    return std::nullopt;
  }
  if ((g_shared->inherited.load() & bit(*index)) != 0) {
    return std::nullopt;
  }
  if (!process.hidden->is_held()) {
    // Decided by another process, perhaps after this one was forked.
    const auto held =
        process.hidden->hold(process.rendezvous()->directory(), g_shared->generation.load());
    if (!held) {
      process.log.debug("{}: {}", held.error().step, error_text(held.error().code));
    }
  }
  return Beside{.index = *index, .generation = g_shared->generation.load()};
}

void note_inherited(Process& process, std::string_view path) {
  if (g_shared == nullptr || !process.hidden || path.empty()) {
    return;
  }
  if (const auto index = process.hidden->find(AT_FDCWD, path)) {
    g_shared->inherited.fetch_or(bit(*index));
  }
}

std::optional<Address> bound_beside(Process& process, const Address& wanted) {
  if (!wanted.is_unix() || wanted.unix_path().empty()) {
    return std::nullopt;
  }
  const auto beside = find_hidden(process, AT_FDCWD, wanted.unix_path());
  if (!beside) {
    return std::nullopt;
  }
  const std::string path = process.hidden->short_path_beside(beside->index, beside->generation);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
  return Address(reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

void end_hiding(Process& process, bool last) {
  if (g_shared == nullptr || !process.hidden) {
    return;
  }
  change_stage(HidingStage::undecided, HidingStage::over);
  while (!change_stage(HidingStage::hiding, HidingStage::taking_place)) {
    if (stage() == HidingStage::over) {
      g_hides.store(false);
      return;
    }
    if (!await_placed()) {
      if (!last) {
        return;
      }
      break;  // who was at it has been killed
    }
  }
  bool all = true;
  for (std::size_t i = 0; i < process.hidden->size(); ++i) {
    if ((g_shared->placed.load() & bit(i)) != 0) {
      continue;
    }
    const auto placed = process.hidden->take_place(i, g_shared->generation.load());
    if (placed) {
      g_shared->placed.fetch_or(bit(i));
      continue;
    }
    all = false;
    if (last) {
      process.log.error("{}: {}: {}; it stays the predecessor's", process.hidden->path(i),
                        placed.error().step, error_text(placed.error().code));
    }
  }
  const bool over = all || last;
  g_shared->stage.store(static_cast<std::uint32_t>(over ? HidingStage::over : HidingStage::hiding));
  g_hides.store(!over);
}

void stop_hiding_if_over() noexcept {
  if (g_shared != nullptr && stage() == HidingStage::over) {
    g_hides.store(false);
  }
}

void abandon_hiding(Process& process) noexcept {
  if (g_shared == nullptr || !process.hidden || stage() != HidingStage::hiding) {
    return;
  }
  try {
    process.hidden->let_go(g_shared->generation.load());
  } catch (...) {  // no memory: the next start removes it
  }
}

void note_fork_while_hiding() noexcept {
  if (g_shared != nullptr) {
    g_shared->forked.store(true);
  }
}

// ---- What wrappers call ----------------------------------------------------------------

// Without a lock where the path has none of the names: an allocator may open its
// settings while we have it.
const char* shown_path(int directory, const char* path) noexcept {
  if (path == nullptr || !is_last_name_among(g_paths.data(), last_name(path))) {
    return path;
  }
  try {
    const SlowPath process(Process::get());
    if (!process) {
      return path;
    }
    const auto beside = find_hidden(*process, directory, path);
    if (!beside) {
      return path;
    }
    const std::string other = path + HiddenFiles::suffix(beside->generation);
    PathRoom& room = g_rooms.at(g_next_room.fetch_add(1) % g_rooms.size());
    if (other.size() >= room.size()) {
      return path;
    }
    std::memcpy(room.data(), other.c_str(), other.size() + 1);
    return room.data();
  } catch (...) {
    return path;
  }
}

int connect_shown(int fd, const sockaddr* address, socklen_t length) {
  std::optional<Address> other;
  if (address != nullptr && length > sizeof(sa_family_t) && address->sa_family == AF_UNIX) {
    try {
      const SlowPath process(Process::get());
      if (process) {
        other = bound_beside(*process, Address(address, length));
      }
    } catch (...) {
    }
  }
  return other ? real().connect(fd, other->get(), other->length)
               : real().connect(fd, address, length);
}

namespace {

// A program that was run to check, or did not get what it wanted. One that has
// forked may leave a daemon behind: that has the files.
__attribute__((destructor)) void clean_up_at_exit() noexcept {
  Process* process = Process::existing();
  if (process != nullptr && g_shared != nullptr && !g_shared->forked.load() && process->is_this()) {
    abandon_hiding(*process);
  }
}

}  // namespace

}  // namespace continuity::shim
