// Predecessor and successor over a real rendezvous: what a successor meets.
#include "core/taker.hpp"

#include "conversation.hpp"
#include "core/joining.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

using Found = Taker::Found;

// A predecessor that a test plays itself: answers the first message that comes
// with `answers`, and then says nothing more.
class Impostor {
 public:
  Impostor(World& world, std::vector<Message> answers, std::uint64_t generation = 66)
      : world_(world),
        rendezvous_(world.open_rendezvous(libc_sys())),
        answers_(std::move(answers)) {
    auto door = rendezvous_.publish("server", generation);
    door_ = std::move(*door);
    world_.on_wait = [this] { run(); };
  }
  ~Impostor() { world_.on_wait = nullptr; }
  Impostor(const Impostor&) = delete;
  Impostor& operator=(const Impostor&) = delete;

  std::vector<Message> heard;
  std::vector<int> fds;      // travel with every grant, and with a welcome
  std::string raw;           // said instead of a message, once
  bool hangs_up = false;     // after having answered
  bool door_closed = false;  // nobody listens any more

 private:
  void run() {
    if (!channel_.is_open() && door_.is_open()) {
      const int fd = ::accept4(door_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) {
        channel_ = Channel(libc_sys(), own(fd));
      }
    }
    while (channel_.is_open()) {
      auto received = channel_.receive(0);
      if (!received) {
        return;
      }
      heard.push_back(std::move(received->message));
      answer();
    }
  }
  void answer() {
    if (!raw.empty()) {
      ::send(channel_.fd(), raw.data(), raw.size(), MSG_NOSIGNAL);
      raw.clear();
    }
    if (next_ < answers_.size()) {
      const Message& message = answers_[next_++];
      const bool grant = message.type == MessageType::grant || message.type == MessageType::welcome;
      static_cast<void>(channel_.send(
          message, grant ? std::span<const int>(fds) : std::span<const int>{}, never));
    }
    if (next_ >= answers_.size() && hangs_up) {
      channel_.close();
      if (door_closed) {
        door_.reset();
      }
    }
  }

  World& world_;
  Rendezvous rendezvous_;
  OwnedFd door_;
  Channel channel_;
  std::vector<Message> answers_;
  std::size_t next_ = 0;
};

Message inventory_of(std::vector<Listener> listeners) {
  Message inventory{.type = MessageType::inventory};
  inventory.protocol_min = inventory.protocol_max = protocol_version;
  inventory.identity = "server";
  inventory.pid = 4711;
  std::uint32_t id = 0;
  for (Listener& listener : listeners) {
    listener.id = ++id;
  }
  inventory.total = static_cast<std::uint32_t>(listeners.size());
  inventory.listeners = std::move(listeners);
  return inventory;
}

Message grant_of(std::vector<std::uint32_t> ids) {
  Message grant{.type = MessageType::grant};
  grant.ids = std::move(ids);
  return grant;
}

}  // namespace

TEST_CASE("who binds the address of a predecessor is given its socket", "[taker]") {
  World world;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);

  const auto claim = taker.claim(rendezvous, predecessor.wanted());

  REQUIRE(claim.found == Found::claimed);
  CHECK(same_socket(claim.fd.get(), predecessor.fd()));
  CHECK((::fcntl(claim.fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(same_endpoint(claim.listener.address, predecessor.wanted().address));
  CHECK(taker.has_claims());
  CHECK(predecessor.holder.phase() == HolderPhase::granted);
  CHECK(predecessor.accepts());
}

TEST_CASE("where nobody holds the address there is nothing to claim", "[taker]") {
  World world;
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  Listener wanted;
  wanted.type = SOCK_STREAM;
  wanted.address = address("127.0.0.1:1");
  CHECK(taker.claim(rendezvous, wanted).found == Found::nothing);

  const Predecessor predecessor(world);
  CHECK(taker.claim(rendezvous, wanted).found == Found::nothing);
  CHECK_FALSE(taker.has_claims());
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.owner.calls.empty());
}

TEST_CASE("READY makes the successor the owner, and the predecessor deaf before that", "[taker]") {
  World world;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto claim = taker.claim(rendezvous, predecessor.wanted());

  const auto outcome = taker.become_owner(rendezvous);

  CHECK(outcome.owner);
  CHECK(outcome.predecessors.size() == 1);
  CHECK(outcome.probation_ends > world.time());
  CHECK_FALSE(taker.has_claims());
  CHECK(predecessor.holder.phase() == HolderPhase::probation);
  CHECK_FALSE(predecessor.accepts());
  const std::string what = to_string(claim.listener.address);
  const std::string pid = std::to_string(::getpid());
  CHECK(world.logged("took over " + what + " from pid " + pid + " in "));
  CHECK(world.logged("handed " + what + " over to pid " + pid + " in "));
}

TEST_CASE("who has said READY stays awake for an answer that comes soon", "[taker]") {
  World world;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  world.runs_at_yield = true;
  const auto call = world.taker_sys.hooks.ppoll;
  Nanoseconds asleep = 0;
  world.taker_sys.hooks.ppoll = [&](pollfd* fds, nfds_t count, const timespec* timeout) {
    const Nanoseconds began = world.time();
    const int ready = call(fds, count, timeout);
    asleep += world.time() - began;
    return ready;
  };
  SECTION("and sees it then") {
    CHECK(taker.become_owner(rendezvous).owner);
    CHECK(asleep == 0);
  }
  SECTION("but sleeps where none comes") {
    predecessor.stopped = true;
    CHECK_FALSE(taker.become_owner(rendezvous).owner);
    CHECK(asleep > 0);
  }
}

TEST_CASE("several listeners are granted at once and claimed one by one", "[taker]") {
  World world;
  const std::string path = world.directory.path() + "/s";
  Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0", "unix:" + path});
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  std::vector<Taker::Claim> claims;
  for (const std::size_t index : {2U, 0U, 1U}) {
    claims.push_back(taker.claim(rendezvous, predecessor.wanted(index)));
    REQUIRE(claims.back().found == Found::claimed);
    CHECK(same_socket(claims.back().fd.get(), predecessor.fd(index)));
  }
  CHECK(taker.claim(rendezvous, predecessor.wanted(0)).found != Found::claimed);
  CHECK(predecessor.owner.count("prepare") == 1);
  CHECK(taker.become_owner(rendezvous).owner);
  CHECK(predecessor.owner.count("retire 1 2 3") == 1);
}

TEST_CASE("what the program has closed between offer and claim is not waited for", "[taker]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"});
  const Listener closed = predecessor.wanted(1);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const OwnedFd other = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  int messages = 0;
  world.taker_sys.hooks.sendmsg = [&](int fd, const msghdr* message, int flags) {
    if (++messages == 2) {  // the claim
      REQUIRE(::dup3(other.get(), predecessor.fd(1), O_CLOEXEC) >= 0);
    }
    return ::sendmsg(fd, message, flags);
  };

  CHECK(taker.claim(rendezvous, predecessor.wanted()).found == Taker::Found::claimed);
  CHECK(taker.claim(rendezvous, predecessor.wanted(2)).found == Taker::Found::claimed);
  CHECK(taker.claim(rendezvous, closed).found == Taker::Found::nothing);

  CHECK(messages >= 3);
}

namespace {

// Of listeners, that it keeps besides its one conversation.
std::ptrdiff_t copies_in(const Taker& taker) {
  std::vector<int> fds;
  taker.append_descriptors(fds);
  return std::count_if(fds.begin(), fds.end(), [](int fd) { return fd >= 0; }) - 1;
}

}  // namespace

TEST_CASE("what is bound, closed and bound again is claimed again", "[taker]") {
  World world;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  const bool gives_back = GENERATE(false, true);
  CAPTURE(gives_back);
  Taker taker(world.taker_sys, world.log, world.options,
              {.identity = "server", .generation = 2, .gives_back = gives_back});
  {
    const auto claim = taker.claim(rendezvous, predecessor.wanted());
    REQUIRE(claim.found == Found::claimed);
    CHECK(copies_in(taker) == (gives_back ? 0 : 1));
    CHECK(taker.claim(rendezvous, predecessor.wanted()).found != Found::claimed);
    CHECK(taker.unclaimed().empty());
    taker.release(claim.listener, claim.fd.get());
    CHECK_FALSE(taker.has_claims());
    CHECK(taker.unclaimed().size() == 1);
  }
  const auto again = taker.claim(rendezvous, predecessor.wanted());
  REQUIRE(again.found == Found::claimed);
  CHECK(same_socket(again.fd.get(), predecessor.fd()));
}

TEST_CASE("who binds twice what it has claimed once does not wait for itself", "[taker]") {
  World world;
  world.options.busy = WhenBusy::wait;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  const Nanoseconds began = world.time();
  CHECK(taker.claim(rendezvous, predecessor.wanted()).found != Found::claimed);
  CHECK(world.time() - began < second);
  CHECK(predecessor.holder.phase() == HolderPhase::granted);
}

TEST_CASE("more listeners than fit into one message arrive in batches", "[taker]") {
  World world;
  constexpr std::size_t count = 300;
  const Predecessor predecessor(world, std::vector<std::string>(count, "127.0.0.1:0"));
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto last = taker.claim(rendezvous, predecessor.wanted(count - 1));
  REQUIRE(last.found == Found::claimed);
  CHECK(same_socket(last.fd.get(), predecessor.fd(count - 1)));
  CHECK(world.taker_sys.open().size() == count + 4);  // base, directory, channel, and the claim
}

TEST_CASE("an inventory larger than a message is told in parts", "[taker]") {
  World world;
  std::vector<std::string> addresses;
  const std::string deep = world.directory.path() + "/" + std::string(50, 'd') + ".";
  for (int i = 0; i < 400; ++i) {
    addresses.push_back("unix:" + deep + std::to_string(i));
  }
  const Predecessor predecessor(world, addresses);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto last = taker.claim(rendezvous, predecessor.wanted(399));
  REQUIRE(last.found == Found::claimed);
  CHECK(same_socket(last.fd.get(), predecessor.fd(399)));
}

TEST_CASE("an address held under another name is not taken, and both names are said", "[taker]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0"}, 1, "php-fpm8.2");
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2, "php");
  CHECK(taker.claim(rendezvous, predecessor.wanted()).found == Found::nothing);
  CHECK(world.logged("as \"php-fpm8.2\""));
  CHECK(world.logged("CONTINUITY_NAME"));
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
}

TEST_CASE("two generations with other addresses never meet", "[taker]") {
  World world;
  const Predecessor one(world, {"127.0.0.1:0"}, 1);
  const Predecessor two(world, {"127.0.0.1:0"}, 2);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker first = world.make_taker(3);
  Taker second_one = world.make_taker(4);
  CHECK(first.claim(rendezvous, one.wanted()).found == Found::claimed);
  CHECK(second_one.claim(rendezvous, two.wanted()).found == Found::claimed);
  CHECK(first.become_owner(rendezvous).owner);
  CHECK(second_one.become_owner(rendezvous).owner);
}

TEST_CASE("one successor takes over from two predecessors at once", "[taker]") {
  World world;
  const Predecessor one(world, {"127.0.0.1:0"}, 1);
  const Predecessor two(world, {"127.0.0.1:0"}, 2);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(3);
  CHECK(taker.claim(rendezvous, one.wanted()).found == Found::claimed);
  CHECK(taker.claim(rendezvous, two.wanted()).found == Found::claimed);
  const auto outcome = taker.become_owner(rendezvous);
  CHECK(outcome.owner);
  CHECK(outcome.predecessors.size() == 2);
  CHECK_FALSE(one.accepts());
  CHECK_FALSE(two.accepts());
}

TEST_CASE("a rival is refused while an attempt is under way, and the other is named", "[taker]") {
  World world;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  world.pass(1200 * millisecond);

  Taker rival = world.make_taker(3);
  CHECK(rival.claim(rendezvous, predecessor.wanted()).found == Found::refused);

  const std::string pid = std::to_string(::getpid());
  CHECK(world.logged("cannot take over " + to_string(predecessor.wanted().address) + ": pid " +
                     pid + " is handing over to pid " + pid + " since 1.2 s"));
  CHECK(taker.become_owner(rendezvous).owner);
}

TEST_CASE("two that looked at the same moment do not both claim", "[taker]") {
  World world;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  // One has looked and not claimed yet, when the other claims.
  auto peers = rendezvous.connect_all(9, world.log);
  REQUIRE(peers.size() == 1);
  Channel& early = peers[0].channel;
  Message hello{.type = MessageType::hello};
  hello.protocol_min = hello.protocol_max = protocol_version;
  REQUIRE(early.send(hello, never));
  REQUIRE(early.receive(never)->message.state == HolderState::active);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);

  Message claim{.type = MessageType::claim};
  claim.ids = {1};
  REQUIRE(early.send(claim, never));

  CHECK(early.receive(never)->message.type == MessageType::refused);
  CHECK(taker.become_owner(rendezvous).owner);
}

TEST_CASE("with CONTINUITY_BUSY=wait who looked before another claimed waits too", "[taker]") {
  World world;
  world.options.busy = WhenBusy::wait;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  auto first = std::make_unique<Taker>(world.make_taker(2));
  Taker late = world.make_taker(3);
  // Between the inventory that `late` hears and its claim, `first` claims.
  bool claimed = false;
  world.taker_sys.hooks.sendmsg = [&](int fd, const msghdr* message, int flags) {
    const auto* bytes = static_cast<const char*>(message->msg_iov[0].iov_base);
    if (!claimed && bytes[4] == static_cast<char>(MessageType::claim)) {
      claimed = true;
      CHECK(first->claim(rendezvous, predecessor.wanted()).found == Found::claimed);
    }
    return ::sendmsg(fd, message, flags);
  };
  const Nanoseconds ends_at = world.time() + 2 * second;
  world.on_wait = [&] {
    if (world.time() >= ends_at) {
      first.reset();
    }
  };
  CHECK(late.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  CHECK(world.time() >= ends_at);
}

TEST_CASE("with CONTINUITY_BUSY=wait a rival waits until the attempt has failed", "[taker]") {
  World world;
  world.options.busy = WhenBusy::wait;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  auto taker = std::make_unique<Taker>(world.make_taker(2));
  REQUIRE(taker->claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  const Nanoseconds dies_at = world.time() + 3 * second;
  world.on_wait = [&] {
    if (world.time() >= dies_at) {
      taker.reset();
    }
  };

  Taker rival = world.make_taker(3);
  CHECK(rival.claim(rendezvous, predecessor.wanted()).found == Found::claimed);

  CHECK(taker == nullptr);
  CHECK(world.time() >= dies_at);
  CHECK(world.logged("waiting: "));
  CHECK(rival.become_owner(rendezvous).owner);
}

TEST_CASE(
    "with CONTINUITY_BUSY=wait a rival is let go when the attempt has succeeded, not when the "
    "old one has drained",
    "[taker]") {
  World world;
  world.options.busy = WhenBusy::wait;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;  // for ever
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto claim = taker.claim(rendezvous, predecessor.wanted());
  REQUIRE(claim.found == Found::claimed);
  // When the rival waits, the first becomes the owner.
  bool began = false;
  Taker::Outcome outcome;
  std::unique_ptr<Predecessor> successor;
  world.on_wait = [&] {
    if (!began && world.logged("waiting: ")) {
      began = true;
      outcome = taker.become_owner(rendezvous);
      std::vector<OwnedFd> taken;
      taken.push_back(own(::fcntl(claim.fd.get(), F_DUPFD_CLOEXEC, 0)));
      successor = std::make_unique<Predecessor>(world, std::move(taken), 2);
      for (Channel& channel : outcome.predecessors) {
        successor->holder.watch_predecessor(std::move(channel), outcome.probation_ends);
      }
    }
  };

  Taker rival = world.make_taker(3);
  const auto late = rival.claim(rendezvous, predecessor.wanted());

  CHECK(outcome.owner);
  CHECK(late.found == Found::claimed);
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
  CHECK(world.time() < 1000 * second + 30 * second);
}

TEST_CASE("a second restart waits for the probation of the first", "[taker]") {
  World world;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto claim = taker.claim(rendezvous, predecessor.wanted());
  auto outcome = taker.become_owner(rendezvous);
  REQUIRE(outcome.owner);
  std::vector<OwnedFd> taken;
  taken.push_back(own(::fcntl(claim.fd.get(), F_DUPFD_CLOEXEC, 0)));
  Predecessor successor(world, std::move(taken), 2);
  successor.holder.watch_predecessor(std::move(outcome.predecessors[0]), outcome.probation_ends);

  Taker third = world.make_taker(3);
  const auto late = third.claim(rendezvous, successor.wanted());

  REQUIRE(late.found == Found::claimed);
  CHECK(same_socket(late.fd.get(), successor.fd()));
  CHECK(world.time() >= outcome.probation_ends - 10 * millisecond);
  CHECK(world.time() < outcome.probation_ends + second);
  CHECK(world.logged("is on probation for"));
  CHECK(predecessor.owner.count("revive") == 0);
}

TEST_CASE("who listed the rendezvous before a successor was announced finds it all the same",
          "[taker]") {
  World world;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker first = world.make_taker(2);
  const auto claim = first.claim(rendezvous, predecessor.wanted());
  REQUIRE(claim.found == Found::claimed);
  std::unique_ptr<Predecessor> successor;
  Taker::Outcome outcome;
  // Between the list, on which the first is not, and the predecessor's answer.
  world.taker_sys.hooks.sendmsg = [&](int fd, const msghdr* message, int flags) {
    const auto* bytes = static_cast<const char*>(message->msg_iov[0].iov_base);
    if (successor == nullptr && bytes[4] == static_cast<char>(MessageType::hello)) {
      outcome = first.become_owner(rendezvous);
      std::vector<OwnedFd> taken;
      taken.push_back(own(::fcntl(claim.fd.get(), F_DUPFD_CLOEXEC, 0)));
      successor = std::make_unique<Predecessor>(world, std::move(taken), 2);
      successor->holder.watch_predecessor(std::move(outcome.predecessors.at(0)),
                                          outcome.probation_ends);
    }
    return ::sendmsg(fd, message, flags);
  };

  Taker rival = world.make_taker(3);
  const auto late = rival.claim(rendezvous, predecessor.wanted());

  REQUIRE(outcome.owner);
  REQUIRE(late.found == Found::claimed);
  CHECK(same_socket(late.fd.get(), successor->fd()));
  CHECK(world.time() >= outcome.probation_ends - 10 * millisecond);
}

TEST_CASE("who greets a successor as it dies finds the predecessor that has come back", "[taker]") {
  World world;
  world.options.probation = 60 * second;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker first = world.make_taker(2);
  auto claim = first.claim(rendezvous, predecessor.wanted());
  auto outcome = first.become_owner(rendezvous);
  REQUIRE(outcome.owner);
  std::vector<OwnedFd> taken;
  taken.push_back(std::move(claim.fd));
  auto successor = std::make_unique<Predecessor>(world, std::move(taken), 2);
  successor->holder.watch_predecessor(std::move(outcome.predecessors.at(0)),
                                      outcome.probation_ends);
  // The last time that both are greeted, it dies when the other one has answered.
  constexpr int both_twice = 4;
  int greeted = 0;
  Nanoseconds dies_at = never;
  world.taker_sys.hooks.sendmsg = [&](int fd, const msghdr* message, int flags) {
    const auto* bytes = static_cast<const char*>(message->msg_iov[0].iov_base);
    if (bytes[4] == static_cast<char>(MessageType::hello) && ++greeted == both_twice) {
      dies_at = world.time() + 500 * millisecond;
    }
    return ::sendmsg(fd, message, flags);
  };
  world.on_wait = [&] {
    if (successor != nullptr && greeted >= both_twice - 1) {
      successor->stopped = true;
    }
    if (world.time() >= dies_at) {
      successor.reset();
    }
  };

  Taker rival = world.make_taker(3);
  const auto late = rival.claim(rendezvous, predecessor.wanted());

  REQUIRE(successor == nullptr);
  REQUIRE(late.found == Found::claimed);
  CHECK(same_socket(late.fd.get(), predecessor.fd()));
  CHECK(predecessor.owner.count("revive") == 1);
}

TEST_CASE("an owner takes over from its predecessor what it binds later", "[taker]") {
  const bool after_probation = GENERATE(false, true);
  World world;
  Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted(0)).found == Found::claimed);
  auto outcome = taker.become_owner(rendezvous);
  REQUIRE(outcome.owner);
  CHECK(predecessor.accepts(1));
  if (after_probation) {
    world.pass(world.options.probation + second);
    REQUIRE(predecessor.holder.phase() == HolderPhase::draining);
  }

  Taker later = world.make_taker(2);
  const auto claim = later.claim(rendezvous, predecessor.wanted(1));

  REQUIRE(claim.found == Found::claimed);
  CHECK(same_socket(claim.fd.get(), predecessor.fd(1)));
  CHECK(predecessor.accepts(1));
  const auto more = later.become_owner(rendezvous);
  CHECK(more.owner);
  CHECK_FALSE(predecessor.accepts(1));
  CHECK(predecessor.owner.count("prepare") == 1);
  CHECK(more.probation_ends <= std::max(outcome.probation_ends, world.time()));
  CHECK(world.logged("took over " + to_string(claim.listener.address)));
  if (after_probation) {
    CHECK(predecessor.holder.phase() == HolderPhase::leaving);
    return;
  }
  // Both channels are closed by its death.
  outcome.predecessors.clear();
  world.settle();
  CHECK_FALSE(predecessor.accepts(0));
}

TEST_CASE("an owner that dies with two channels open gives everything back", "[taker]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  {
    Taker taker = world.make_taker(2);
    const auto one = taker.claim(rendezvous, predecessor.wanted(0));
    const auto outcome = taker.become_owner(rendezvous);
    Taker later = world.make_taker(2);
    const auto two = later.claim(rendezvous, predecessor.wanted(1));
    const auto more = later.become_owner(rendezvous);
    CHECK(more.owner);
    CHECK_FALSE(predecessor.accepts(1));
  }
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.accepts(0));
  CHECK(predecessor.accepts(1));
}

TEST_CASE("what has been taken over is not offered to its owner again", "[taker]") {
  World world;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto claim = taker.claim(rendezvous, predecessor.wanted());
  const auto outcome = taker.become_owner(rendezvous);
  Taker later = world.make_taker(2);
  CHECK(later.claim(rendezvous, claim.listener).found == Found::nothing);
}

TEST_CASE("processes of one generation take over what each has bound", "[taker]") {
  World world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker one = world.make_taker(2);
  Taker two = world.make_taker(2);
  REQUIRE(one.claim(rendezvous, predecessor.wanted(0)).found == Found::claimed);
  const Nanoseconds began = world.time();
  REQUIRE(two.claim(rendezvous, predecessor.wanted(1)).found == Found::claimed);
  CHECK(world.time() - began < second);
  const auto first = one.become_owner(rendezvous);
  CHECK(first.owner);
  CHECK_FALSE(predecessor.accepts(0));
  CHECK(predecessor.accepts(1));
  const auto later = two.become_owner(rendezvous);
  CHECK(later.owner);
  CHECK_FALSE(predecessor.accepts(1));
  CHECK(predecessor.owner.calls ==
        std::vector<std::string>{"prepare", "retire 1", "sweep", "retire 2", "sweep"});
}

TEST_CASE("a predecessor that is dead when READY comes makes an owner", "[taker]") {
  World world;
  auto predecessor = std::make_unique<Predecessor>(world);
  const Listener wanted = predecessor->wanted();
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const auto claim = taker.claim(rendezvous, wanted);
  predecessor.reset();

  const auto outcome = taker.become_owner(rendezvous);

  CHECK(outcome.owner);
  CHECK(outcome.predecessors.empty());
  CHECK(world.logged("which has ended"));
  CHECK(connect_to(wanted.address).is_open());
  CHECK(becomes_readable(claim.fd.get()));
}

TEST_CASE("a second address is claimed from what was granted, though the predecessor died since",
          "[taker]") {
  World world;
  auto predecessor =
      std::make_unique<Predecessor>(world, std::vector<std::string>{"127.0.0.1:0", "127.0.0.1:0"});
  const Listener one = predecessor->wanted(0);
  const Listener two = predecessor->wanted(1);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, one).found == Found::claimed);
  predecessor.reset();

  const auto claim = taker.claim(rendezvous, two);

  CHECK(claim.found == Found::claimed);
  CHECK(taker.become_owner(rendezvous).owner);
}

TEST_CASE("a predecessor that is stopped makes no owner", "[taker]") {
  World world;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  auto taker = std::make_unique<Taker>(world.make_taker(2));
  REQUIRE(taker->claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  predecessor.stopped = true;

  const auto outcome = taker->become_owner(rendezvous);

  CHECK_FALSE(outcome.owner);
  CHECK_THAT(outcome.reason, Catch::Contains("does not answer (stopped?)"));
  // It wakes up, finds READY, and then that nobody is there.
  taker.reset();
  predecessor.stopped = false;
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  CHECK(predecessor.accepts());
}

TEST_CASE("READY that could not be sent for want of memory is sent again", "[taker]") {
  const auto code = GENERATE(ENOMEM, ENOBUFS);
  World world;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  world.taker_sys.fail_next(Call::sendmsg, code);
  const Nanoseconds began = world.time();

  CHECK(taker.become_owner(rendezvous).owner);

  CHECK(world.time() - began < 100 * millisecond);
  CHECK_FALSE(predecessor.accepts());
}

TEST_CASE("a stranger that is stopped costs a tenth of a second and a line", "[taker]") {
  World world;
  Predecessor frozen(world, {"127.0.0.1:0"}, 1, "stranger");
  frozen.stopped = true;
  const Predecessor predecessor(world, {"127.0.0.1:0"}, 2);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(3);
  const Nanoseconds began = world.time();
  CHECK(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  CHECK(world.time() - began <= 150 * millisecond);
  CHECK(world.logged("does not answer (stopped?)"));
}

TEST_CASE("one of our own name is waited for longer, but not for ever", "[taker]") {
  const auto sleeps = GENERATE(1 * second, 3600 * second);
  World world;
  Predecessor predecessor(world);
  predecessor.stopped = true;
  const Nanoseconds began = world.time();
  world.on_wait = [&] { predecessor.stopped = world.time() < began + sleeps; };
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(3);
  const auto claim = taker.claim(rendezvous, predecessor.wanted());
  CHECK(claim.found == (sleeps == second ? Found::claimed : Found::nothing));
  CHECK(world.time() - began <= 2100 * millisecond);
}

TEST_CASE("an attempt that the predecessor ended makes no owner", "[taker]") {
  World world;
  world.options.ready_timeout = 2 * second;
  Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  world.pass(3 * second);
  CHECK(predecessor.holder.phase() == HolderPhase::active);

  const auto outcome = taker.become_owner(rendezvous);

  CHECK_FALSE(outcome.owner);
  CHECK_THAT(outcome.reason, Catch::Contains("it was not ready in time"));
  CHECK(predecessor.accepts());
}

TEST_CASE("what answers at the rendezvous like nothing of ours is named and ignored", "[taker]") {
  struct Row {
    std::string raw;
    std::vector<Message> answers;
    const char* line;
  };
  Message other_version{.type = MessageType::abort, .code = EPROTONOSUPPORT};
  other_version.protocol_min = other_version.protocol_max = 9;
  Message newer = inventory_of({});
  newer.protocol_max = 9;
  Message flood = inventory_of({});
  flood.more = true;
  const std::vector<Row> rows{{"garbage", {}, "answered something else"},
                              {std::string(1000, '\xff'), {}, "answered something else"},
                              {"", {{.type = MessageType::healthy}}, "answered something else"},
                              {"", {other_version}, "speaks protocol 9 to 9"},
                              {"", {newer}, "answered something else"},
                              {"", {flood}, "answered something else"},
                              {"", {}, "does not answer"}};
  for (const Row& row : rows) {
    World world;
    const OwnedFd listener = listen_at("127.0.0.1:0");
    Impostor impostor(world, row.answers);
    impostor.raw = row.raw;
    Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
    {
      Taker taker = world.make_taker(2);
      const Nanoseconds began = world.time();
      CHECK(taker.claim(rendezvous, described(listener.get())).found == Found::nothing);
      CHECK(world.time() - began <= 2100 * millisecond);
    }
    CAPTURE(row.line, world.lines);
    CHECK(world.logged(row.line));
    CHECK(world.taker_sys.open().size() == 2);  // base and directory
  }
}

TEST_CASE("a grant that is not what was announced is refused and closed", "[taker]") {
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const OwnedFd another = listen_at("127.0.0.1:0");
  const OwnedFd client = connect_to(name_of(listener.get()));
  const OwnedFd file = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  struct Row {
    Message answer;
    std::vector<int> fds;
  };
  Message refused{.type = MessageType::refused};
  refused.text = "not now";
  const std::vector<Row> rows{
      {grant_of({1}), {another.get()}},                      // another address
      {grant_of({1}), {client.get()}},                       // does not listen
      {grant_of({1}), {file.get()}},                         // no socket
      {grant_of({1}), {}},                                   // fewer than it says
      {grant_of({1}), {listener.get(), listener.get()}},     // more than it says
      {grant_of({}), {}},                                    // none at all
      {grant_of({7}), {listener.get()}},                     // what was never offered
      {grant_of({1, 1}), {listener.get(), listener.get()}},  // twice the same
      {{.type = MessageType::healthy}, {}},
      {refused, {}}};
  for (const Row& row : rows) {
    Impostor impostor(world, {inventory_of({described(listener.get())}), row.answer});
    impostor.fds = row.fds;
    Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
    {
      Taker taker = world.make_taker(2);
      CHECK(taker.claim(rendezvous, described(listener.get())).found == Found::refused);
      CHECK_FALSE(taker.has_claims());
    }
    CHECK(world.taker_sys.open().size() == 2);
  }
}

TEST_CASE("a granted listener that other peers reach than was announced is refused", "[taker]") {
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  const auto change = GENERATE(0, 1, 2);
  Listener announced = described(listener.get());
  switch (change) {
    case 0:
      ++announced.net_namespace;
      break;
    case 1:
      announced.bound_device = "lo";
      break;
    default:
      announced.v6only = true;
      break;
  }
  Impostor impostor(world, {inventory_of({announced}), grant_of({1})});
  impostor.fds = {listener.get()};
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);

  CHECK(taker.claim(rendezvous, announced).found == Found::refused);
  CHECK(world.logged("is not what it was announced to be"));
}

// ---- What root believes of another user ----------------------------------------------

namespace {

// Root looks into a world in which what has been published belongs to somebody else,
// whom the kernel names as the one who listens there.
class LesserWorld : public World {
 public:
  void give_away() {
    const std::string theirs = directory.path() + "/" + std::to_string(somebody_else);
    REQUIRE(::rename((directory.path() + "/0").c_str(), theirs.c_str()) == 0);
    REQUIRE(::chown(theirs.c_str(), somebody_else, 0) == 0);
    taker_sys.hooks.getsockopt = [](int fd, int level, int name, void* value, socklen_t* length) {
      const int result = ::getsockopt(fd, level, name, value, length);
      if (result == 0 && level == SOL_SOCKET && name == SO_PEERCRED) {
        static_cast<ucred*>(value)->uid = somebody_else;
      }
      return result;
    };
  }
  static constexpr uid_t somebody_else = 65'534;
};

}  // namespace

TEST_CASE("root takes over what it has made from a server that is another user by now",
          "[taker][lesser]") {
  if (needs_root()) {
    return;
  }
  LesserWorld world;
  const Predecessor predecessor(world);
  world.give_away();
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  CHECK(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  CHECK(taker.become_owner(rendezvous).owner);
}

TEST_CASE("root does not take a listener that another user has made", "[taker][lesser]") {
  if (needs_root()) {
    return;
  }
  LesserWorld world;
  const Predecessor predecessor(world, {"127.0.0.1:0", "127.0.0.1:0"});
  REQUIRE(::fchown(predecessor.fd(1), LesserWorld::somebody_else, 0) == 0);
  world.give_away();
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);

  const auto claim = taker.claim(rendezvous, predecessor.wanted(1));
  CHECK(claim.found == Found::refused);
  CHECK_FALSE(claim.fd.is_open());
  CHECK(world.logged("which user 65534 has made, and we are user 0; not taken"));
  CHECK_FALSE(taker.has_claims());
  // Nor beside one that root has made.
  CHECK(taker.claim(rendezvous, predecessor.wanted(0)).found == Found::claimed);
  CHECK(taker.claim(rendezvous, predecessor.wanted(1)).found != Found::claimed);
}

TEST_CASE("what another user only says that it holds keeps root from nothing", "[taker][lesser]") {
  if (needs_root()) {
    return;
  }
  LesserWorld world;
  Listener wanted = described(listen_at("127.0.0.1:0").get());  // nobody's by now
  Message inventory = inventory_of({wanted});
  inventory.state = HolderState::on_probation;  // for ever
  Message outlived{.type = MessageType::abort, .code = ESTALE};
  const bool says_outlived = GENERATE(false, true);
  const Impostor impostor(world, {says_outlived ? outlived : inventory});
  world.give_away();
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);

  CHECK(taker.claim(rendezvous, wanted).found == Found::nothing);
  CHECK(world.logged("ignored"));
}

TEST_CASE("another user who refuses keeps root from nobody who does not", "[taker][lesser]") {
  if (needs_root()) {
    return;
  }
  LesserWorld world;
  Message refused{.type = MessageType::refused};
  const OwnedFd listener = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  // Whoever is found first, by an order of the file system's.
  const auto generation = GENERATE(range<std::uint64_t>(1, 9));
  const Impostor impostor(world, {inventory_of({described(listener.get())}), refused}, generation);
  std::vector<OwnedFd> listeners;
  listeners.push_back(copy_of(listener.get()));
  const Predecessor predecessor(world, std::move(listeners), 70);
  world.give_away();
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  CHECK(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
}

TEST_CASE("a process joins nobody of another user, nor whoever sends no ties", "[joining]") {
  LesserWorld world;
  const bool is_lesser = GENERATE(false, true);
  if (is_lesser && ::geteuid() != 0) {
    WARN("one half needs root");
    return;
  }
  Message welcome{.type = MessageType::welcome};
  welcome.pid = ::getppid();
  const OwnedFd page = own(::memfd_create("page", MFD_CLOEXEC));
  const OwnedFd bell = own(::eventfd(0, EFD_CLOEXEC));
  const OwnedFd door = listen_at("unix:" + world.directory.path() + "/door", 0, SOCK_SEQPACKET);
  const std::array ties{page.get(), bell.get(), door.get(), door.get(), door.get()};
  const auto wrong = GENERATE(range<std::size_t>(0, 6));  // 5: none is
  Impostor impostor(world, {welcome});
  impostor.fds.assign(ties.begin(), ties.end());
  if (wrong < ties.size()) {
    impostor.fds[wrong] = wrong == 1 ? page.get() : bell.get();
  }
  if (is_lesser) {
    world.give_away();
  }
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  const Processes processes(libc_sys(), world.proc.get());

  const auto joined = join(world.taker_sys, world.log, rendezvous, processes, {}, false);

  CAPTURE(is_lesser, wrong);
  CHECK((joined.how == Joined::How::welcome) == (!is_lesser && wrong == ties.size()));
}

TEST_CASE("a predecessor that goes silent in the middle of a grant is given up in time",
          "[taker]") {
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  Impostor impostor(world, {inventory_of({described(listener.get())})});
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  const Nanoseconds began = world.time();
  CHECK(taker.claim(rendezvous, described(listener.get())).found == Found::refused);
  CHECK(world.time() - began < 10 * second);
}

TEST_CASE("a closed channel makes an owner only if nobody answers at the door either", "[taker]") {
  const bool door_closed = GENERATE(true, false);
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  Impostor impostor(
      world,
      {inventory_of({described(listener.get())}), grant_of({1}), {.type = MessageType::healthy}});
  impostor.fds = {listener.get()};
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, described(listener.get())).found == Found::claimed);
  world.settle();  // GOT is answered with something it does not read
  impostor.hangs_up = true;
  impostor.door_closed = door_closed;
  CHECK_FALSE(taker.become_owner(rendezvous).owner);  // HEALTHY is no answer to READY
}

TEST_CASE("a predecessor that died without a word makes an owner, one that hung up does not",
          "[taker]") {
  const bool dead = GENERATE(true, false);
  CAPTURE(dead);
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  Impostor impostor(world, {inventory_of({described(listener.get())}), grant_of({1})});
  impostor.fds = {listener.get()};
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, described(listener.get())).found == Found::claimed);
  impostor.hangs_up = true;  // at GOT or READY
  impostor.door_closed = dead;
  const auto outcome = taker.become_owner(rendezvous);
  CHECK(outcome.owner == dead);
  if (!dead) {
    CHECK_THAT(outcome.reason, Catch::Contains("though it lives"));
  }
}

TEST_CASE("a door that is missing is no proof of death, the process is asked", "[taker]") {
  enum class Process { dead, dying, alive };
  const auto process = GENERATE(Process::dead, Process::dying, Process::alive);
  CAPTURE(static_cast<int>(process));
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  Impostor impostor(world, {inventory_of({described(listener.get())}), grant_of({1})});
  impostor.fds = {listener.get()};
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, described(listener.get())).found == Found::claimed);
  rendezvous.withdraw("server", 66);
  impostor.hangs_up = true;
  world.taker_sys.hooks.pidfd_open = [process](pid_t, unsigned) {
    errno = ESRCH;
    // Readable when the process has ended.
    return process == Process::dead ? -1
                                    : ::eventfd(process == Process::dying ? 1 : 0, EFD_CLOEXEC);
  };
  CHECK(taker.become_owner(rendezvous).owner == (process != Process::alive));
}

TEST_CASE("a process that cannot be asked whether it lives is not taken for dead", "[taker]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EPERM, ENOSYS);
  World world;
  const OwnedFd listener = listen_at("127.0.0.1:0");
  Impostor impostor(world, {inventory_of({described(listener.get())}), grant_of({1})});
  impostor.fds = {listener.get()};
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  REQUIRE(taker.claim(rendezvous, described(listener.get())).found == Found::claimed);
  rendezvous.withdraw("server", 66);
  impostor.hangs_up = true;
  world.taker_sys.fail_next(Call::pidfd_open, code);
  CHECK_FALSE(taker.become_owner(rendezvous).owner);
}

TEST_CASE("a UNIX listener is known to be held by its file", "[taker]") {
  World world;
  const std::string path = world.directory.path() + "/s";
  const Predecessor predecessor(world, {"unix:" + path});
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  CHECK(taker.is_held(rendezvous, *find_socket_file(libc_sys(), path)));
  const OwnedFd other = listen_at("unix:" + path + "2");
  CHECK_FALSE(taker.is_held(rendezvous, *find_socket_file(libc_sys(), path + "2")));
  Taker stranger = world.make_taker(3, "stranger");
  CHECK_FALSE(stranger.is_held(rendezvous, *find_socket_file(libc_sys(), path)));
  // Asking is not claiming.
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  // Also for what has been claimed already.
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  CHECK(taker.is_held(rendezvous, *find_socket_file(libc_sys(), path)));
}

TEST_CASE("looking around tells whether there is somebody to follow", "[taker]") {
  World world;
  world.options.probation = 60 * second;
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  CHECK_FALSE(taker.look_around(rendezvous).predecessor);
  const Predecessor stranger(world, {"127.0.0.1:0"}, 5, "stranger");
  CHECK_FALSE(taker.look_around(rendezvous).predecessor);
  const Predecessor predecessor(world);
  CHECK(taker.look_around(rendezvous).predecessor);
  CHECK(taker.look_around(rendezvous).settled);
  world.settle();
  CHECK(predecessor.holder.phase() == HolderPhase::active);
  // Between claim and the end of the probation nothing is settled.
  REQUIRE(taker.claim(rendezvous, predecessor.wanted()).found == Found::claimed);
  Taker rival = world.make_taker(3);
  CHECK_FALSE(rival.look_around(rendezvous).settled);
  const auto outcome = taker.become_owner(rendezvous);
  REQUIRE(outcome.owner);
  CHECK_FALSE(rival.look_around(rendezvous).predecessor);
  CHECK_FALSE(rival.look_around(rendezvous).settled);
}

TEST_CASE("an IPv4 listener is claimed by a mapped address, its own family first", "[taker]") {
  if (!has_ipv6()) {
    WARN("skipped: no IPv6 on this machine");
    return;
  }
  World world;
  const Predecessor predecessor(world);
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);
  Taker taker = world.make_taker(2);
  Listener wanted = predecessor.wanted();
  wanted.address = address("[::ffff:127.0.0.1]:" + std::to_string(wanted.address.port()));
  CHECK(taker.claim(rendezvous, wanted).found == Found::claimed);
}

}  // namespace continuity::test
