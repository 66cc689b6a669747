#include "shim/watch.hpp"

#include "shim/placement.hpp"
#include "shim/real_calls.hpp"

#include <bit>
#include <cerrno>
#include <csignal>
#include <sys/mman.h>
#include <sys/syscall.h>

namespace continuity::shim {
namespace {

constinit std::atomic<bool> g_short_ways{false};

// Whose slot it was when it became ours.
__attribute__((tls_model("initial-exec"))) constinit thread_local pid_t t_slot_owner = 0;

// The numbers from near_numbers on: more than the kernel gives to anybody by default.
constexpr std::size_t far_numbers = (std::size_t{1} << 20) - near_numbers;
constinit std::atomic<std::uint8_t*> g_far_table{nullptr};

// Null: it is none of these, or the table is not there.
std::uint8_t* far_flags(int fd) {
  std::uint8_t* table = g_far_table.load(std::memory_order_acquire);
  const auto index = static_cast<std::size_t>(static_cast<unsigned>(fd)) - near_numbers;
  return table != nullptr && index < far_numbers ? table + index : nullptr;
}

// By number: this may run before main, and in a signal handler.
void make_far_table() {
  constexpr long access = PROT_READ | PROT_WRITE;
  constexpr long kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const long memory = real().syscall(SYS_mmap, 0L, far_numbers, access, kind, -1L, 0L);
  if (memory == -1) {
    return;  // as if we did not know the number
  }
  auto* made = std::bit_cast<std::uint8_t*>(memory);
  std::uint8_t* table = nullptr;
  if (!g_far_table.compare_exchange_strong(table, made)) {
    real().syscall(SYS_munmap, made, far_numbers);
  }
}

// Null: there is no room for flags of this number.
std::uint8_t* flags_of(int fd) {
  const auto index = static_cast<std::size_t>(static_cast<unsigned>(fd));
  return index < near_numbers ? &g_fd_table[index] : far_flags(fd);
}

bool is_alive(pid_t thread) {
  return real().syscall(SYS_tgkill, real().syscall(SYS_getpid), thread, 0) == 0;
}

}  // namespace

CONTINUITY_BUSY_DATA constinit std::atomic<std::atomic<std::uint32_t>*> g_gate{nullptr};
CONTINUITY_BUSY_DATA constinit std::atomic<std::atomic<std::uint32_t>*> g_apart_state{nullptr};
CONTINUITY_BUSY_DATA constinit std::atomic<bool> g_has_bell{false};
CONTINUITY_BUSY_DATA constinit AtomicNumber g_bell_epoll;
CONTINUITY_BUSY_BEGINNING constinit std::array<std::uint8_t, near_numbers> g_fd_table{};
CONTINUITY_BUSY_DATA constinit AtomicNumber g_highest_fd;
CONTINUITY_BUSY_DATA constinit std::atomic<int> g_below_highest{0};
CONTINUITY_BUSY_DATA constinit std::atomic<bool> g_hides{false};
CONTINUITY_BUSY_DATA constinit std::atomic<bool> g_has_manager{false};
CONTINUITY_BUSY_DATA constinit AtomicNumber g_notifier;
CONTINUITY_BUSY_DATA constinit std::atomic<bool> g_waits_early{false};
CONTINUITY_BUSY_DATA constinit std::atomic<AcceptSlot*> g_accept_slots{nullptr};
__attribute__((tls_model("initial-exec"))) constinit thread_local AcceptSlot* t_accept_slot =
    nullptr;

std::uint8_t far_fd_flags(int fd) noexcept {
  std::uint8_t* flags = far_flags(fd);
  return flags == nullptr ? std::uint8_t{0}
                          : std::atomic_ref(*flags).load(std::memory_order_relaxed);
}

void add_fd_flags(int fd, std::uint8_t flags) noexcept {
  if (fd >= static_cast<int>(near_numbers) && g_far_table.load() == nullptr) {
    const int saved = errno;
    make_far_table();
    errno = saved;
  }
  std::uint8_t* known = flags_of(fd);
  if (known == nullptr) {
    return;
  }
  std::atomic_ref(*known).fetch_or(flags);
  g_highest_fd.raise_to(fd);
}

void remove_fd_flags(int fd, std::uint8_t flags) noexcept {
  if (std::uint8_t* known = flags_of(fd)) {
    std::atomic_ref(*known).fetch_and(static_cast<std::uint8_t>(~flags));
  }
}

void set_fd_flags(int fd, std::uint8_t flags) noexcept {
  remove_fd_flags(fd, static_cast<std::uint8_t>(~flags));
  if (flags != 0) {
    add_fd_flags(fd, flags);
  }
}

AcceptSlot* own_accept_slot() noexcept {
  if (t_accept_slot != nullptr && t_accept_slot->thread.load() == t_slot_owner) [[likely]] {
    return t_accept_slot;
  }
  const int saved = errno;
  const auto self = static_cast<pid_t>(real().syscall(SYS_gettid));
  for (AcceptSlot& slot : all_accept_slots()) {
    pid_t owner = slot.thread.load();
    if (owner != 0 && is_alive(owner)) {
      continue;
    }
    if (slot.thread.compare_exchange_strong(owner, self)) {
      slot.where.store(AcceptSlot::outside);
      t_accept_slot = &slot;
      t_slot_owner = self;
      errno = saved;
      return &slot;
    }
  }
  errno = saved;
  return nullptr;
}

// The slots themselves have been wiped.
void forget_accept_slots() noexcept {
  t_accept_slot = nullptr;
}

void allow_short_ways(bool allowed) noexcept {
  g_short_ways.store(allowed);
  if (!allowed) {
    leave_short_ways();
  }
}

bool short_ways_are_allowed() noexcept {
  return g_short_ways.load();
}

// First taken, then looked at; who forbids it does so the other way round.
void take_short_way(AcceptSlot& slot) noexcept {
  slot.short_way.store(true);
  const std::atomic<std::uint32_t>* gate = g_gate.load();
  if (!g_short_ways.load() || gate == nullptr ||
      gate->load() == static_cast<std::uint32_t>(Gate::unsettled)) {
    slot.short_way.store(false);
  }
}

void leave_short_ways() noexcept {
  for (AcceptSlot& slot : used_accept_slots()) {
    if (slot.short_way.load()) {
      slot.short_way.store(false);
    }
  }
}

}  // namespace continuity::shim
