#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <cstdlib>
#include <stdexcept>

namespace continuity::test {
namespace {

constexpr long requests_each = 20;

// What is under way on the predecessor when its successor comes.
struct InFlight {
  InFlight(Load& clients, bool one_at_a_time) : load(clients), single(one_at_a_time) {
    load.open("first");
    if (!single) {
      load.open("second");
      load.keep("kept");
    }
  }
  void finish(const Process& predecessor) {
    CHECK(predecessor.is_running());
    CHECK(load.finish("first") == "ok");
    if (!single) {
      CHECK(load.finish("second") == "ok");
      CHECK(predecessor.is_running());  // the kept connection holds it
      CHECK(load.again("kept") == "ok");
      load.drop("kept");
    }
  }

  Load& load;
  bool single;
};

// Why a restart was refused is in what the running server says.
Process spawn_after(Process& server, const Place& place, const Arguments& arguments) {
  try {
    return place.spawn_listening(arguments);
  } catch (const std::exception& failure) {
    std::string text =
        std::string(failure.what()) + "\nand pid " + std::to_string(server.pid()) + ":";
    for (const std::string& line : server.log()) {
      text += "\n  " + line;
    }
    throw std::runtime_error(text);
  }
}

}  // namespace

int restarts_to_make(int usually) {
  const char* const wanted = std::getenv("CONTINUITY_TEST_RESTARTS");
  return wanted != nullptr ? std::stoi(wanted) : usually;
}

void restart_under_load(const Place& place, const Arguments& arguments, Load& load, Process& server,
                        Leaving leaving) {
  InFlight in_flight(load, !arguments.empty() && arguments.back() == "loop");
  Process successor = spawn_after(server, place, arguments);
  load.watch(successor.pid());
  successor.await_log("took over " + place.printed_address() + " from pid " +
                      (place.main_leads ? std::to_string(server.pid()) : ""));
  load.only(successor.pid());
  in_flight.finish(server);
  CHECK(load.await_ok(requests_each));
  CHECK(leaving(server));
  server = std::move(successor);
}

void check_nothing_was_lost(Load& load, int times) {
  INFO(load.stats());
  CHECK(load.count("ok") > times * requests_each);
  CHECK(load.count("failed") == 0);
  CHECK(load.count("stale") == 0);
}

void restarts_without_loss(const Arguments& arguments, const Place& place, Leaving leaving) {
  const int restarts = restarts_to_make(5);
  Process server = place.start(arguments);
  Load load(place.address(), server);
  for (int i = 0; i < restarts; ++i) {
    restart_under_load(place, arguments, load, server, leaving);
  }
  check_nothing_was_lost(load, restarts);
}

void nothing_went_astray(DatagramLoad& load, std::uint64_t least) {
  const auto totals = load.finish();
  CAPTURE(totals.asked);
  CHECK(totals.answered >= least);
  CHECK(totals.lost == 0);
  CHECK(totals.twice == 0);
  CHECK(totals.strange == 0);
  CHECK(totals.stale == 0);
}

void check_it_loses(const Arguments& arguments, const Place& place) {
  CAPTURE(arguments);
  Process server = place.start(arguments);
  Load load(place.address());
  Process second = place.spawn(arguments);
  CHECK(second.next_line() == "bind EADDRINUSE");
  CHECK(second.wait_exit() == 1);

  server.signal(SIGTERM);
  server.wait_exit();
  CHECK(wait_until([&] { return load.count("failed") > 0; }));
  server = place.start(arguments);
  CHECK(load.await_ok(100));
}

}  // namespace continuity::test
