#include "core/directory.hpp"

#include <array>
#include <cstring>

namespace continuity {

Status read_directory(const Sys& sys, int fd, EntryVisitor visit, void* context) {
  // struct linux_dirent64: inode, offset, then these.
  constexpr std::size_t length_offset = 16;
  constexpr std::size_t name_offset = 19;
  // Small: calls go deep from here, and stack that has been used stays in memory.
  alignas(8) std::array<char, 4096> buffer;  // NOLINT: the kernel fills it
  for (;;) {
    const ssize_t size = sys.getdents(fd, buffer.data(), buffer.size());
    if (size < 0) {
      return last_error("read a directory");
    }
    if (size == 0) {
      return Done{};
    }
    for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
      unsigned short length = 0;
      std::memcpy(&length, buffer.data() + at + length_offset, sizeof length);
      const std::string_view name = buffer.data() + at + name_offset;
      if (name != "." && name != "..") {
        visit(context, name);
      }
      at += length;
    }
  }
}

}  // namespace continuity
