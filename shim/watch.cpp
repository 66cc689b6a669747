#include "shim/watch.hpp"

#include "shim/real_calls.hpp"

#include <cerrno>
#include <csignal>
#include <sys/syscall.h>

namespace continuity::shim {
namespace {

constinit std::atomic<std::uint32_t> g_always_open{static_cast<std::uint32_t>(Gate::open)};

// Slots are handed out anew in a forked child.
constinit std::atomic<std::uint32_t> g_slot_epoch{1};

struct OwnSlot {
  AcceptSlot* slot;
  std::uint32_t epoch;
};
__attribute__((tls_model("initial-exec"))) constinit thread_local OwnSlot t_slot{nullptr, 0};

bool is_alive(pid_t thread) {
  return real().syscall(SYS_tgkill, real().syscall(SYS_getpid), thread, 0) == 0;
}

}  // namespace

constinit std::atomic<std::atomic<std::uint32_t>*> g_gate{&g_always_open};
constinit std::array<std::uint8_t, fd_table_size> g_fd_table{};
constinit std::atomic<int> g_highest_fd{-1};
constinit std::array<AcceptSlot, accept_slots> g_accept_slots{};

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
  const std::uint32_t epoch = g_slot_epoch.load(std::memory_order_relaxed);
  if (t_slot.epoch == epoch) [[likely]] {
    return t_slot.slot;
  }
  const int saved = errno;
  const auto self = static_cast<pid_t>(real().syscall(SYS_gettid));
  for (AcceptSlot& slot : g_accept_slots) {
    pid_t owner = slot.thread.load();
    if (owner != 0 && is_alive(owner)) {
      continue;
    }
    if (slot.thread.compare_exchange_strong(owner, self)) {
      slot.where.store(AcceptSlot::outside);
      t_slot = {&slot, epoch};
      errno = saved;
      return &slot;
    }
  }
  errno = saved;
  return nullptr;
}

void forget_accept_slots() noexcept {
  for (AcceptSlot& slot : g_accept_slots) {
    slot.thread.store(0);
    slot.where.store(AcceptSlot::outside);
  }
  g_slot_epoch.fetch_add(1);
}

}  // namespace continuity::shim
