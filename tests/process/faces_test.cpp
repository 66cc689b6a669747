// The faces beside the preload library: the archive that is linked into static
// servers, and SocketUpgrader for servers that ask. Each restarts like a
// preloaded server, and each follows each of the others, since all speak one
// protocol. And how much is lost without them.
#include "core/channel.hpp"
#include "core/listener.hpp"
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <filesystem>
#include <stdexcept>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

struct Face {
  const char* program;
  Arguments arguments;
  const char* preload;
  Leaving leaving;
};

const Face preloaded{TINY_SERVER, {"threads"}, "LD_PRELOAD=" CONTINUITY_LIBRARY, left_by_itself};
const Face linked{LINKED_SERVER, {"threads"}, "LD_PRELOAD=", left_by_itself};
const Face asking{ASKING_SERVER, {}, "LD_PRELOAD=", left_by_return};

void show(Place& place, const Face& face) {
  place.program = face.program;
  place.environment = {"CONTINUITY_NAME=of-any-face", face.preload};
}

void shows_no_loss(const Face& face, const Arguments& arguments) {
  Place place;
  place.program = face.program;
  place.environment = {face.preload};
  restarts_without_loss(arguments, place, face.leaving);
}

// A predecessor played by the test: it grants what it listens on, and says how READY finds it.
class Granting {
 public:
  explicit Granting(const Place& place)
      : directory_(place.rendezvous() + "/" + std::to_string(::geteuid())),
        listener_(libc_sys(), ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
        door_(libc_sys(), ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    const SocketAddress address(place.address());
    const SocketAddress name(directory_ + "/of-any-face.00000000000000ff.sock");
    const int on = 1;
    ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::mkdir(directory_.c_str(), S_IRWXU) != 0 ||
        ::bind(listener_.get(), address.get(), address.length) != 0 ||
        ::listen(listener_.get(), 1) != 0 || ::bind(door_.get(), name.get(), name.length) != 0 ||
        ::listen(door_.get(), 1) != 0) {
      throw std::runtime_error("no predecessor");
    }
  }

  // Everything up to READY, which is left unanswered: the channel.
  Channel converse() {
    Channel channel(libc_sys(), {libc_sys(), ::accept4(door_.get(), nullptr, nullptr,
                                                       SOCK_CLOEXEC | SOCK_NONBLOCK)});
    await(channel, MessageType::hello);
    Message inventory{.type = MessageType::inventory};
    inventory.protocol_min = inventory.protocol_max = protocol_version;
    inventory.identity = "of-any-face";
    inventory.pid = ::getpid();
    inventory.listeners.push_back(*describe_socket(libc_sys(), listener_.get()));
    inventory.listeners.front().id = 1;
    REQUIRE(channel.send(inventory, never));
    await(channel, MessageType::claim);
    Message grant{.type = MessageType::grant};
    grant.total = 1;
    grant.ids = {1};
    const int fd = listener_.get();
    REQUIRE(channel.send(grant, std::span(&fd, 1), never));
    await(channel, MessageType::got);
    await(channel, MessageType::ready);
    return channel;
  }

  // Others than us who can be found.
  [[nodiscard]] std::ptrdiff_t announced() const {
    const std::filesystem::directory_iterator names(directory_);
    return std::count_if(begin(names), end(names),
                         [](const auto& entry) {
                           return entry.path().filename().string().rfind("of-any-face.", 0) == 0;
                         }) -
           1;
  }

 private:
  static void await(Channel& channel, MessageType type) {
    const auto received = channel.receive(after(libc_sys(), 10 * second));
    REQUIRE(received.has_value());
    REQUIRE(received->message.type == type);
  }

  std::string directory_;
  OwnedFd listener_;
  OwnedFd door_;
};

}  // namespace

TEST_CASE("whatever its face, a successor can be found when it says READY") {
  for (const Face* face : {&preloaded, &linked, &asking}) {
    INFO(face->program);
    Place place;
    show(place, *face);
    Granting predecessor(place);
    const Process successor = place.spawn(face->arguments);
    const Channel channel = predecessor.converse();
    CHECK(predecessor.announced() == 1);
  }
}

TEST_CASE("restarted under load, nothing is lost: linked static, a thread per connection") {
  shows_no_loss(linked, {"threads"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, pool of threads in accept") {
  shows_no_loss(linked, {"pool"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, poll") {
  shows_no_loss(linked, {"poll"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, select") {
  shows_no_loss(linked, {"select"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, epoll, edge-triggered") {
  shows_no_loss(linked, {"epoll-edge"});
}
TEST_CASE("restarted under load, nothing is lost: linked static, C++ that throws and cancels") {
  Place place;
  place.program = CANCELLED_SERVER;
  place.environment = {"LD_PRELOAD="};
  restarts_without_loss({}, place);
}
TEST_CASE("restarted under load, nothing is lost: asks, by the published loop") {
  shows_no_loss(asking, {});
}
TEST_CASE("restarted under load, nothing is lost: asks, pool of threads in accept") {
  shows_no_loss(asking, {"--pool"});
}

TEST_CASE("a static server has no library in it that could be preloaded") {
  Place place;
  place.program = GENERATE(LINKED_SERVER, UNLINKED_SERVER);
  const Process server = place.start({"threads"});

  const std::string maps = read_file("/proc/" + std::to_string(server.pid()) + "/maps");
  CHECK(maps.find(place.program) != std::string::npos);
  CHECK(maps.find(".so") == std::string::npos);
}

TEST_CASE("a static server without the archive loses connections, preloaded or not") {
  Place place;
  place.program = UNLINKED_SERVER;
  check_it_loses({"threads"}, place);
  check_it_loses({"epoll-edge"}, place);
}

TEST_CASE("an asking server that is refused an answer loses connections") {
  Place place;
  place.program = ASKING_SERVER;
  place.environment = {asking.preload, "CONTINUITY_DISABLE=1"};
  check_it_loses({}, place);
}

// Each of the six pairs once, in a round.
TEST_CASE("preloaded, linked and asking servers of one name follow each other, under load") {
  const std::array<const Face*, 6> round{&linked, &asking, &preloaded,
                                         &asking, &linked, &preloaded};
  Place place;
  const Face* serving = &preloaded;
  show(place, *serving);
  Process server = place.start(serving->arguments);
  Load load(place.address(), server);
  for (const Face* next : round) {
    INFO(serving->program << " is followed by " << next->program);
    show(place, *next);
    restart_under_load(place, next->arguments, load, server, serving->leaving);
    serving = next;
  }
  check_nothing_was_lost(load, round.size());
}

TEST_CASE("an asking server leaves when it wants to, and the log does not say otherwise") {
  Place place;
  place.program = ASKING_SERVER;
  place.environment = {asking.preload, "CONTINUITY_STOP_TIMEOUT=1ms"};
  Process predecessor = place.start({"--linger"});
  const Process successor = place.restart({"--linger"});
  REQUIRE(predecessor.next_line() == "completed");

  predecessor.await_log("no connection left; it may leave now");
  CHECK(answer_from(place.address()) == answer_of(successor));
  CHECK(predecessor.is_running());
  predecessor.send("go on\n");
  CHECK(predecessor.wait_exit() == 0);
  CHECK(predecessor.logged("SIG") == 0);
}

}  // namespace continuity::test
