#include "rings.hpp"

#include "support/waiting.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <sys/syscall.h>
#include <unistd.h>

namespace continuity::test {

bool has_rings() {
  // Who may make one is told that it cannot be here.
  if (::syscall(SYS_io_uring_setup, 1, nullptr) < 0 && errno == EFAULT) {
    return true;
  }
  WARN("skipped: no io_uring here: errno " << errno);
  return false;
}

void await_announcement(const Place& place) {
  const std::string front = std::filesystem::path(place.program).filename().string() + ".";
  const auto user = std::filesystem::path(place.rendezvous()) / std::to_string(::geteuid());
  const bool announced = wait_until([&] {
    return std::any_of(std::filesystem::directory_iterator(user), {}, [&](const auto& entry) {
      return entry.path().filename().string().rfind(front, 0) == 0;
    });
  });
  if (!announced) {
    throw std::runtime_error("the first server is not announced");
  }
}

}  // namespace continuity::test
