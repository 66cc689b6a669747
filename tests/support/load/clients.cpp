#include "clients.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>

namespace continuity::load {
namespace {

// The threads that make requests have each one of these.
class Client {
 public:
  Client(const Target& target, const Settings& settings, Watched& watched, unsigned number)
      : target_(target), settings_(settings), watched_(watched), sources_(number) {
    if (settings.owners) {
      finder_.emplace(watched);
    }
  }

  Report request() {
    const auto begin = Clock::now();
    Report report;
    report.is_owner_wanted = settings_.owners;
    report.verdict = exchange(begin + settings_.timeout, report);
    report.ended = Clock::now();
    report.took = std::chrono::duration_cast<std::chrono::microseconds>(report.ended - begin);
    return report;
  }

 private:
  Verdict exchange(Deadline deadline, Report& report) {
    const auto retired = watched_.retired();
    Connection connection;
    if (auto connected = connection.connect(target_.endpoint, sources_, deadline);
        !connected.is_ok()) {
      return connected;
    }
    Answer answer(target_.exchange);
    std::string_view rest = target_.exchange.request;
    if (finder_) {
      if (!settings_.silent) {
        if (auto sent = connection.send(all_but_the_end(rest), deadline); !sent.is_ok()) {
          return sent;
        }
        rest = end_of(rest);
      }
      report.owner = finder_->find(connection, deadline);
      report.is_stale = std::find(retired.begin(), retired.end(), report.owner) != retired.end();
      if (settings_.silent && report.owner == 0 && connection.peer_closes_within({})) {
        return connection.receive(answer, deadline);
      }
    }
    if (auto sent = connection.send(rest, deadline); !sent.is_ok()) {
      return sent;
    }
    return connection.receive(answer, deadline);
  }

  const Target& target_;
  const Settings& settings_;
  Watched& watched_;
  Sources sources_;
  std::optional<OwnerFinder> finder_;
};

}  // namespace

std::string_view all_but_the_end(std::string_view request) {
  return request.substr(0, request.size() - end_of(request).size());
}

std::string_view end_of(std::string_view request) {
  return request.substr(request.size() - std::min<std::size_t>(request.size(), 2));
}

Clients::Clients(const Target& target, const Settings& settings, Watched& watched,
                 Statistics& statistics)
    : target_(target), settings_(settings), watched_(watched), statistics_(statistics) {
  for (unsigned number = 0; number < settings_.clients; ++number) {
    threads_.emplace_back([this, number](const std::stop_token& stop) { run(stop, number); });
  }
}

void Clients::stop() {
  for (auto& thread : threads_) {
    thread.request_stop();
  }
  threads_.clear();
}

void Clients::run(const std::stop_token& stop, unsigned number) {
  Client client(target_, settings_, watched_, number);
  std::mutex mutex;
  std::condition_variable_any nothing;  // only a stop ends the pause early
  do {
    statistics_.add(client.request());
    std::unique_lock lock(mutex);
    nothing.wait_for(lock, stop, settings_.pause, [] { return false; });
  } while (!stop.stop_requested());
}

}  // namespace continuity::load
