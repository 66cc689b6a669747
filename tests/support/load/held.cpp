#include "held.hpp"

namespace continuity::load {
namespace {

constexpr unsigned our_sources = 253;  // the clients count from 0

Held::Answered unknown() {
  return {{Outcome::client_error, "no connection of that name"}, 0};
}

}  // namespace

Held::Held(const Target& target, const Settings& settings, Watched& watched)
    : target_(target), settings_(settings), watched_(watched), sources_(our_sources) {}

Held::Answered Held::open(const std::string& id) {
  auto& entry = connections_[id] = {};
  entry.answered.verdict = begin(entry, target_.exchange.request, Clock::now() + settings_.timeout);
  return entry.answered;
}

Held::Answered Held::finish(const std::string& id) {
  const auto found = connections_.extract(id);
  if (found.empty()) {
    return unknown();
  }
  const Entry& entry = found.mapped();
  const auto& opened = entry.answered;
  return {opened.verdict.is_ok()
              ? end(entry, target_.exchange.request, Clock::now() + settings_.timeout)
              : opened.verdict,
          opened.owner};
}

Held::Answered Held::keep(const std::string& id) {
  auto& entry = connections_[id] = {};
  const auto deadline = Clock::now() + settings_.timeout;
  entry.answered.verdict = begin(entry, target_.exchange.kept_request, deadline);
  if (entry.answered.verdict.is_ok()) {
    entry.answered.verdict = end(entry, target_.exchange.kept_request, deadline);
  }
  return entry.answered;
}

Held::Answered Held::again(const std::string& id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) {
    return unknown();
  }
  auto& [connection, answered] = found->second;
  if (answered.verdict.is_ok()) {
    answered.verdict = connection.look_at_idle();
  }
  if (answered.verdict.is_ok()) {
    const auto deadline = Clock::now() + settings_.timeout;
    const auto& request = target_.exchange.kept_request;
    answered.verdict = connection.send(all_but_the_end(request), deadline);
    if (answered.verdict.is_ok()) {
      answered.verdict = end(found->second, request, deadline);
    }
  }
  return answered;
}

Verdict Held::begin(Entry& entry, std::string_view request, Deadline deadline) {
  auto verdict = entry.connection.connect(target_.endpoint, sources_, deadline);
  if (verdict.is_ok()) {
    verdict = entry.connection.send(all_but_the_end(request), deadline);
  }
  if (verdict.is_ok() && settings_.owners) {
    entry.answered.owner = OwnerFinder(watched_).find(entry.connection, deadline);
  }
  return verdict;
}

Verdict Held::end(const Entry& entry, std::string_view request, Deadline deadline) const {
  if (auto sent = entry.connection.send(end_of(request), deadline); !sent.is_ok()) {
    return sent;
  }
  Answer answer(target_.exchange);
  return entry.connection.receive(answer, deadline);
}

}  // namespace continuity::load
