// CONTINUITY_HIDE in this process: whether it is starting beside a predecessor,
// and so is shown other files than the predecessor's.
//
// Decided at the first call that means one of them, since most programs that
// inherit the variable never make one. What has been decided, and the take-over,
// hold for all processes forked from this one: they share a page, made before
// any of them can exist.
#pragma once

#include "core/address.hpp"
#include "core/hidden_files.hpp"

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

namespace continuity::shim {

class Process;

enum class HidingStage : std::uint32_t {
  undecided,
  hiding,        // starting, and there is a predecessor
  taking_place,  // one process exchanges the files
  over,          // or never begun: the files are what they are
};

struct SharedHiding {
  std::atomic<std::uint32_t> stage;
  std::atomic<std::uint64_t> generation;  // whose files are beside
  std::atomic<std::uint64_t> placed;      // by index: has taken its place
  std::atomic<std::uint64_t> inherited;   // by index: is a listener's that has been claimed
  std::atomic<bool> forked;               // others may hide them, too
};

// What the process is shown instead of a file.
struct Beside {
  std::size_t index = 0;
  std::uint64_t generation = 0;
};

// All but the last three with the process in the slow path.

// Whether the file that the program means is hidden from it, and what is shown.
std::optional<Beside> find_hidden(Process& process, int directory, std::string_view path);
// The path of a listener that has been claimed is this process's own.
void note_inherited(Process& process, std::string_view path);
// Where a UNIX socket is bound, if not where the program says.
std::optional<Address> bound_beside(Process& process, const Address& wanted);
// The take-over: what this generation has beside takes its place. First the
// process that asked tries, and then the one that leads, which says what it may
// not do either.
void end_hiding(Process& process, bool last);
// The other processes need not look any more.
void stop_hiding_if_over() noexcept;

// This generation will never be the owner: what it has beside goes.
void abandon_hiding(Process& process) noexcept;
// In the parent, before a fork.
void note_fork_while_hiding() noexcept;

}  // namespace continuity::shim
