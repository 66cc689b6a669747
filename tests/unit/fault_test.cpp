// Every call that a restart makes, failing once: nothing leaks, and somebody
// accepts, and never two.
#include "conversation.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

namespace continuity::test {
namespace {

using Found = Taker::Found;

// A restart in a world of its own, with the n-th call of one side failing.
struct Restart {
  World world;
  Predecessor predecessor;
  std::optional<Rendezvous> rendezvous;
  std::optional<Taker> taker;
  std::optional<Taker::Claim> claim;
  std::optional<Taker::Outcome> outcome;

  explicit Restart(const std::vector<std::string>& addresses) : predecessor(world, addresses) {}

  bool claim_all(std::size_t count) {
    std::string problem;
    rendezvous = Rendezvous::open(world.taker_sys, world.directory.path(), ::geteuid(), problem);
    if (!rendezvous) {
      return false;
    }
    taker.emplace(world.make_taker(2));
    for (std::size_t i = 0; i < count; ++i) {
      auto one = taker->claim(*rendezvous, predecessor.wanted(i));
      if (one.found != Found::claimed) {
        return false;
      }
      claim = std::move(one);
    }
    return true;
  }
  void become_owner() { outcome = taker->become_owner(*rendezvous); }
  // The successor's process has ended.
  void successor_ends() {
    outcome.reset();
    claim.reset();
    taker.reset();
    rendezvous.reset();
    world.settle();
    world.pass(3 * second);
  }
};

}  // namespace

TEST_CASE("whatever call of a successor's claim fails, the predecessor serves on", "[fault]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EINTR);
  int n = 1;
  for (bool failed = true; failed; ++n) {
    CAPTURE(code, n);
    Restart restart({"127.0.0.1:0", "127.0.0.1:0"});
    restart.world.taker_sys.fail_nth(n, code);
    restart.claim_all(2);
    failed = restart.world.taker_sys.has_failed();
    CAPTURE(restart.world.taker_sys.failed_call());
    restart.world.taker_sys.stop_failing();
    CHECK(restart.predecessor.accepts());

    restart.successor_ends();

    CHECK(restart.world.taker_sys.open().empty());
    CHECK(restart.predecessor.accepts(0));
    CHECK(restart.predecessor.accepts(1));
    CHECK(restart.predecessor.holder.phase() == HolderPhase::active);
  }
  CHECK(n > 25);
}

TEST_CASE("whatever call of a successor fails at READY, one of the two accepts", "[fault]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EINTR);
  int n = 1;
  int owners = 0;
  for (bool failed = true; failed; ++n) {
    CAPTURE(code, n);
    Restart restart({"127.0.0.1:0"});
    REQUIRE(restart.claim_all(1));
    restart.world.taker_sys.fail_nth(n, code);
    restart.become_owner();
    failed = restart.world.taker_sys.has_failed();
    CAPTURE(restart.world.taker_sys.failed_call());
    restart.world.taker_sys.stop_failing();
    if (restart.outcome->owner) {
      ++owners;
      CHECK_FALSE(restart.predecessor.accepts());
    }

    restart.successor_ends();

    CHECK(restart.predecessor.accepts());
    CHECK(restart.world.taker_sys.open().empty());
  }
  CHECK(n > 4);
  CHECK(owners > 0);
}

TEST_CASE("whatever call of a predecessor fails, one of the two accepts and nothing leaks",
          "[fault]") {
  const auto code = GENERATE(EMFILE, ENOMEM, EINTR);
  int n = 1;
  int owners = 0;
  int refused = 0;
  for (bool failed = true; failed; ++n) {
    CAPTURE(code, n);
    Restart restart({"127.0.0.1:0", "127.0.0.1:0"});
    const OwnedFd epoll = make_epoll();
    watch(epoll.get(), restart.predecessor.fd(), EPOLLIN, 7);
    const auto registrations = registrations_of(epoll.get());
    const std::size_t before = restart.world.holder_sys.open().size();
    restart.world.holder_sys.fail_nth(n, code);
    if (restart.claim_all(2)) {
      restart.become_owner();
    }
    failed = restart.world.holder_sys.has_failed();
    restart.world.holder_sys.stop_failing();
    CAPTURE(restart.world.holder_sys.failed_call());
    if (restart.outcome && restart.outcome->owner) {
      ++owners;
      CHECK_FALSE(restart.predecessor.accepts(0));
      CHECK_FALSE(restart.predecessor.accepts(1));
    } else {
      ++refused;
    }

    restart.successor_ends();

    CHECK(restart.predecessor.holder.phase() == HolderPhase::active);
    CHECK(restart.predecessor.accepts(0));
    CHECK(restart.predecessor.accepts(1));
    CHECK(registrations_of(epoll.get()) == registrations);
    // A stand-in is kept for the next time, nothing else.
    const std::size_t now_open = restart.world.holder_sys.open().size();
    CAPTURE(before);
    CHECK(now_open <= before + 1);
    restart.world.predecessors.clear();
  }
  CHECK(n > 60);
  CHECK(owners > 0);
  CHECK(refused > 0);
}

TEST_CASE("after any one failure the next restart succeeds", "[fault]") {
  const auto code = GENERATE(EMFILE, ENOMEM);
  int n = 1;
  for (bool failed = true; failed; ++n) {
    CAPTURE(code, n);
    Restart restart({"127.0.0.1:0"});
    restart.world.holder_sys.fail_nth(n, code);
    if (restart.claim_all(1)) {
      restart.become_owner();
    }
    failed = restart.world.holder_sys.has_failed();
    restart.world.holder_sys.stop_failing();
    restart.successor_ends();

    REQUIRE(restart.claim_all(1));
    restart.become_owner();
    CHECK(restart.outcome->owner);
    CHECK_FALSE(restart.predecessor.accepts());
  }
}

}  // namespace continuity::test
