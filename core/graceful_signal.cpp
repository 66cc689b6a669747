#include "core/graceful_signal.hpp"

#include <algorithm>
#include <array>
#include <csignal>

namespace continuity {
namespace {

struct Habit {
  std::string_view program;
  int signal;
  bool any_version = false;  // "php-fpm8.2", too
};

// Each has been seen to answer a request that was in its hands, or is such a one
// under another name. Who is missing
// here drops connections whatever it is told (redis, memcached, stunnel), ends at
// once (uwsgi; its SIGHUP reloads), or has nobody in hand itself (sshd, vsftpd).
constexpr auto habits = std::to_array<Habit>({
    {"apache2", SIGWINCH},
    {"gunicorn", SIGTERM},
    {"haproxy", SIGUSR1},
    {"httpd", SIGWINCH},
    {"lighttpd", SIGINT},
    {"nginx", SIGQUIT},
    {"openresty", SIGQUIT},
    {"php-fpm", SIGQUIT, true},
    {"puma", SIGTERM},
    {"squid", SIGTERM},
    {"unicorn", SIGQUIT},
    {"unicorn_rails", SIGQUIT},
    {"uvicorn", SIGTERM},
});

}  // namespace

int graceful_signal(std::string_view program) {
  const auto* const found = std::find_if(habits.begin(), habits.end(), [&](const Habit& habit) {
    return habit.any_version ? program.starts_with(habit.program) : program == habit.program;
  });
  return found == habits.end() ? 0 : found->signal;
}

}  // namespace continuity
