// continuity.h: what C can say and hear. No exception passes.
#include "continuity.h"
#include "core/upgrader.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

struct continuity_upgrader {
  explicit continuity_upgrader(const continuity::Environment& environment)
      : upgrader(environment) {}
  continuity::Upgrader upgrader;
};

namespace continuity {
namespace {

thread_local std::string t_error;

int fail(const Problem& failure) {
  t_error = failure.sentence;
  errno = failure.code;
  return -1;
}

int value_of(const Upgrader::Answer<int>& answer) {
  const int* value = std::get_if<int>(&answer);
  return value != nullptr ? *value : fail(std::get<Problem>(answer));
}

int value_of(const Upgrader::Told& answer) {
  return std::holds_alternative<Done>(answer) ? 0 : fail(std::get<Problem>(answer));
}

// There is no exception but for a lack of memory.
template <typename Call>
int guarded(continuity_upgrader* upgrader, Call call) noexcept {
  t_error.clear();
  if (upgrader == nullptr) {
    errno = ENOMEM;
    return -1;
  }
  try {
    // Before any lock: another thread may have had it at the fork.
    if (upgrader->upgrader.is_forked()) {
      return fail({ENOTSUP, "this process was forked from the one that asks"});
    }
    return call(upgrader->upgrader);
  } catch (...) {
    t_error.clear();
    errno = ENOMEM;
    return -1;
  }
}

std::string text_of(const char* text) {
  return text != nullptr ? text : "";
}

// What was chosen, as the environment would say it: read and checked in one place.
std::map<std::string_view, std::string> as_environment(const continuity_options& chosen) {
  std::map<std::string_view, std::string> values;
  const auto set_text = [&](const char* variable, const char* value) {
    if (value != nullptr) {
      values[variable] = value;
    }
  };
  const auto set_time = [&](const char* variable, std::int64_t milliseconds) {
    if (milliseconds >= 0) {
      values[variable] = std::to_string(milliseconds) + "ms";
    }
  };
  const auto set_word = [&](const char* variable, int value,
                            std::initializer_list<const char*> words) {
    if (value >= 0 && static_cast<std::size_t>(value) < words.size()) {
      values[variable] = words.begin()[value];
    } else if (value != CONTINUITY_UNSET) {
      values[variable] = std::to_string(value);
    }
  };
  set_text("CONTINUITY_NAME", chosen.name);
  set_text("CONTINUITY_DIR", chosen.directory);
  set_time("CONTINUITY_READY_TIMEOUT", chosen.ready_timeout_ms);
  set_time("CONTINUITY_PROBATION", chosen.probation_ms);
  set_time("CONTINUITY_UNCLAIMED", chosen.unclaimed_ms);
  set_time("CONTINUITY_DRAIN_TIMEOUT", chosen.drain_timeout_ms);
  set_word("CONTINUITY_BUSY", chosen.busy, {"fail", "wait"});
  set_word("CONTINUITY_SUCCESS_SIGNAL", chosen.success_signal, {"none"});
  set_word("CONTINUITY_LOG", chosen.log_level, {"error", "warn", "info", "debug"});
  set_word("CONTINUITY_DISABLE", chosen.disabled, {"0", "1"});
  return values;
}

continuity_options unset_options() {
  continuity_options options{};
  options.size = sizeof options;
  options.ready_timeout_ms = options.probation_ms = options.unclaimed_ms =
      options.drain_timeout_ms = CONTINUITY_UNSET;
  options.busy = options.success_signal = options.log_level = options.disabled = CONTINUITY_UNSET;
  return options;
}

continuity_upgrader* open(const continuity_options* chosen) {
  continuity_options options = unset_options();
  if (chosen != nullptr) {
    std::memcpy(&options, chosen, std::min(chosen->size, sizeof options));
  }
  const auto values = as_environment(options);
  return new continuity_upgrader([&](const char* name) -> const char* {
    const auto found = values.find(name);
    // Like everybody's, this is a race with a setenv of another thread.
    // NOLINTNEXTLINE(concurrency-mt-unsafe)
    return found != values.end() ? found->second.c_str() : ::getenv(name);
  });
}

int tell_outcome(Progress& progress, continuity_outcome& outcome) {
  // First the descriptor: what changes afterwards makes it readable again.
  progress.acknowledge();
  const Progress::Outcome told = progress.outcome();
  continuity_outcome all{};
  all.size = outcome.size;
  all.state = static_cast<int>(told.state);
  all.successor = told.successor;
  all.start_ns = told.start_time;
  all.switch_ns = told.switch_time;
  all.lived_ns = told.life_time;
  all.changes = told.changes;
  all.predecessor = told.predecessor;
  all.takeover_ns = told.takeover_time;
  if (outcome.size < sizeof outcome.size) {
    return fail({EINVAL, "the outcome's size is not set"});
  }
  std::memcpy(&outcome, &all, std::min(outcome.size, sizeof all));
  return 0;
}

}  // namespace
}  // namespace continuity

using continuity::Upgrader;

extern "C" {

void continuity_options_init(continuity_options* options) noexcept {
  *options = continuity::unset_options();
}

continuity_upgrader* continuity_open(const continuity_options* options) noexcept {
  continuity::t_error.clear();
  if (options != nullptr && options->size < sizeof options->size) {
    continuity::fail({EINVAL, "the options' size is not set: continuity_options_init() does"});
    return nullptr;
  }
  try {
    return continuity::open(options);
  } catch (...) {
    errno = ENOMEM;
    return nullptr;
  }
}

void continuity_close(continuity_upgrader* upgrader) noexcept {
  const std::unique_ptr<continuity_upgrader> ended(upgrader);
}

int continuity_get_listener(continuity_upgrader* upgrader, const char* address) noexcept {
  return continuity::guarded(upgrader, [&](Upgrader& one) {
    return continuity::value_of(one.get_listener(continuity::text_of(address)));
  });
}

int continuity_listen(continuity_upgrader* upgrader, const char* address, int backlog) noexcept {
  return continuity::guarded(upgrader, [&](Upgrader& one) {
    return continuity::value_of(one.listen(continuity::text_of(address), backlog));
  });
}

int continuity_register_listener(continuity_upgrader* upgrader, int fd) noexcept {
  return continuity::guarded(
      upgrader, [&](Upgrader& one) { return continuity::value_of(one.register_listener(fd)); });
}

int continuity_get_descriptor(continuity_upgrader* upgrader, const char* name) noexcept {
  return continuity::guarded(upgrader, [&](Upgrader& one) {
    return continuity::value_of(one.get_descriptor(continuity::text_of(name)));
  });
}

int continuity_register_descriptor(continuity_upgrader* upgrader, const char* name,
                                   int fd) noexcept {
  return continuity::guarded(upgrader, [&](Upgrader& one) {
    return continuity::value_of(one.register_descriptor(continuity::text_of(name), fd));
  });
}

int continuity_ready(continuity_upgrader* upgrader) noexcept {
  return continuity::guarded(upgrader,
                             [](Upgrader& one) { return continuity::value_of(one.ready()); });
}

int continuity_has_completed(continuity_upgrader* upgrader) noexcept {
  continuity::t_error.clear();
  try {
    return upgrader != nullptr && upgrader->upgrader.has_completed() ? 1 : 0;
  } catch (...) {  // no memory just now: the next call tries again
    return 0;
  }
}

int continuity_event_descriptor(continuity_upgrader* upgrader) noexcept {
  return continuity::guarded(upgrader, [](Upgrader& one) {
    const int event = one.progress().event();
    return event >= 0
               ? event
               : continuity::fail(
                     {errno, continuity::compose("eventfd: {}", continuity::error_text(errno))});
  });
}

int continuity_get_outcome(continuity_upgrader* upgrader, continuity_outcome* outcome) noexcept {
  return continuity::guarded(
      upgrader, [&](Upgrader& one) { return continuity::tell_outcome(one.progress(), *outcome); });
}

pid_t continuity_upgrade(continuity_upgrader* upgrader, const char* const* argv,
                         int64_t wait_ms) noexcept {
  return continuity::guarded(upgrader, [&](Upgrader& one) {
    std::vector<std::string> arguments;
    for (; argv != nullptr && *argv != nullptr; ++argv) {
      arguments.emplace_back(*argv);
    }
    const bool bounded = wait_ms >= 0 && wait_ms < continuity::never / continuity::millisecond;
    return continuity::value_of(one.upgrade(
        std::move(arguments), bounded ? wait_ms * continuity::millisecond : continuity::never));
  });
}

const char* continuity_error() noexcept {
  return continuity::t_error.c_str();
}

const char* continuity_version() noexcept {
  return CONTINUITY_VERSION;
}

}  // extern "C"
