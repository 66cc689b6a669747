// How a server was started: what it takes to start it once more.
//
// Read before the program begins, since programs write their titles over their arguments
// and their environment, change their directory and raise their limits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace continuity {

struct Start {
  std::string program{};  // an absolute path
  std::string directory{};
  std::vector<std::string> arguments{};
  std::vector<std::string> environment{};
  mode_t mask = 022;
  uid_t user = 0;
  struct Limit {
    int resource = 0;
    std::uint64_t soft = 0;
    std::uint64_t hard = 0;
    bool operator==(const Limit&) const = default;
  };
  std::vector<Limit> limits{};

  bool operator==(const Start&) const = default;
};

// Items of a letter, a text and a byte of 0: none of the texts has such a byte.
constexpr std::size_t max_start = std::size_t{256} * 1024;
std::string write_start(const Start& start);
// Nothing: it is none.
std::optional<Start> read_start(std::string_view text);

}  // namespace continuity
