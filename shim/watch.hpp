// What wrappers look at on every call: a word, a byte per descriptor, a slot
// per accepting thread.
//
// Rules: everything here may run in a signal handler, before our constructor,
// and in a vfork child. Atomics and real calls only: no allocation, no lock,
// no stdio, no getenv, no exception. Every global is constinit.
#pragma once

#include "shim/atomic_number.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <span>
#include <sys/types.h>

namespace continuity::shim {

// ---- The gate -------------------------------------------------------------------

// What a wait has to do before it waits.
enum class Gate : std::uint32_t {
  unsettled,   // ask process.hpp: this may be the first wait, or a forked child's
  open,        // nothing
  note_polls,  // remember which listeners are polled, then nothing
  deaf,        // on probation: poll and select must hear of a revival
  with_bell,   // open, but an epoll may tell of our bell (apart.hpp)
};

// The word lives in memory that the kernel zeroes in a forked child
// (MADV_WIPEONFORK), which so comes out unsettled. Null, and open, until a process
// has a listener.
extern constinit std::atomic<std::atomic<std::uint32_t>*> g_gate;

inline Gate gate() {
  const std::atomic<std::uint32_t>* word = g_gate.load(std::memory_order_relaxed);
  return word == nullptr ? Gate::open : static_cast<Gate>(word->load(std::memory_order_acquire));
}

inline bool gate_is_open() {
  return gate() == Gate::open;
}

// ---- The agent apart ---------------------------------------------------------------

// How far the agent is from the program's table of descriptors (apart.hpp).
enum class ApartState : std::uint32_t {
  together,  // it has it
  wanted,    // it wants to part with it in the program's next wait
  held,      // the program's thread is there
  parting,
  apart,
  asked,   // it waits for the program's thread to make the helper
  helped,  // by one that is there, or about to be
};

// Wiped in a forked child, where no agent is, as the gate. Null until a process has a
// listener.
extern constinit std::atomic<std::atomic<std::uint32_t>*> g_apart_state;
// An epoll of this process's may have our bell, or one of its parent's.
extern constinit std::atomic<bool> g_has_bell;

// What that is known by among the program's events; drawn once.
constexpr std::uint64_t bell_data = 0xa9c3'5ed4'17b2'f08e;
// The epoll that has it; -1: none.
extern constinit AtomicNumber g_bell_epoll;

inline ApartState apart_state() {
  const std::atomic<std::uint32_t>* word = g_apart_state.load(std::memory_order_relaxed);
  return word == nullptr ? ApartState::together
                         : static_cast<ApartState>(word->load(std::memory_order_acquire));
}

inline bool has_bell() {
  return g_has_bell.load(std::memory_order_relaxed);
}

// The agent is apart, and a wait on this epoll hears its bell: there is nothing else to do
// before one.
inline bool hears_bell(int epoll) {
  return gate() == Gate::with_bell && apart_state() == ApartState::apart &&
         epoll == g_bell_epoll.load(std::memory_order_relaxed);
}

// ---- Descriptors ------------------------------------------------------------------

// What we know of a descriptor number: hints, except for `ours`.
namespace fd_flag {
constexpr std::uint8_t ours = 1;        // the library's own: does not exist for the program
constexpr std::uint8_t listening = 2;   // a listener the program made
constexpr std::uint8_t claimed = 4;     // a predecessor's listener, before the take-over
constexpr std::uint8_t retired = 8;     // a stand-in: an accept finds nothing
constexpr std::uint8_t blocking = 16;   // the retired listener was in blocking mode
constexpr std::uint8_t polled = 32;     // has been seen in poll, select or an epoll
constexpr std::uint8_t bound = 64;      // may listen one day, here or in a child
constexpr std::uint8_t datagram = 128;  // with one of the listener's: receives are its accepts
constexpr std::uint8_t listener = listening | claimed | retired;
}  // namespace fd_flag

// As many numbers as nearly every program has. Those above have a table that is made when
// one of them first gets a flag: each page table that the library's memory reaches into is
// copied at every fork, and a megabyte reaches into one more.
#ifdef CONTINUITY_TEST_HOOKS
constexpr std::size_t near_numbers = std::size_t{1} << 10;
#else
constexpr std::size_t near_numbers = std::size_t{1} << 16;
#endif
// Through atomic_ref: so many atomics are more than clang initialises at compile time.
extern constinit std::array<std::uint8_t, near_numbers> g_fd_table;
// No number above this one has ever had a flag.
extern constinit AtomicNumber g_highest_fd;
// So far below the highest number that there can be: zero at first.
extern constinit std::atomic<int> g_below_highest;

// A descriptor of the program's with this number, or a higher one, has come near to ours.
inline int crowded_from() {
  return INT_MAX - g_below_highest.load(std::memory_order_relaxed);
}
inline void set_crowded_from(int number) {
  g_below_highest.store(INT_MAX - number, std::memory_order_relaxed);
}

std::uint8_t far_fd_flags(int fd) noexcept;

inline std::uint8_t fd_flags(int fd) {
  const auto index = static_cast<std::size_t>(static_cast<unsigned>(fd));
  return index < near_numbers ? std::atomic_ref(g_fd_table[index]).load(std::memory_order_relaxed)
                              : far_fd_flags(fd);
}

// A number of which nothing is known. False for all that the far table would hold: a wrapper
// that calls nothing but the real call needs no frame.
inline bool is_plain(int fd) {
  const auto index = static_cast<std::size_t>(static_cast<unsigned>(fd));
  return index < near_numbers &&
         std::atomic_ref(g_fd_table[index]).load(std::memory_order_relaxed) == 0;
}

inline bool is_ours(int fd) {
  return (fd_flags(fd) & fd_flag::ours) != 0;
}
inline bool is_listener(int fd) {
  return (fd_flags(fd) & fd_flag::listener) != 0;
}

void set_fd_flags(int fd, std::uint8_t flags) noexcept;
void add_fd_flags(int fd, std::uint8_t flags) noexcept;
void remove_fd_flags(int fd, std::uint8_t flags) noexcept;

// ---- Paths ------------------------------------------------------------------------

// Whether files may be hidden from the program (CONTINUITY_HIDE). False for all
// but a program that starts under that variable.
extern constinit std::atomic<bool> g_hides;

inline bool hides() {
  return g_hides.load(std::memory_order_relaxed);
}

// ---- What systemd is told -------------------------------------------------------------

// Whether there is a NOTIFY_SOCKET.
extern constinit std::atomic<bool> g_has_manager;
// A socket that has been connected to it, or had that number; -1: none.
extern constinit AtomicNumber g_notifier;

// Whether what is sent there may be meant for it.
inline bool may_be_notice(int fd, const void* address) {
  return address != nullptr ? g_has_manager.load(std::memory_order_relaxed)
                            : fd == g_notifier.load(std::memory_order_relaxed);
}

// What has been claimed is not to be seen yet: the program has not said that it is ready.
extern constinit std::atomic<bool> g_waits_early;

inline bool waits_early() {
  return g_waits_early.load(std::memory_order_relaxed);
}

// poll and select must leave numbers out, and hear of something else.
inline bool polls_otherwise() {
  return gate() == Gate::deaf || waits_early();
}

// ---- Threads inside accept ----------------------------------------------------------

// Where a thread is: in accept on a listener, asleep in accept on a stand-in,
// or in neither. Retiring waits until nobody is in the first. A receive from a
// datagram listener is like an accept; while its number has another socket nobody
// may be sending from it.
struct alignas(64) AcceptSlot {
  // Zero, so that the slots cost no memory before they are used.
  static constexpr std::int64_t outside = 0;
  static constexpr std::int64_t parked = std::int64_t{1} << 32;
  static constexpr std::int64_t sends = std::int64_t{1} << 33;
  static constexpr std::int64_t inside(int fd) { return std::int64_t{fd} + 1; }

  std::atomic<std::int64_t> where{outside};  // outside, or inside(fd), maybe parked or sends
  std::atomic<pid_t> thread{0};
  std::atomic<bool> woken{false};  // by us: an EINTR may not be the program's
  // inside(fd) of the last listener that the thread has gone the long way to, or received
  // from: somebody waits there by calls.
  std::atomic<std::int64_t> called{0};
  // The gate has been looked at, and the thread needs no barrier: who retires
  // has one executed in all threads.
  std::atomic<bool> short_way{false};
};

// A listener that its threads may have been asleep on has been retired.
inline bool has_gone(int fd) {
  constexpr std::uint8_t went_away = fd_flag::retired | fd_flag::blocking;
  return (fd_flags(fd) & went_away) == went_away;
}

// After an accept or a receive from one that has gone: the stand-in was there
// already, or we woke the thread for it. (Anything else is the program's.)
inline bool must_look_again(AcceptSlot* slot) {
  return errno == EAGAIN || (errno == EINTR && slot != nullptr && slot->woken.exchange(false));
}

// The slots live beside the gate, in memory that a forked child finds zeroed:
// its threads have none, and go the long way. Null until there is a listener.
constexpr std::size_t accept_slots = 512;
extern constinit std::atomic<AcceptSlot*> g_accept_slots;

inline std::span<AcceptSlot> all_accept_slots() {
  AcceptSlot* slots = g_accept_slots.load();
  return {slots, slots == nullptr ? 0 : accept_slots};
}

// Those that are a thread's, or have been: they are taken from the first on. What lies behind
// is not looked at, since a look makes the kernel find a page for it.
inline std::span<AcceptSlot> used_accept_slots() {
  const std::span<AcceptSlot> all = all_accept_slots();
  std::size_t used = 0;
  while (used < all.size() && all[used].thread.load() != 0) {
    ++used;
  }
  return all.first(used);
}

// The calling thread's slot, if it has ever had one. It may be another's by now
// in a forked child; then it says nothing of a short way.
extern __attribute__((tls_model("initial-exec"))) constinit thread_local AcceptSlot* t_accept_slot;

// The calling thread's slot. Null if all are taken by living threads: then the
// accept is not protected, and may take one connection too many.
AcceptSlot* own_accept_slot() noexcept;
// In a forked child, where the other threads do not exist.
void forget_accept_slots() noexcept;

// Whether who retires can have a barrier executed in all threads.
void allow_short_ways(bool allowed) noexcept;
bool short_ways_are_allowed() noexcept;
// If it can, and the gate is settled, the thread's accepts are short from now on.
void take_short_way(AcceptSlot& slot) noexcept;
// The gate is to be looked at again: everybody goes the long way once more.
void leave_short_ways() noexcept;

}  // namespace continuity::shim
