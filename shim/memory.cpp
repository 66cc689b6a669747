#include "shim/memory.hpp"

#include "shim/placement.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>
#include <sys/mman.h>
#include <utility>

namespace continuity::shim {
namespace {

// In front of each block.
struct alignas(16) Header {
  std::size_t place;  // of its kind in g_free, or whole_mapping
  std::size_t size;   // with the header
};
static_assert(sizeof(Header) == __STDCPP_DEFAULT_NEW_ALIGNMENT__);

struct FreeBlock {
  Header header;
  FreeBlock* next;
};

// Blocks come in few sizes, and one that is given back waits for the next of its size:
// steps of 32 bytes at first, then four to each power of two.
constexpr std::size_t fine_step = 32;
constexpr std::size_t fine_limit = 256;
constexpr std::size_t fine_kinds = fine_limit / fine_step;
constexpr std::size_t largest_block = std::size_t{64} * 1024;
constexpr std::size_t kinds =
    fine_kinds + 4 * (std::bit_width(largest_block) - std::bit_width(fine_limit));
constexpr std::size_t whole_mapping = kinds;

// What a server needs that serves and is not being restarted is in here.
constexpr std::size_t first_room = std::size_t{64} * 1024;
constexpr std::size_t more_room = std::size_t{256} * 1024;

// From the beginning of a page: so fewer of them are written to.
alignas(4096) CONTINUITY_LARGE_DATA constinit std::array<std::byte, first_room> g_first_room{};
constinit std::byte* g_unused = nullptr;  // nothing has been taken
constinit std::size_t g_unused_size = 0;
constinit std::array<FreeBlock*, kinds> g_free{};

constexpr Header header_for(std::size_t size) {
  if (size <= fine_limit) {
    const std::size_t place = (size - 1) / fine_step;
    return {.place = place, .size = (place + 1) * fine_step};
  }
  const auto width = static_cast<std::size_t>(std::bit_width(size - 1));
  const std::size_t quarters = (size - 1) >> (width - 3);  // 4 to 7
  return {.place = fine_kinds + 4 * (width - std::bit_width(fine_limit)) + quarters - 4,
          .size = (quarters + 1) << (width - 3)};
}
static_assert(header_for(1).place == 0 && header_for(fine_limit).size == fine_limit);
static_assert(header_for(fine_limit + 1).place == fine_kinds);
static_assert(header_for(fine_limit + 1).size == 320 && header_for(512).size == 512);
static_assert(header_for(largest_block).place == kinds - 1);
static_assert(header_for(largest_block).size == largest_block);

void* map(std::size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

class MemoryHeld {
 public:
  MemoryHeld() noexcept { lock_memory(); }
  ~MemoryHeld() { unlock_memory(); }
  MemoryHeld(const MemoryHeld&) = delete;
  MemoryHeld& operator=(const MemoryHeld&) = delete;
};

void* take_block(const Header& header) {
  const MemoryHeld held;
  FreeBlock*& first = g_free[header.place];
  if (first != nullptr) {
    FreeBlock* block = first;
    first = block->next;
    return block;
  }
  if (g_unused == nullptr) {
    g_unused = g_first_room.data();
    g_unused_size = first_room;
  }
  if (g_unused_size < header.size) {
    auto* room = static_cast<std::byte*>(map(more_room));
    if (room == nullptr) {
      return nullptr;
    }
    g_unused = room;  // what was left is lost; it is a quarter at most
    g_unused_size = more_room;
  }
  g_unused_size -= header.size;
  return std::exchange(g_unused, g_unused + header.size);
}

}  // namespace

void* allocate(std::size_t size) noexcept {
  if (size > PTRDIFF_MAX) {
    return nullptr;
  }
  size += sizeof(Header);
  const bool is_large = size > largest_block;
  const Header header = is_large ? Header{.place = whole_mapping, .size = size} : header_for(size);
  void* memory = is_large ? map(size) : take_block(header);
  if (memory == nullptr) {
    return nullptr;
  }
  return new (memory) Header(header) + 1;
}

void give_back(void* memory) noexcept {
  if (memory == nullptr) {
    return;
  }
  Header* header = static_cast<Header*>(memory) - 1;
  if (header->place == whole_mapping) {
    ::munmap(header, header->size);
    return;
  }
  const MemoryHeld held;
  FreeBlock*& first = g_free[header->place];
  first = new (header) FreeBlock{.header = *header, .next = first};
}

}  // namespace continuity::shim

// Of this library alone: the program's are other ones.
void* operator new(std::size_t size) {
  if (void* memory = continuity::shim::allocate(size)) {
    return memory;
  }
  throw std::bad_alloc();
}

void operator delete(void* memory) noexcept {
  continuity::shim::give_back(memory);
}

void operator delete(void* memory, std::size_t /*size*/) noexcept {
  continuity::shim::give_back(memory);
}
