// What a predecessor does with everything that can be said to it, and with
// silence.
#include "core/holder.hpp"

#include "child.hpp"
#include "conversation.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

namespace continuity::test {
namespace {

Message hello_message(std::uint64_t generation = 0) {
  Message hello{.type = MessageType::hello};
  hello.generation = generation;
  hello.protocol_min = hello.protocol_max = protocol_version;
  hello.identity = "server";
  return hello;
}

Message with_ids(MessageType type, std::vector<std::uint32_t> ids) {
  Message message{.type = type};
  message.ids = std::move(ids);
  return message;
}

// A successor that a test plays message by message.
class Peer {
 public:
  explicit Peer(World& world) : world_(world), channel_(channel_to_only_one(world)) {}
  void say(const Message& message) {
    // One that has been hung up on may find nobody there.
    static_cast<void>(channel_.send(message, never));
    world_.settle();
  }
  void say_raw(std::string_view bytes) {
    REQUIRE(::send(channel_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0);
    world_.settle();
  }
  // The next message there is; its type is 0 for none, the errno is kept.
  Message hear() {
    world_.settle();
    auto received = channel_.receive(0);
    error = code_of(received);
    return received ? std::move(received->message) : Message{};
  }
  // The same, with the inodes of the sockets that came.
  std::vector<std::uint64_t> hear_sockets(MessageType type) {
    world_.settle();
    const auto received = channel_.receive(0);
    REQUIRE(received);
    REQUIRE(received->message.type == type);
    std::vector<std::uint64_t> inodes;
    for (const OwnedFd& fd : received->fds) {
      inodes.push_back(socket_inode(libc_sys(), fd.get()));
    }
    return inodes;
  }
  // As a supervisor.
  std::vector<std::uint32_t> look_to_keep() {
    Message hello = hello_message();
    hello.features = keeps_copies;
    say(hello);
    return hear_offer();
  }
  void close() { channel_.close(); }
  void die() {
    close();
    world_.settle();
  }
  // What it is offered.
  std::vector<std::uint32_t> look(std::uint64_t generation) {
    say(hello_message(generation));
    HolderState state{};
    auto ids = hear_offer(&state);
    REQUIRE(state == HolderState::active);
    return ids;
  }
  void become_granted(std::uint64_t generation = 0, std::uint32_t id = 1) {
    say(hello_message(generation));
    REQUIRE(hear().type == MessageType::inventory);
    say(with_ids(MessageType::claim, {id}));
    REQUIRE(hear().type == MessageType::grant);
    say({.type = MessageType::got});
  }
  Message become_ready(std::uint32_t id) {
    say(with_ids(MessageType::ready, {id}));
    return hear();
  }
  void become_owner(std::uint64_t generation = 0, std::uint32_t id = 1) {
    become_granted(generation, id);
    REQUIRE(become_ready(id).type == MessageType::retired);
  }

  int error = 0;

 private:
  std::vector<std::uint32_t> hear_offer(HolderState* state = nullptr) {
    const Message inventory = hear();
    REQUIRE(inventory.type == MessageType::inventory);
    if (state != nullptr) {
      *state = inventory.state;
    }
    std::vector<std::uint32_t> ids;
    for (const Listener& listener : inventory.listeners) {
      ids.push_back(listener.id);
    }
    return ids;
  }

  World& world_;
  Channel channel_;
};

}  // namespace

TEST_CASE("an inventory tells addresses and no descriptors", "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer peer(world);
  peer.say(hello_message());
  const Message inventory = peer.hear();
  CHECK(inventory.type == MessageType::inventory);
  CHECK(inventory.state == HolderState::active);
  CHECK(inventory.identity == "server");
  CHECK(inventory.pid == ::getpid());
  CHECK(inventory.total == 2);
  REQUIRE(inventory.listeners.size() == 2);
  CHECK(same_endpoint(inventory.listeners[1].address, predecessor.wanted(1).address));
  CHECK(predecessor.owner.calls.empty());
}

TEST_CASE("a keeper is given copies, and no attempt begins", "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer keeper(world);
  REQUIRE(keeper.look_to_keep() == std::vector<std::uint32_t>{1, 2});
  keeper.say(with_ids(MessageType::claim, {1, 2}));
  CHECK(keeper.hear_sockets(MessageType::grant) ==
        std::vector{socket_inode(libc_sys(), predecessor.fd(0)),
                    socket_inode(libc_sys(), predecessor.fd(1))});
  keeper.say({.type = MessageType::got});
  CHECK(keeper.hear().type == MessageType{});
  CHECK(predecessor.owner.calls.empty());

  // It is nobody's successor: it can end, and others can begin meanwhile.
  Peer successor(world);
  successor.become_granted();
  Peer another(world);
  REQUIRE(another.look_to_keep().size() == 2);
  another.say(with_ids(MessageType::claim, {2}));
  CHECK(another.hear_sockets(MessageType::grant).size() == 1);
  keeper.die();
  another.die();
  CHECK(successor.become_ready(1).type == MessageType::retired);
  CHECK_FALSE(world.logged("before it was ready"));
}

TEST_CASE("a keeper never becomes an owner, whatever it says", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  const auto type = GENERATE(MessageType::ready, MessageType::claim);
  Peer keeper(world);
  REQUIRE(keeper.look_to_keep().size() == 1);
  keeper.say(with_ids(MessageType::claim, {1}));
  REQUIRE(keeper.hear_sockets(MessageType::grant).size() == 1);
  keeper.say(with_ids(type, {1}));
  CHECK(keeper.hear().type == MessageType::abort);
  CHECK(predecessor.accepts());
  CHECK(predecessor.owner.calls.empty());
}

TEST_CASE("what was closed since a keeper has looked is not given to it", "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer keeper(world);
  REQUIRE(keeper.look_to_keep().size() == 2);
  const std::uint64_t left = socket_inode(libc_sys(), predecessor.fd(1));
  ::close(predecessor.fd(0));
  const int other = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE(::dup2(other, predecessor.fd(0)) == predecessor.fd(0));
  ::close(other);
  keeper.say(with_ids(MessageType::claim, {1, 2}));
  CHECK(keeper.hear_sockets(MessageType::grant) == std::vector{left});
}

TEST_CASE("who has handed over is turned away as a successor, and kept for as a keeper",
          "[holder]") {
  World world;
  Predecessor predecessor(world);
  predecessor.owner.peers_are_outlived = true;
  Peer successor(world);
  successor.say(hello_message());
  const Message late = successor.hear();
  CHECK(late.type == MessageType::abort);
  CHECK(late.code == ESTALE);

  Peer keeper(world);
  REQUIRE(keeper.look_to_keep().size() == 1);
  keeper.say(with_ids(MessageType::claim, {1}));
  CHECK(keeper.hear_sockets(MessageType::grant).size() == 1);
}

// What a predecessor does with the files of CONTINUITY_HIDE.
struct HidingWorld : World {
  HidingWorld() {
    options.hide = file;
    options.probation = 10 * second;
    write(file, "predecessor");
    write(beside, "successor");
  }
  // As the successor does at the take-over.
  void take_place() { REQUIRE(files().take_place(0, generation)); }
  [[nodiscard]] HiddenFiles& files() {
    if (!files_) {
      files_.emplace(libc_sys(), file);
    }
    return *files_;
  }
  static void write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  static std::string read(const std::string& path) {
    std::string text;
    std::ifstream(path) >> text;
    return text;
  }

  static constexpr std::uint64_t generation = 7;
  std::string file{directory.path() + "/server.pid"};
  std::string beside{file + HiddenFiles::suffix(generation)};

 private:
  std::optional<HiddenFiles> files_;
};

TEST_CASE("what a successor has hidden goes when it ends before it is ready", "[holder][hide]") {
  HidingWorld world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted(HidingWorld::generation);
  CHECK(HidingWorld::read(world.beside) == "successor");
  SECTION("by itself") {
    peer.die();
  }
  SECTION("by its time-out") {
    world.pass(world.options.ready_timeout + second);
  }
  CHECK(HidingWorld::read(world.file) == "predecessor");
  CHECK_FALSE(std::filesystem::exists(world.beside));
}

TEST_CASE("a predecessor that comes back has its hidden file again", "[holder][hide]") {
  const bool has_taken_place = GENERATE(true, false);
  CAPTURE(has_taken_place);
  HidingWorld world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner(HidingWorld::generation);
  if (has_taken_place) {
    world.take_place();
    REQUIRE(HidingWorld::read(world.file) == "successor");
  }
  peer.die();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(HidingWorld::read(world.file) == "predecessor");
  CHECK_FALSE(std::filesystem::exists(world.beside));
}

TEST_CASE("a predecessor's own file goes at the end of the probation", "[holder][hide]") {
  HidingWorld world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner(HidingWorld::generation);
  world.take_place();
  world.pass(9 * second);
  CHECK(HidingWorld::read(world.beside) == "predecessor");
  world.pass(2 * second);
  CHECK(HidingWorld::read(world.file) == "successor");
  CHECK_FALSE(std::filesystem::exists(world.beside));
}

TEST_CASE("a successor that ends before it is ready changes nothing", "[holder]") {
  const bool says_goodbye = GENERATE(false, true);
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  CHECK(predecessor.holder.phase() == HolderPhase::granted);
  CHECK(predecessor.accepts());
  if (says_goodbye) {
    peer.say({.type = MessageType::goodbye});
  }
  peer.die();

  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.calls == std::vector<std::string>{"prepare", "abandon"});
  CHECK(predecessor.accepts());
  CHECK(world.logged("before it was ready; serving on"));
  Peer next(world);
  next.become_owner();
}

TEST_CASE("a successor that is not ready in time is told to end and to stop", "[holder]") {
  World world;
  world.options.ready_timeout = 60 * second;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  world.pass(59 * second);
  CHECK(predecessor.holder.phase() == HolderPhase::granted);
  CHECK(world.killed.empty());
  world.pass(2 * second);

  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(peer.hear().type == MessageType::abort);
  CHECK(world.killed == std::vector<int>{::getpid()});
  CHECK(predecessor.owner.count("abandon") == 1);
  CHECK(world.logged("was not ready within 60.0 s (CONTINUITY_READY_TIMEOUT)"));
  // What it says now is not heard any more.
  peer.say(with_ids(MessageType::ready, {1}));
  CHECK(predecessor.accepts());
}

TEST_CASE("what a successor names again and again counts once", "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer peer(world);
  peer.say(hello_message());
  REQUIRE(peer.hear().type == MessageType::inventory);
  peer.say(with_ids(MessageType::claim, {2, 1, 2, 2}));
  REQUIRE(peer.hear().type == MessageType::grant);
  peer.say({.type = MessageType::got});
  peer.say(with_ids(MessageType::claim, {1, 2, 1}));
  peer.say(with_ids(MessageType::ready, {1, 2, 2, 1}));
  CHECK(peer.hear().ids == std::vector<std::uint32_t>{1, 2});
  peer.say(with_ids(MessageType::claim, {1}));
  peer.say(with_ids(MessageType::ready, {1}));
  CHECK(peer.hear().ids == std::vector<std::uint32_t>{1, 2});
  CHECK_FALSE(predecessor.accepts());
}

TEST_CASE("a predecessor is deaf before it says so, and sweeps afterwards", "[holder]") {
  World world;
  Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  bool told_before_deaf = false;
  predecessor.owner.on_retire = [&] { told_before_deaf = predecessor.accepts(); };
  peer.say(with_ids(MessageType::ready, {1}));
  CHECK(told_before_deaf);  // it accepted until it was told to retire
  const Message retired = peer.hear();
  CHECK(retired.type == MessageType::retired);
  CHECK(retired.ids == std::vector<std::uint32_t>{1});
  CHECK(retired.duration == world.options.probation);
  CHECK(predecessor.owner.calls == std::vector<std::string>{"prepare", "retire 1", "sweep"});
  CHECK_FALSE(predecessor.accepts());
}

TEST_CASE("a successor that dies on probation is succeeded by its predecessor", "[holder]") {
  World world;
  world.options.probation = 5 * second;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  world.pass(4900 * millisecond);
  CHECK_FALSE(predecessor.accepts());

  peer.die();

  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.count("revive") == 1);
  CHECK(predecessor.accepts());
  CHECK(world.logged("serving again"));
  Peer next(world);
  next.become_owner();
}

TEST_CASE("after its probation a successor's death revives nobody", "[holder]") {
  World world;
  world.options.probation = 5 * second;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;
  Peer peer(world);
  peer.become_owner();
  world.pass(5100 * millisecond);
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(peer.hear().type == MessageType::healthy);
  peer.die();
  CHECK(predecessor.owner.count("revive") == 0);
  CHECK_FALSE(predecessor.accepts());
}

TEST_CASE("a goodbye on probation is the end of it, not a death, once nobody is left", "[holder]") {
  World world;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;
  Peer peer(world);
  peer.become_owner();
  peer.say({.type = MessageType::goodbye});
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
  CHECK(peer.hear().type == MessageType{});  // and it is still watched
  peer.die();
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(predecessor.owner.count("revive") == 0);
}

TEST_CASE("the goodbye of who was not ready yet is its parent's, when it becomes a daemon",
          "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  peer.say({.type = MessageType::goodbye});
  peer.become_ready(1);
  peer.die();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.count("revive") == 1);
}

TEST_CASE("a goodbye of who has not heard that it may take over does not end the service",
          "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  peer.say(with_ids(MessageType::ready, {1}));
  peer.say({.type = MessageType::goodbye});
  peer.die();  // and has not read the answer
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.accepts());
}

TEST_CASE("what the kernel knows of a successor's end counts more than a goodbye", "[holder]") {
  using How = ProcessEnd::How;
  const auto [end, says_goodbye, revives, line] =
      GENERATE(table<ProcessEnd, bool, bool, std::string>({
          {{How::killed, SIGKILL},
           true,
           true,
           " was killed by SIGKILL 0.0 s after it took over; serving again"},
          {{How::killed, SIGSEGV}, false, true, " was killed by SIGSEGV 0.0 s after"},
          {{How::killed, SIGTERM},
           false,
           false,
           " was killed by SIGTERM 0.0 s after it took over, as it was meant to"},
          {{How::killed, SIGHUP}, false, false, " was killed by SIGHUP 0.0 s after"},
      }));
  CAPTURE(end.text(), says_goodbye);
  World world;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;
  Peer peer(world);
  peer.become_owner();
  const Child successor;
  REQUIRE(successor.is_ready());
  predecessor.owner.watch.emplace(world.holder_sys, world.proc.get());
  predecessor.owner.watch->begin(successor.pid(), successor.pid());
  if (says_goodbye) {
    peer.say({.type = MessageType::goodbye});
  }
  successor.kill(end.value);
  peer.die();
  CHECK(predecessor.owner.count("revive") == (revives ? 1 : 0));
  CHECK(predecessor.holder.phase() == (revives ? HolderPhase::active : HolderPhase::draining));
  CHECK(world.logged(line));
}

TEST_CASE("it leaves when the last connection has ended, and not before", "[holder]") {
  World world;
  world.options.success_signal = SIGUSR1;
  world.options.retire_signal = SIGQUIT;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 3;
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation + 30 * second);
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(world.logged("finishing 3 connections"));
  CHECK(predecessor.owner.calls == std::vector<std::string>{"prepare", "retire 1", "sweep",
                                                            "forget",
                                                            "signal " + std::to_string(SIGUSR1),
                                                            "signal " + std::to_string(SIGQUIT)});

  predecessor.owner.live_connections = 0;
  world.pass(200 * millisecond);

  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
  CHECK(world.logged("no connection left; leaving (SIGTERM)"));
  CHECK(predecessor.owner.calls.at(6) == "withdraw");
  CHECK(predecessor.owner.calls.at(7) == "stop " + std::to_string(SIGTERM));
}

TEST_CASE("without connections it leaves when the probation is over", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation - 100 * millisecond);
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
  world.pass(200 * millisecond);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
  CHECK_FALSE(world.logged("finishing"));
}

TEST_CASE("who has become the main process since the old one was told to stop is told, too",
          "[holder]") {
  World world;
  Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation + 100 * millisecond);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
  CHECK(predecessor.owner.calls.back() == "stop " + std::to_string(SIGTERM));
  world.pass(2 * second);
  CHECK(predecessor.owner.calls.back() == "stop next " + std::to_string(SIGTERM));
}

TEST_CASE("a program that does not stop when told is ended", "[holder]") {
  World world;
  world.options.stop_signal = SIGINT;
  world.options.stop_timeout = 7 * second;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation + 6 * second);
  CHECK(predecessor.owner.count("stop " + std::to_string(SIGINT)) == 1);
  CHECK(predecessor.owner.count("stop " + std::to_string(SIGKILL)) == 0);
  world.pass(2 * second);
  CHECK(predecessor.owner.count("stop " + std::to_string(SIGKILL)) == 1);
  CHECK(world.logged("still here 7.0 s after SIGINT"));
}

TEST_CASE("one connection is not several", "[holder]") {
  World world;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation + 130 * second);
  CHECK(world.logged("finishing 1 connection\n"));
  CHECK(world.logged("still finishing 1 connection (of pid " + std::to_string(::getpid()) + ")\n"));
}

TEST_CASE("when its time is over, idle connections are told to end, and a second later all are",
          "[holder]") {
  World world;
  world.options.drain_timeout = 10 * second;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 2;
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation + 9 * second);
  CHECK(predecessor.owner.count("finish") == 0);

  world.pass(1500 * millisecond);
  CHECK(predecessor.owner.count("finish") > 1);  // again and again: some are answered meanwhile
  CHECK(world.logged("CONTINUITY_DRAIN_TIMEOUT: 2 connections (one of pid " +
                     std::to_string(::getpid()) + ") left; idle ones are told to end"));
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(predecessor.owner.count("stop") == 0);

  world.pass(second);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
  CHECK(predecessor.owner.count("stop " + std::to_string(SIGTERM)) == 1);
  CHECK(world.logged("left; not waiting any longer"));
  world.pass(world.options.stop_timeout + second);
  CHECK(predecessor.owner.count("stop " + std::to_string(SIGKILL)) == 1);
}

TEST_CASE("connections that end when they are told to are the last it waits for", "[holder]") {
  World world;
  world.options.drain_timeout = 0;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 2;
  Peer peer(world);
  peer.become_owner();
  world.pass(world.options.probation + 100 * millisecond);
  REQUIRE(predecessor.owner.count("finish") > 0);
  predecessor.owner.live_connections = 0;
  world.pass(200 * millisecond);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
  CHECK(world.logged("no connection left; leaving"));
  CHECK_FALSE(world.logged("not waiting any longer"));
}

TEST_CASE("its time does not end before unclaimed addresses are closed", "[holder]") {
  World world;
  world.options.drain_timeout = second;
  world.options.unclaimed = 20 * second;
  Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  predecessor.owner.live_connections = 1;
  Peer peer(world);
  peer.become_owner();
  world.pass(19 * second);
  CHECK(predecessor.owner.count("finish") == 0);
  CHECK(predecessor.accepts(1));
  world.pass(3 * second);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
}

TEST_CASE("who leads in the middle of a drain keeps its end", "[holder]") {
  World world;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;
  predecessor.holder.resume(HolderPhase::draining, world.time() + 3 * second);
  world.pass(2 * second);
  CHECK(predecessor.owner.count("finish") == 0);
  world.pass(3 * second);
  CHECK(predecessor.owner.count("finish") > 0);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
}

TEST_CASE("what was not claimed is served on and closed in its time", "[holder]") {
  World world;
  world.options.unclaimed = 10 * second;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer peer(world);
  peer.become_owner();
  CHECK_FALSE(predecessor.accepts(0));
  CHECK(predecessor.accepts(1));
  CHECK(world.logged("did not claim " + to_string(predecessor.wanted(1).address)));
  world.pass(9 * second);
  CHECK(predecessor.accepts(1));
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(predecessor.owner.count("close") == 0);
  world.pass(2 * second);
  CHECK(predecessor.owner.count("close 2") == 1);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
}

TEST_CASE("what was not claimed is not closed if the predecessor comes back", "[holder]") {
  World world;
  world.options.unclaimed = second;
  world.options.probation = 5 * second;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer peer(world);
  peer.become_owner();
  peer.die();
  world.pass(20 * second);
  CHECK(predecessor.owner.count("close") == 0);
  CHECK(predecessor.accepts(0));
  CHECK(predecessor.accepts(1));
}

TEST_CASE("only what READY names is retired", "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer peer(world);
  peer.become_granted();
  peer.say(with_ids(MessageType::claim, {2}));
  peer.say(with_ids(MessageType::ready, {2}));
  CHECK(peer.hear().type == MessageType::retired);
  CHECK(predecessor.owner.count("retire 2") == 1);
  CHECK(predecessor.accepts(0));
  CHECK_FALSE(predecessor.accepts(1));
}

TEST_CASE("READY that names nothing retires nothing, and the program stays", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  peer.say(with_ids(MessageType::ready, {}));
  world.pass(60 * second);
  CHECK(predecessor.accepts());
  CHECK(predecessor.holder.phase() != HolderPhase::leaving);
}

TEST_CASE("garbage is answered, named and closed, and nothing has changed", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.say_raw("GET / HTTP/1.1\r\n\r\n");
  CHECK(peer.hear().type == MessageType::abort);
  peer.hear();
  CHECK(peer.error == ECONNRESET);
  CHECK(world.logged("said something that is not ours"));
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  Peer next(world);
  next.become_owner();
}

TEST_CASE("garbage during an attempt ends the attempt only", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  peer.say_raw("garbage");
  CHECK(peer.hear().type == MessageType::abort);
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.accepts());
}

TEST_CASE("garbage on probation does not make the predecessor accept beside its successor",
          "[holder]") {
  const auto* bytes = GENERATE("garbage", "");
  World world;
  Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  peer.say_raw(bytes);
  // It lives, it holds its channel, it accepts.
  CHECK(predecessor.owner.count("revive") == 0);
  CHECK_FALSE(predecessor.accepts());
}

TEST_CASE(
    "a message out of turn on probation does not make the predecessor accept beside its "
    "successor",
    "[holder]") {
  const auto message = GENERATE(values<Message>({hello_message(),
                                                 {.type = MessageType::inventory},
                                                 {.type = MessageType::grant},
                                                 {.type = MessageType::got},
                                                 {.type = MessageType::healthy},
                                                 {.type = MessageType::ready},
                                                 with_ids(MessageType::ready, {1}),
                                                 with_ids(MessageType::ready, {99}),
                                                 with_ids(MessageType::claim, {}),
                                                 with_ids(MessageType::claim, {99})}));
  CAPTURE(static_cast<int>(message.type), message.ids);
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();

  peer.say(message);

  CHECK(predecessor.owner.count("revive") == 0);
  CHECK_FALSE(predecessor.accepts());
  // Its death is noticed all the same.
  peer.die();
  CHECK(predecessor.accepts());
}

TEST_CASE("READY said again is answered again", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  world.pass(second);
  peer.say(with_ids(MessageType::ready, {1}));
  const Message again = peer.hear();
  CHECK(again.type == MessageType::retired);
  CHECK(again.ids == std::vector<std::uint32_t>{1});
  CHECK(again.duration <= world.options.probation - second);
  CHECK(predecessor.owner.count("retire") == 1);
}

TEST_CASE(
    "a failure to read on probation does not make the predecessor accept beside its successor",
    "[holder]") {
  const auto code = GENERATE(ENOMEM, ENOBUFS);
  World world;
  Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  world.holder_sys.fail_next(Call::recvmsg, code);
  peer.say({.type = MessageType::got});  // anything at all
  CHECK(world.holder_sys.has_failed());
  CHECK(predecessor.owner.count("revive") == 0);
}

TEST_CASE("messages out of turn are answered and closed, in every phase, without a crash",
          "[holder]") {
  constexpr std::array types{MessageType::hello,   MessageType::inventory, MessageType::claim,
                             MessageType::grant,   MessageType::got,       MessageType::refused,
                             MessageType::ready,   MessageType::retired,   MessageType::healthy,
                             MessageType::goodbye, MessageType::abort};
  const std::array<void (*)(Peer&), 4> beginnings{[](Peer&) {},
                                                  [](Peer& peer) {
                                                    peer.say(hello_message());
                                                    peer.hear();
                                                  },
                                                  [](Peer& peer) { peer.become_granted(); },
                                                  [](Peer& peer) { peer.become_owner(); }};
  const auto stage = GENERATE(range(0, 4));
  const bool named = GENERATE(true, false);
  for (const MessageType type : types) {
    CAPTURE(stage, static_cast<int>(type), named);
    World world;
    world.options.ready_timeout = 2 * second;
    const Predecessor predecessor(world);
    Peer peer(world);
    beginnings.at(static_cast<std::size_t>(stage))(peer);
    Message message = type == MessageType::hello ? hello_message() : Message{.type = type};
    message.ids.assign(named ? 1 : 0, 1);

    peer.say(message);

    // Whatever happened, time goes on; and if the successor did not end as the
    // owner, its death leaves a predecessor that serves.
    if (predecessor.holder.phase() == HolderPhase::active ||
        predecessor.holder.phase() == HolderPhase::granted) {
      CHECK(predecessor.accepts());
      world.pass(3 * second);
      peer.die();
      CHECK(predecessor.accepts());
      CHECK(predecessor.holder.phase() == HolderPhase::active);
    } else {
      CHECK(stage >= 2);
    }
    world.pass(10 * second);
  }
}

TEST_CASE("a claim of what was not offered is refused", "[holder]") {
  for (const std::vector<std::uint32_t>& ids :
       {std::vector<std::uint32_t>{}, {0}, {2}, {1, 2}, {0xffffffff}}) {
    World world;
    const Predecessor predecessor(world);
    Peer peer(world);
    peer.say(hello_message());
    peer.hear();
    peer.say(with_ids(MessageType::claim, ids));
    CHECK(peer.hear().type == MessageType::abort);
    CHECK(predecessor.owner.calls.empty());
    CHECK(predecessor.holder.phase() == HolderPhase::active);
  }
}

TEST_CASE("a listener that was closed since it was offered is not handed over", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.say(hello_message());
  peer.hear();
  const OwnedFd secret = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(::dup3(secret.get(), predecessor.fd(), O_CLOEXEC) >= 0);
  peer.say(with_ids(MessageType::claim, {1}));
  CHECK(peer.hear().type == MessageType::refused);
  CHECK(predecessor.holder.phase() == HolderPhase::active);
}

TEST_CASE("a listener that was closed since it was offered is no reason to refuse another",
          "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Peer peer(world);
  peer.say(hello_message());
  peer.hear();
  const OwnedFd other = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  REQUIRE(::dup3(other.get(), predecessor.fd(1), O_CLOEXEC) >= 0);
  peer.say(with_ids(MessageType::claim, {1}));
  const Message grant = peer.hear();
  CHECK(grant.type == MessageType::grant);
  CHECK(grant.total == 1);
  CHECK(grant.ids == std::vector<std::uint32_t>{1});
}

TEST_CASE("another version of the protocol is told which one we speak", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  Message hello = hello_message();
  hello.protocol_min = 2;
  hello.protocol_max = 7;
  peer.say(hello);
  const Message answer = peer.hear();
  CHECK(answer.type == MessageType::abort);
  CHECK(answer.code == EPROTONOSUPPORT);
  CHECK(answer.protocol_max == protocol_version);
  CHECK(world.logged("speaks protocol 2 to 7"));
  CHECK(predecessor.holder.phase() == HolderPhase::active);
}

TEST_CASE("who speaks our version among others is welcome", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  Message hello = hello_message();
  hello.protocol_max = 7;
  peer.say(hello);
  CHECK(peer.hear().type == MessageType::inventory);
}

TEST_CASE("a second HELLO in the middle of an attempt does not leave it hanging", "[holder]") {
  World world;
  world.options.ready_timeout = 2 * second;
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  peer.say(hello_message());
  world.pass(3 * second);
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.count("abandon") == 1);
  CHECK(predecessor.accepts());
}

TEST_CASE("somebody who connects and says nothing is let go", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer peer(world);
  world.pass(1900 * millisecond);
  peer.hear();
  CHECK(peer.error == ETIMEDOUT);
  world.pass(200 * millisecond);
  peer.hear();
  CHECK(peer.error == ECONNRESET);
}

TEST_CASE("an attempt is not disturbed by forty who only look", "[holder]") {
  World world;
  const Predecessor predecessor(world);
  Peer successor(world);
  successor.become_granted();
  std::vector<std::unique_ptr<Peer>> lookers;
  for (int i = 0; i < 40; ++i) {
    lookers.push_back(std::make_unique<Peer>(world));
    world.settle();
  }
  CHECK(world.logged("is turned away"));
  successor.say(with_ids(MessageType::ready, {1}));
  CHECK(successor.hear().type == MessageType::retired);
}

TEST_CASE("another user is not spoken to", "[holder]") {
  World world;
  world.holder_sys.hooks.getsockopt = [](int fd, int level, int name, void* value,
                                         socklen_t* length) {
    const int result = ::getsockopt(fd, level, name, value, length);
    if (level == SOL_SOCKET && name == SO_PEERCRED) {
      static_cast<ucred*>(value)->uid = ::geteuid() + 1;
    }
    return result;
  };
  const Predecessor predecessor(world);
  Peer peer(world);
  peer.say(hello_message());
  CHECK(peer.hear().type == MessageType{});
  CHECK(peer.error == ECONNRESET);
  CHECK(world.logged("knocked at the rendezvous socket; ignored"));

  // He is named once a second, however often he knocks.
  const auto named = [&] {
    return std::count_if(world.lines.begin(), world.lines.end(), [](const std::string& line) {
      return line.find("knocked at") != std::string::npos;
    });
  };
  for (int i = 0; i < 20; ++i) {
    Peer(world).die();
  }
  CHECK(named() == 1);
  world.pass(second);
  Peer(world).die();
  CHECK(named() == 2);
}

TEST_CASE("a READY that waits is read before the clock, also after a signal", "[holder]") {
  const bool interrupted = GENERATE(false, true);
  CAPTURE(interrupted);
  World world;
  world.options.ready_timeout = 2 * second;
  Predecessor predecessor(world);
  Peer peer(world);
  peer.become_granted();
  predecessor.stopped = true;
  peer.say(with_ids(MessageType::ready, {1}));
  world.pass(10 * second);
  predecessor.stopped = false;
  if (interrupted) {
    world.holder_sys.fail_next(Call::ppoll, EINTR);
  }

  world.settle();

  CHECK(peer.hear().type == MessageType::retired);
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
}

TEST_CASE("a death that waits is read before the clock, also after a signal", "[holder]") {
  const bool interrupted = GENERATE(false, true);
  CAPTURE(interrupted);
  World world;
  world.options.probation = 2 * second;
  Predecessor predecessor(world);
  Peer peer(world);
  peer.become_owner();
  predecessor.stopped = true;
  peer.die();
  world.pass(10 * second);
  predecessor.stopped = false;
  if (interrupted) {
    world.holder_sys.fail_next(Call::ppoll, EINTR);
  }
  world.settle();
  CHECK(predecessor.owner.count("revive") == 1);
  CHECK(predecessor.accepts());
}

TEST_CASE("a door that cannot be answered for want of descriptors is not tried without a pause",
          "[holder]") {
  World world;
  const Predecessor predecessor(world);
  world.holder_sys.hooks.accept4 = [](int, sockaddr*, socklen_t*, int) {
    errno = EMFILE;
    return -1;
  };
  int spins = 0;
  world.holder_sys.hooks.ppoll = [&](pollfd* fds, nfds_t count, const timespec*) {
    const timespec at_once{};
    const int ready = ::ppoll(fds, count, &at_once, nullptr);
    spins += ready > 0 ? 1 : 0;
    return ready;
  };
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  const auto peers = rendezvous.connect_all(99, world.log);
  for (int round = 0; round < 100; ++round) {
    world.predecessors[0]->holder.run_once();
  }
  CHECK(spins < 50);
}

TEST_CASE("while its own predecessor watches it may not be claimed, and then it may", "[holder]") {
  World world;
  Predecessor predecessor(world);
  std::array<int, 2> pair{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) == 0);
  predecessor.holder.watch_predecessor(Channel(world.holder_sys, own(pair[0])),
                                       world.time() + 5 * second);
  Channel watcher(libc_sys(), own(pair[1]));
  Peer peer(world);
  peer.say(hello_message());
  const Message wait = peer.hear();
  CHECK(wait.state == HolderState::on_probation);
  CHECK(wait.duration > 4 * second);
  CHECK(wait.duration <= 5 * second);
  world.pass(2 * second);
  peer.hear();
  CHECK(peer.error == ETIMEDOUT);  // nothing new

  SECTION("when it says that all is well") {
    REQUIRE(watcher.send({.type = MessageType::healthy}, never));
  }
  SECTION("when it has gone") {
    watcher.close();
  }
  SECTION("when it has been silent for far too long") {
    world.pass(20 * second);
  }

  CHECK(peer.hear().state == HolderState::active);
}

TEST_CASE("who greets a generation that owns nothing yet is answered when it does", "[holder]") {
  World world;
  Predecessor predecessor(world);
  predecessor.holder.wait_for_ownership();
  Peer peer(world);
  peer.say(hello_message());
  world.pass(20 * second);
  peer.hear();
  CHECK(peer.error == ETIMEDOUT);
  Peer joining(world);
  joining.say({.type = MessageType::join});
  CHECK(joining.hear().type == MessageType::refused);  // but answered

  predecessor.holder.begin();

  const Message inventory = peer.hear();
  CHECK(inventory.type == MessageType::inventory);
  CHECK(inventory.listeners.size() == 1);
}

TEST_CASE("a probation that never ends is no overflow", "[holder]") {
  World world;
  Predecessor predecessor(world);
  std::array<int, 2> pair{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) == 0);
  const Channel watcher(libc_sys(), own(pair[1]));
  predecessor.holder.watch_predecessor(Channel(world.holder_sys, own(pair[0])), never);
  Peer peer(world);
  peer.say(hello_message());
  CHECK(peer.hear().state == HolderState::on_probation);
}

TEST_CASE("a successor that dies between retire and answer leaves a predecessor that serves",
          "[holder]") {
  const auto flags = GENERATE(SOCK_NONBLOCK, 0);
  CAPTURE(flags);
  World world;
  std::vector<OwnedFd> listeners;
  listeners.push_back(listen_at("127.0.0.1:0", flags));
  Predecessor predecessor(world, std::move(listeners), 1);
  auto peer = std::make_unique<Peer>(world);
  peer->become_granted();
  bool retiring = false;
  predecessor.owner.on_retire = [&] {
    retiring = true;
    peer->close();
  };
  peer->say(with_ids(MessageType::ready, {1}));
  world.settle();
  CHECK(retiring);
  CHECK(predecessor.owner.count("revive") == 1);
  CHECK(predecessor.accepts());
}

// ---- Several conversations of one successor ------------------------------------------

using Ids = std::vector<std::uint32_t>;
using Texts = std::vector<std::string>;
const Texts two_addresses{"127.0.0.1:0", "127.0.0.1:0"};
constexpr std::uint64_t successor_generation = 7;

TEST_CASE("processes of one successor claim from one predecessor side by side", "[holder]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"});
  Peer one(world);
  one.become_granted(successor_generation, 1);
  Peer two(world);
  CHECK(two.look(successor_generation) == Ids{2, 3});
  two.say(with_ids(MessageType::claim, {2}));
  const Message grant = two.hear();
  CHECK(grant.type == MessageType::grant);
  CHECK(grant.ids == Ids{2, 3});
  CHECK(predecessor.owner.count("prepare") == 1);

  CHECK(two.become_ready(2).ids == Ids{2});

  CHECK(predecessor.holder.phase() == HolderPhase::probation);
  CHECK(predecessor.accepts(0));
  CHECK_FALSE(predecessor.accepts(1));
  CHECK(world.logged("did not claim " + to_string(predecessor.wanted(2).address)));
  CHECK_FALSE(world.logged("did not claim " + to_string(predecessor.wanted(0).address)));
  world.pass(second);
  const Message retired = one.become_ready(1);
  CHECK(retired.ids == Ids{1});
  CHECK(retired.duration <= world.options.probation - second);  // the first one's
  CHECK_FALSE(predecessor.accepts(0));
  world.pass(world.options.probation - second);
  CHECK(one.hear().type == MessageType::healthy);
  CHECK(two.hear().type == MessageType::healthy);
}

TEST_CASE("who looked before the other of its generation claimed can still claim the rest",
          "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer one(world);
  Peer two(world);
  Peer three(world);
  CHECK(two.look(successor_generation) == Ids{1, 2});
  CHECK(three.look(successor_generation) == Ids{1, 2});
  one.become_granted(successor_generation, 1);
  three.say(with_ids(MessageType::claim, {1}));
  CHECK(three.hear().type == MessageType::refused);
  two.say(with_ids(MessageType::claim, {2}));
  CHECK(two.hear().type == MessageType::grant);
}

std::vector<OwnedFd> a_group_of_one() {
  std::vector<OwnedFd> listeners;
  listeners.push_back(own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  REQUIRE(listen_in_group(listeners.front(), address("127.0.0.1:0")));
  return listeners;
}

// One more member of the group of a predecessor's first listener.
struct LateMember {
  explicit LateMember(Predecessor& predecessor) : owner(predecessor.owner) {
    fd = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(listen_in_group(fd, name_of(predecessor.fd())));
  }
  void show(bool all_answer = true) {
    owner.late = {fd.get()};
    owner.all_answer = all_answer;
    ++owner.made;
  }
  FakeOwner& owner;
  OwnedFd fd{};
};

TEST_CASE("who listens when the successor has been told what there is, is left to be claimed",
          "[holder]") {
  World world;
  Predecessor predecessor(world, a_group_of_one(), 1);
  predecessor.owner.scattered = true;
  LateMember late(predecessor);
  Peer one(world);
  const bool before = GENERATE(true, false);
  if (before) {
    one.become_granted(successor_generation, 1);
  } else {
    one.become_owner(successor_generation, 1);
  }
  late.show();
  Peer two(world);
  CHECK(two.look(successor_generation) == Ids{2});
  two.say(with_ids(MessageType::claim, {2}));
  CHECK(two.hear().type == MessageType::grant);
  if (before) {
    CHECK(one.become_ready(1).type == MessageType::retired);
  }
  CHECK(two.become_ready(2).ids == Ids{2});
  CHECK(predecessor.owner.count("ask") == 1);
  CHECK(predecessor.owner.count("close") == 0);
}

TEST_CASE("who listens late and is claimed by nobody is closed", "[holder]") {
  World world;
  Predecessor predecessor(world, a_group_of_one(), 1);
  LateMember late(predecessor);
  Peer one(world);
  one.become_owner(successor_generation, 1);
  if (GENERATE(false, true)) {
    predecessor.owner.live_connections = 1;
    world.pass(world.options.probation + second);
    REQUIRE(predecessor.holder.phase() == HolderPhase::draining);
  }
  late.show();
  world.pass(2 * second);
  CHECK(predecessor.owner.count("close 2") == 1);
}

TEST_CASE("a process that does not say what it listens on is asked again, and not for ever",
          "[holder]") {
  World world;
  Predecessor predecessor(world, a_group_of_one(), 1);
  LateMember late(predecessor);
  Peer one(world);
  one.become_owner(successor_generation, 1);
  late.show(false);
  late.owner.late = {};
  world.pass(100 * millisecond);
  const int asked = predecessor.owner.count("ask");
  CHECK(asked > 1);
  late.owner.late = {late.fd.get()};
  world.pass(3 * second);
  CHECK(predecessor.owner.count("close 2") == 1);
  world.pass(3 * second);
  const int in_the_end = predecessor.owner.count("ask");
  CHECK(in_the_end < asked + 16);
  world.pass(10 * second);
  CHECK(predecessor.owner.count("ask") == in_the_end);
}

TEST_CASE("nobody leaves while a process has not said what it listens on", "[holder]") {
  World world;
  Predecessor predecessor(world, a_group_of_one(), 1);
  LateMember late(predecessor);
  predecessor.owner.live_connections = 0;
  Peer one(world);
  one.become_owner(successor_generation, 1);
  world.pass(world.options.probation - second);
  late.show(false);
  late.owner.late = {};
  world.pass(second + 500 * millisecond);
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  late.show();
  world.pass(second);
  CHECK(predecessor.owner.count("close 2") == 1);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
}

TEST_CASE("who listens late on an address of its own is left alone", "[holder]") {
  World world;
  Predecessor predecessor(world, a_group_of_one(), 1);
  const OwnedFd other = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::listen(other.get(), 1) == 0);
  Peer one(world);
  one.become_owner(successor_generation, 1);
  predecessor.owner.late = {other.get()};
  ++predecessor.owner.made;
  world.pass(2 * second);
  CHECK(predecessor.owner.count("ask") == 1);
  CHECK(predecessor.owner.count("prepare late") == 0);
}

TEST_CASE("what a successor claims on probation is retired then, and revived with the rest",
          "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  CHECK(predecessor.accepts(1));
  Peer second_one(world);
  CHECK(second_one.look(successor_generation) == Ids{2});
  second_one.say(with_ids(MessageType::claim, {2}));
  REQUIRE(second_one.hear().type == MessageType::grant);
  CHECK(predecessor.accepts(1));  // until it is ready
  REQUIRE(second_one.become_ready(2).type == MessageType::retired);
  CHECK_FALSE(predecessor.accepts(1));

  const bool first_one_first = GENERATE(true, false);
  (first_one_first ? first : second_one).die();
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
  CHECK_FALSE(predecessor.accepts(0));
  CHECK_FALSE(predecessor.accepts(1));
  (first_one_first ? second_one : first).die();

  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.count("revive") == 1);
  CHECK(predecessor.accepts(0));
  CHECK(predecessor.accepts(1));
  Peer next(world);
  CHECK(next.look(successor_generation + 1) == Ids{1, 2});
}

TEST_CASE("a rival is refused what a successor has not claimed", "[holder]") {
  const auto generation = GENERATE(std::uint64_t{0}, successor_generation + 1);
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer early(world);
  CHECK(early.look(generation) == Ids{1, 2});
  Peer first(world);
  first.become_owner(generation == 0 ? 0 : successor_generation, 1);
  early.say(with_ids(MessageType::claim, {2}));
  CHECK(early.hear().type == MessageType::refused);
  Peer late(world);
  late.say(hello_message(generation));
  CHECK(late.hear().state == HolderState::busy);
  CHECK(predecessor.accepts(1));
}

TEST_CASE("a successor claims what is left after its probation, too", "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  world.pass(world.options.probation + second);
  REQUIRE(predecessor.holder.phase() == HolderPhase::draining);
  Peer late(world);
  late.become_granted(successor_generation, 2);
  // What it has claimed is not closed under its hands, however long it takes.
  world.pass(world.options.unclaimed + 10 * second);
  CHECK(predecessor.owner.count("close") == 0);
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(predecessor.accepts(1));

  const Message retired = late.become_ready(2);

  CHECK(retired.type == MessageType::retired);
  CHECK(retired.duration == 0);
  CHECK(late.hear().type == MessageType::healthy);
  CHECK_FALSE(predecessor.accepts(1));
  CHECK(predecessor.owner.count("revive") == 0);
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
}

TEST_CASE("who has claimed and is not ready when the probation ends hears of it after its READY",
          "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  Peer late(world);
  late.become_granted(successor_generation, 2);
  world.pass(world.options.probation + second);
  CHECK(first.hear().type == MessageType::healthy);
  late.hear();
  CHECK(late.error == ETIMEDOUT);
  CHECK(late.become_ready(2).type == MessageType::retired);
  CHECK(late.hear().type == MessageType::healthy);
}

TEST_CASE("a late claim that comes to nothing leaves the listener unclaimed", "[holder]") {
  const bool on_probation = GENERATE(true, false);
  World world;
  world.options.unclaimed = 10 * second;
  const Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  world.pass(on_probation ? 0 : world.options.probation + second);
  Peer late(world);
  late.become_granted(successor_generation, 2);
  late.die();
  CHECK(predecessor.owner.count("revive") == 0);
  CHECK(predecessor.accepts(1));
  Peer again(world);
  CHECK(again.look(successor_generation) == Ids{2});
  world.pass(20 * second);
  CHECK(predecessor.owner.count("close 2") == 1);
  CHECK(predecessor.holder.phase() == HolderPhase::leaving);
}

TEST_CASE("a late claim that comes to nothing after the time of the unclaimed gets a new one",
          "[holder]") {
  World world;
  world.options.unclaimed = 2 * second;
  const Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  Peer late(world);
  late.become_granted(successor_generation, 2);
  world.pass(3 * second);
  CHECK(predecessor.accepts(1));
  late.die();
  CHECK(predecessor.accepts(1));
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
  world.pass(3 * second);
  CHECK(predecessor.owner.count("close 2") == 1);
  CHECK_FALSE(predecessor.accepts(1));
}

TEST_CASE("an attempt of several processes that is not ready in time is told to all of them",
          "[holder]") {
  World world;
  world.options.ready_timeout = 2 * second;
  const Predecessor predecessor(world, two_addresses);
  Peer one(world);
  one.become_granted(successor_generation, 1);
  Peer two(world);
  two.become_granted(successor_generation, 2);
  world.pass(3 * second);
  CHECK(one.hear().type == MessageType::abort);
  CHECK(two.hear().type == MessageType::abort);
  CHECK(world.killed == std::vector<int>{::getpid()});  // one process here
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.count("abandon") == 1);
}

TEST_CASE("one of several that ends before anybody is ready drops its own claims only",
          "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer one(world);
  one.become_granted(successor_generation, 1);
  Peer two(world);
  two.become_granted(successor_generation, 2);
  one.die();
  CHECK(predecessor.holder.phase() == HolderPhase::granted);
  CHECK(two.become_ready(2).type == MessageType::retired);
  CHECK(predecessor.accepts(0));
  CHECK(world.logged("did not claim " + to_string(predecessor.wanted(0).address)));
}

TEST_CASE("who was offered what others left cannot begin an attempt of its own", "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer one(world);
  one.become_granted(successor_generation, 1);
  Peer two(world);
  CHECK(two.look(successor_generation) == Ids{2});
  one.die();
  REQUIRE(predecessor.holder.phase() == HolderPhase::active);
  two.say(with_ids(MessageType::claim, {2}));
  CHECK(two.hear().type == MessageType::refused);
  CHECK(predecessor.holder.phase() == HolderPhase::active);
}

TEST_CASE("garbage from a process that is not ready costs it its own claim", "[holder]") {
  World world;
  const Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  Peer late(world);
  late.become_granted(successor_generation, 2);
  late.say_raw("garbage");
  CHECK(late.hear().type == MessageType::abort);
  CHECK(predecessor.owner.count("revive") == 0);
  CHECK(predecessor.accepts(1));
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
}

TEST_CASE("a process that dies between retire and answer ends nothing while another lives",
          "[holder]") {
  World world;
  Predecessor predecessor(world, two_addresses);
  Peer first(world);
  first.become_owner(successor_generation, 1);
  Peer late(world);
  late.become_granted(successor_generation, 2);
  predecessor.owner.on_retire = [&] { late.close(); };
  late.say(with_ids(MessageType::ready, {2}));
  CHECK(predecessor.owner.count("revive") == 0);
  CHECK(predecessor.owner.count("sweep") == 2);
  first.die();
  CHECK(predecessor.accepts(0));
  CHECK(predecessor.accepts(1));
}

TEST_CASE("addresses in the log are cut after four", "[holder]") {
  CHECK(join_addresses({}).empty());
  CHECK(join_addresses({"a"}) == "a");
  CHECK(join_addresses({"a", "b", "c", "d"}) == "a, b, c, d");
  CHECK(join_addresses({"a", "b", "c", "d", "e", "f"}) == "a, b, c, d, and 2 more");
}

}  // namespace continuity::test
