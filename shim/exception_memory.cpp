// Where exceptions live. The library's own (libsupc++, eh_alloc.cc) takes 72 KB
// from the heap of every process at its start, for the case that an exception has
// to be thrown when there is no memory. Ours for that case are small and few.
#include "shim/memory.hpp"
#include "shim/placement.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <exception>

namespace {

// What the C++ ABI puts in front of an exception: libstdc++'s
// __cxa_refcounted_exception, of this size on all 64-bit machines.
constexpr std::size_t header_size = 128;
constexpr std::size_t reserve_size = 256;
constexpr std::size_t reserve_count = 16;

struct alignas(16) Reserve {
  std::array<std::byte, reserve_size> bytes;
};
CONTINUITY_LARGE_DATA constinit std::array<Reserve, reserve_count> g_reserves{};
constinit std::array<std::atomic<bool>, reserve_count> g_taken{};

void* take_reserve(std::size_t size) noexcept {
  for (std::size_t i = 0; size <= reserve_size && i < reserve_count; ++i) {
    if (!g_taken.at(i).exchange(true)) {
      return &g_reserves.at(i);
    }
  }
  return nullptr;
}

bool give_back_reserve(void* memory) noexcept {
  for (std::size_t i = 0; i < reserve_count; ++i) {
    if (memory == &g_reserves.at(i)) {
      g_taken.at(i).store(false);
      return true;
    }
  }
  return false;
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): names of the C++ ABI
extern "C" {

void* __cxa_allocate_exception(std::size_t size) noexcept {
  size += header_size;
  void* memory = continuity::shim::allocate(size);
  if (memory == nullptr) {
    memory = take_reserve(size);
  }
  if (memory == nullptr) {
    std::terminate();
  }
  std::memset(memory, 0, header_size);
  return static_cast<std::byte*>(memory) + header_size;
}

void __cxa_free_exception(void* exception) noexcept {
  void* memory = static_cast<std::byte*>(exception) - header_size;
  if (!give_back_reserve(memory)) {
    continuity::shim::give_back(memory);
  }
}

// What each thread knows of its exceptions (eh_globals.cc). The C++ library's own is found
// by a call that allocates where the program has loaded many libraries since, which an
// unlisted thread may not.
struct __cxa_eh_globals {
  void* caught;
  unsigned uncaught;
};
__attribute__((
    tls_model("initial-exec"))) static constinit thread_local __cxa_eh_globals t_globals{};

__cxa_eh_globals* __cxa_get_globals() noexcept {
  return &t_globals;
}
__cxa_eh_globals* __cxa_get_globals_fast() noexcept {
  return &t_globals;
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
