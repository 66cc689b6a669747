#include "cli/arrivals.hpp"

#include "cli/servers.hpp"

#include <array>
#include <cstring>
#include <sys/inotify.h>

namespace continuity::cli {

// A generation is announced by giving its socket its name.
Arrivals::Arrivals(const Sys& sys, const std::string& directory)
    : sys_(&sys), fd_(sys, ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
  if (fd_.is_open() && ::inotify_add_watch(fd_.get(), directory.c_str(), IN_MOVED_TO) < 0) {
    fd_.reset();
  }
}

std::vector<std::uint64_t> Arrivals::take() {
  std::vector<std::uint64_t> found;
  alignas(inotify_event) std::array<char, 4096> events{};
  ssize_t size = -1;
  while (fd_.is_open() && (size = sys_->read(fd_.get(), events.data(), events.size())) > 0) {
    for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
      inotify_event event{};
      std::memcpy(&event, events.data() + at, sizeof event);
      const char* const name = events.data() + at + sizeof event;
      if (Server server; event.len > 0 && read_door(name, server)) {
        found.push_back(server.generation);
      }
      at += sizeof event + event.len;
    }
  }
  return found;
}

}  // namespace continuity::cli
