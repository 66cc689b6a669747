// What comes through a channel: bytes of any kind, with descriptors of any number. What
// is not a message leaves none of them open.
#include "core/channel.hpp"
#include "descriptors.hpp"
#include "fuzz.hpp"

#include <sys/socket.h>

namespace continuity::fuzz {

namespace {

// Bytes behind a "=", up to the end of the line, or a message of a script.
std::string next_packet(Script& script) {
  const char type = script.step();
  if (!Script::is_message(type)) {
    return std::string(script.until('\n'));
  }
  const auto bytes = encode(script.message(type));
  require(bytes.has_value(), "a message of a script can be written");
  return std::string(as_text(*bytes));
}

}  // namespace

// The number of descriptors, and what is sent with them, again and again.
void run(Bytes input) {
  test::FakeSys<1> kernel;
  std::array<int, 2> pair{-1, -1};
  require(kernel.table().socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) == 0,
          "a pair of sockets can be made");
  {
    const OwnedFd there(kernel, pair[0]);
    Channel here(kernel, OwnedFd(kernel, pair[1]));
    const Descriptors descriptors;
    Script script(input);
    while (!script.at_end()) {
      const std::size_t count = script.number();
      const std::vector<int> fds(std::min(count, most_descriptors), descriptors.at(count));
      const std::string packet = next_packet(script);
      const std::size_t before = kernel.open().size();
      if (!send_with(there.get(), packet, fds)) {
        continue;  // more than fits
      }
      const auto received = here.receive(0);
      const std::size_t arrived = kernel.open().size() - before;
      require(arrived == (received ? fds.size() : 0),
              "what came with a message is owned, what came with another is closed");
      require(!received || received->fds.size() == fds.size(), "none is counted that is not there");
    }
  }
  require(kernel.open().empty(), "nothing stays open");
}

}  // namespace continuity::fuzz
