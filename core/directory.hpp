// Reading directories without libc's DIR, which allocates and cannot be given
// a fake: used for /proc/self/fd and for the rendezvous.
#pragma once

#include "core/result.hpp"
#include "core/sys.hpp"

#include <array>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <string_view>

namespace continuity {

// Calls visit(name) for each entry of the open directory `fd` but "." and "..".
template <typename Visit>
Status for_each_entry(const Sys& sys, int fd, Visit visit) {
  // struct linux_dirent64: inode, offset, then these.
  constexpr std::size_t length_offset = 16;
  constexpr std::size_t name_offset = 19;
  alignas(8) std::array<char, 32 * 1024> buffer;  // NOLINT: the kernel fills it
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
        visit(name);
      }
      at += length;
    }
  }
}

// Calls visit(number) for each entry whose name is a number.
template <typename Visit>
Status for_each_number(const Sys& sys, int fd, Visit visit) {
  return for_each_entry(sys, fd, [&](std::string_view name) {
    int number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc{} && end == name.data() + name.size()) {
      visit(number);
    }
  });
}

}  // namespace continuity
