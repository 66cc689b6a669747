// Reading directories without libc's DIR, which allocates and cannot be given
// a fake: used for /proc/self/fd and for the rendezvous.
#pragma once

#include "core/result.hpp"
#include "core/sys.hpp"

#include <charconv>
#include <cstddef>
#include <string_view>

namespace continuity {

// Calls visit(context, name) for each entry of the open directory `fd` but "." and "..".
using EntryVisitor = void (*)(void* context, std::string_view name);
Status read_directory(const Sys& sys, int fd, EntryVisitor visit, void* context);

// Calls visit(name).
template <typename Visit>
Status for_each_entry(const Sys& sys, int fd, Visit visit) {
  return read_directory(
      sys, fd, [](void* context, std::string_view name) { (*static_cast<Visit*>(context))(name); },
      &visit);
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
