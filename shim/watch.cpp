#include "shim/watch.hpp"

#include "shim/real_calls.hpp"

#include <cerrno>
#include <csignal>
#include <sys/syscall.h>

namespace continuity::shim {
namespace {

constinit std::atomic<std::uint32_t> g_always_open{static_cast<std::uint32_t>(Gate::open)};

constinit std::atomic<bool> g_short_ways{false};

// Whose slot it was when it became ours.
__attribute__((tls_model("initial-exec"))) constinit thread_local pid_t t_slot_owner = 0;

bool is_alive(pid_t thread) {
  return real().syscall(SYS_tgkill, real().syscall(SYS_getpid), thread, 0) == 0;
}

}  // namespace

constinit std::atomic<std::atomic<std::uint32_t>*> g_gate{&g_always_open};
constinit std::array<std::uint8_t, fd_table_size> g_fd_table{};
constinit std::atomic<int> g_highest_fd{-1};
constinit std::atomic<bool> g_hides{false};
constinit std::atomic<bool> g_has_manager{false};
constinit std::atomic<int> g_notifier{-1};
constinit std::atomic<bool> g_waits_early{false};
constinit std::atomic<AcceptSlot*> g_accept_slots{nullptr};
__attribute__((tls_model("initial-exec"))) constinit thread_local AcceptSlot* t_accept_slot =
    nullptr;

void add_fd_flags(int fd, std::uint8_t flags) noexcept {
  if (static_cast<std::size_t>(static_cast<unsigned>(fd)) >= fd_table_size) {
    return;
  }
  std::atomic_ref(g_fd_table[static_cast<std::size_t>(fd)]).fetch_or(flags);
  int highest = g_highest_fd.load();
  while (fd > highest && !g_highest_fd.compare_exchange_weak(highest, fd)) {
  }
}

void remove_fd_flags(int fd, std::uint8_t flags) noexcept {
  if (static_cast<std::size_t>(static_cast<unsigned>(fd)) < fd_table_size) {
    std::atomic_ref(g_fd_table[static_cast<std::size_t>(fd)])
        .fetch_and(static_cast<std::uint8_t>(~flags));
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
  if (!g_short_ways.load() ||
      g_gate.load()->load() == static_cast<std::uint32_t>(Gate::unsettled)) {
    slot.short_way.store(false);
  }
}

void leave_short_ways() noexcept {
  for (AcceptSlot& slot : all_accept_slots()) {
    if (slot.short_way.load()) {
      slot.short_way.store(false);
    }
  }
}

}  // namespace continuity::shim
