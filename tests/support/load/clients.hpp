// The clients that keep a server busy: each opens a fresh connection for every
// request, one after the other, and judges the outcome.
#pragma once

#include "connection.hpp"
#include "owners.hpp"
#include "statistics.hpp"
#include "target.hpp"

#include <chrono>
#include <stop_token>
#include <string_view>
#include <thread>
#include <vector>

namespace continuity::load {

struct Settings {
  unsigned clients = 8;
  std::chrono::milliseconds timeout{10'000};  // of a whole request
  std::chrono::milliseconds pause{2};         // between two requests of a client
  bool owners = false;                        // find the process that serves, for each
  // With owners: say nothing before somebody has accepted. Of a connection on which nothing
  // was said the kernel tells at its end what it was: one that somebody had accepted is
  // closed, one that waited in the queue of a listener that is gone is reset.
  bool silent = false;
};

// A request without its last bytes: a server that has read this holds an
// unfinished request; with TCP_DEFER_ACCEPT it would not even accept without.
std::string_view all_but_the_end(std::string_view request);
std::string_view end_of(std::string_view request);

class Clients {
 public:
  // All of these must outlive the clients.
  Clients(const Target& target, const Settings& settings, Watched& watched, Statistics& statistics);
  // Lets the requests in flight end. Each client has made one at least.
  void stop();

 private:
  void run(const std::stop_token& stop, unsigned number);

  const Target& target_;
  Settings settings_;
  Watched& watched_;
  Statistics& statistics_;
  std::vector<std::jthread> threads_;
};

}  // namespace continuity::load
