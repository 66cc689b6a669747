// The CONTINUITY_* environment.
#include "core/options.hpp"

#include "core/graceful_signal.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <limits>
#include <map>

namespace continuity::test {
namespace {

OptionsRead read(const std::map<std::string, std::string>& variables) {
  return read_options([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

// Every option as text, to compare all of them at once.
std::string in_words(const Options& options) {
  std::string text;
  for (const auto number :
       {options.ready_timeout, options.unclaimed, options.probation, options.stop_timeout,
        options.drain_timeout, Nanoseconds{options.retire_signal}, Nanoseconds{options.stop_signal},
        Nanoseconds{options.success_signal}, static_cast<Nanoseconds>(options.ready),
        static_cast<Nanoseconds>(options.busy), static_cast<Nanoseconds>(options.log_level),
        Nanoseconds{options.fresh ? 1 : 0}, Nanoseconds{options.disabled ? 1 : 0}}) {
    text += std::to_string(number) + " ";
  }
  return text + options.name + "|" + options.directory + "|" + options.hide + "|" +
         options.log_file;
}

}  // namespace

TEST_CASE("without any variable every option has its documented default", "[options]") {
  const auto [options, errors] = read({});
  CHECK(errors.empty());
  CHECK(options.name.empty());
  CHECK(options.directory.empty());
  CHECK(options.ready == ReadyEvidence::wait);
  CHECK(options.ready_timeout == 60 * second);
  CHECK(options.unclaimed == 10 * second);
  CHECK(options.probation == 5 * second);
  CHECK(options.busy == WhenBusy::fail);
  CHECK(options.retire_signal == 0);
  CHECK(options.stop_signal == SIGTERM);
  CHECK(options.stop_timeout == 30 * second);
  CHECK(options.success_signal == 0);
  CHECK(options.drain_timeout == never);
  CHECK(options.log_level == LogLevel::info);
  CHECK(options.log_file.empty());
  CHECK_FALSE(options.fresh);
  CHECK_FALSE(options.disabled);
}

TEST_CASE("every variable is read into its option", "[options]") {
  const auto [options, errors] = read({{"CONTINUITY_NAME", "web"},
                                       {"CONTINUITY_DIR", "/run/web"},
                                       {"CONTINUITY_READY", "notify"},
                                       {"CONTINUITY_READY_TIMEOUT", "1s"},
                                       {"CONTINUITY_UNCLAIMED", "2s"},
                                       {"CONTINUITY_PROBATION", "3s"},
                                       {"CONTINUITY_BUSY", "wait"},
                                       {"CONTINUITY_RETIRE_SIGNAL", "QUIT"},
                                       {"CONTINUITY_STOP_SIGNAL", "SIGINT"},
                                       {"CONTINUITY_STOP_TIMEOUT", "4s"},
                                       {"CONTINUITY_SUCCESS_SIGNAL", "USR1"},
                                       {"CONTINUITY_DRAIN_TIMEOUT", "5m"},
                                       {"CONTINUITY_HIDE", "/a:/b"},
                                       {"CONTINUITY_NEW", "1"},
                                       {"CONTINUITY_LOG", "debug"},
                                       {"CONTINUITY_LOG_FILE", "/var/log/web"},
                                       {"CONTINUITY_DISABLE", "1"}});
  CHECK(errors.empty());
  CHECK(options.name == "web");
  CHECK(options.directory == "/run/web");
  CHECK(options.ready == ReadyEvidence::notify);
  CHECK(options.ready_timeout == 1 * second);
  CHECK(options.unclaimed == 2 * second);
  CHECK(options.probation == 3 * second);
  CHECK(options.busy == WhenBusy::wait);
  CHECK(options.retire_signal == SIGQUIT);
  CHECK(options.stop_signal == SIGINT);
  CHECK(options.stop_timeout == 4 * second);
  CHECK(options.success_signal == SIGUSR1);
  CHECK(options.drain_timeout == 300 * second);
  CHECK(options.hide == "/a:/b");
  CHECK(options.fresh);
  CHECK(options.log_level == LogLevel::debug);
  CHECK(options.log_file == "/var/log/web");
  CHECK(options.disabled);
}

TEST_CASE("only the signal to retire can be left to what is known of the server", "[options]") {
  const auto [options, errors] =
      read({{"CONTINUITY_RETIRE_SIGNAL", "auto"}, {"CONTINUITY_STOP_SIGNAL", "auto"}});
  CHECK(options.retire_signal == automatic_signal);
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].variable == "CONTINUITY_STOP_SIGNAL");
}

TEST_CASE("a server is known by its name, whole, and php-fpm in every version", "[options]") {
  CHECK(graceful_signal("nginx") == SIGQUIT);
  CHECK(graceful_signal("apache2") == SIGWINCH);
  CHECK(graceful_signal("httpd") == SIGWINCH);
  CHECK(graceful_signal("haproxy") == SIGUSR1);
  CHECK(graceful_signal("lighttpd") == SIGINT);
  CHECK(graceful_signal("php-fpm") == SIGQUIT);
  CHECK(graceful_signal("php-fpm8.2") == SIGQUIT);
  CHECK(graceful_signal("unicorn") == SIGQUIT);
  CHECK(graceful_signal("gunicorn") == SIGTERM);
  for (const char* name : {"", "nginx2", "ngin", "my-nginx", "python3", "uwsgi", "php"}) {
    CAPTURE(name);
    CHECK(graceful_signal(name) == 0);
  }
}

TEST_CASE("a value that cannot be read is named, and the default stays", "[options]") {
  struct Row {
    const char* variable;
    std::string value;
    const char* expected;  // a word of it
  };
  const auto row = GENERATE(values<Row>({
      {"CONTINUITY_NAME", "", "name"},
      {"CONTINUITY_NAME", "a/b", "name"},
      {"CONTINUITY_NAME", "..", "name"},
      {"CONTINUITY_NAME", std::string(65, 'x'), "64"},
      {"CONTINUITY_DIR", "", "absolute"},
      {"CONTINUITY_DIR", "relative/path", "absolute"},
      {"CONTINUITY_READY", "soon", "notify"},
      {"CONTINUITY_READY", "WAIT", "notify"},
      {"CONTINUITY_READY_TIMEOUT", "60", "duration"},
      {"CONTINUITY_UNCLAIMED", "ten seconds", "duration"},
      {"CONTINUITY_PROBATION", "-5s", "duration"},
      {"CONTINUITY_PROBATION", "1.5s", "duration"},
      {"CONTINUITY_BUSY", "queue", "wait"},
      {"CONTINUITY_RETIRE_SIGNAL", "BYE", "signal"},
      {"CONTINUITY_STOP_SIGNAL", "0", "signal"},
      {"CONTINUITY_STOP_SIGNAL", "65", "signal"},
      {"CONTINUITY_STOP_SIGNAL", "RTMIN+31", "signal"},
      {"CONTINUITY_STOP_SIGNAL", "RTMIN+-1", "signal"},
      {"CONTINUITY_STOP_SIGNAL", "RTMIN+2147483647", "signal"},
      {"CONTINUITY_STOP_TIMEOUT", "5 s", "duration"},
      {"CONTINUITY_SUCCESS_SIGNAL", "term", "signal"},
      {"CONTINUITY_DRAIN_TIMEOUT", "1d", "duration"},
      {"CONTINUITY_HIDE", "server.pid", "absolute"},
      {"CONTINUITY_HIDE", "/run/server.pid:", "absolute"},
      {"CONTINUITY_HIDE", "/run/server.pid::/run/server.sock", "absolute"},
      {"CONTINUITY_HIDE", "/run/", "files"},
      {"CONTINUITY_NEW", "yes", "0 or 1"},
      {"CONTINUITY_LOG", "verbose", "debug"},
      {"CONTINUITY_DISABLE", "true", "0 or 1"},
  }));
  CAPTURE(row.variable, row.value);
  const auto [options, errors] = read({{row.variable, row.value}});
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].variable == row.variable);
  CHECK(errors[0].value == row.value);
  CHECK_THAT(errors[0].expected, Catch::Contains(row.expected));
  CHECK(in_words(options) == in_words(Options{}));
}

TEST_CASE("one bad value does not spoil the good ones", "[options]") {
  const auto [options, errors] = read(
      {{"CONTINUITY_PROBATION", "x"}, {"CONTINUITY_UNCLAIMED", "7s"}, {"CONTINUITY_LOG", "y"}});
  CHECK(errors.size() == 2);
  CHECK(options.unclaimed == 7 * second);
}

TEST_CASE("a rehearsal that does not know whom to tell is a rehearsal all the same", "[options]") {
  const auto [options, errors] = read({{"CONTINUITY_REHEARSAL", "/tmp/report"}});
  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors[0].expected, Catch::Contains("@name"));
  CHECK_FALSE(options.rehearsal.empty());
}

TEST_CASE("durations are whole numbers of ms, s, m or h", "[options]") {
  Nanoseconds duration = -1;
  CHECK((parse_duration("500ms", duration) && duration == 500 * millisecond));
  CHECK((parse_duration("0s", duration) && duration == 0));
  CHECK((parse_duration("5s", duration) && duration == 5 * second));
  CHECK((parse_duration("2m", duration) && duration == 120 * second));
  CHECK((parse_duration("1h", duration) && duration == 3600 * second));
  CHECK((parse_duration("007s", duration) && duration == 7 * second));

  duration = -1;
  for (const char* bad : {"", "s", "5", "5S", "5sec", "5us", "5ns", "5s5s", "5s ", " 5s", "+5s",
                          "-5s", "0x5s", "5,5s", "1.5h", "5ms5"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_duration(bad, duration));
  }
  CHECK(duration == -1);
}

TEST_CASE("a duration too long for the clock is refused, not wrapped", "[options]") {
  Nanoseconds duration = -1;
  for (const char* bad : {"9223372036854775807h", "9223372036854775808ms", "99999999999999999999s",
                          "640512h", "2305843010s"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_duration(bad, duration));
  }
  CHECK(duration == -1);
  CHECK(parse_duration("87600h", duration));  // ten years
  CHECK(duration == Nanoseconds{87600} * 3600 * second);
  CHECK(after(libc_sys(), duration) < never);
}

TEST_CASE("signals are names with or without SIG, numbers, or real-time ones", "[options]") {
  struct Row {
    const char* text;
    int signal;
  };
  const auto row = GENERATE(values<Row>({{"none", 0},
                                         {"TERM", SIGTERM},
                                         {"SIGTERM", SIGTERM},
                                         {"15", 15},
                                         {"1", 1},
                                         {"WINCH", SIGWINCH},
                                         {"SIGUSR2", SIGUSR2},
                                         {"RTMIN", SIGRTMIN},
                                         {"SIGRTMIN", SIGRTMIN},
                                         {"RTMIN+3", SIGRTMIN + 3},
                                         {"SIGRTMIN+0", SIGRTMIN}}));
  CAPTURE(row.text);
  int signal = -1;
  CHECK(parse_signal(row.text, signal));
  CHECK(signal == row.signal);
}

TEST_CASE("text that names no signal changes nothing", "[options]") {
  const auto* text = GENERATE("", "SIG", "0", "-1", "65", "+15", "15x", "sigterm", "RTMIN+",
                              "RTMIN-1", "RTMIN+-1", "RTMIN+31", "RTMIN+99999999999",
                              "RTMIN+2147483647", "RTMIN 3", "SIGSIGTERM", "NONE");
  CAPTURE(text);
  int signal = -1;
  CHECK_FALSE(parse_signal(text, signal));
  CHECK(signal == -1);
}

TEST_CASE("signals are named in the log", "[options]") {
  CHECK(signal_name(SIGTERM) == "SIGTERM");
  CHECK(signal_name(SIGKILL) == "SIGKILL");
  CHECK(signal_name(SIGRTMIN + 3) == "signal " + std::to_string(SIGRTMIN + 3));
}

TEST_CASE("a name of 64 characters is taken", "[options]") {
  const auto [options, errors] = read({{"CONTINUITY_NAME", std::string(64, 'x')}});
  CHECK(errors.empty());
  CHECK(options.name.size() == 64);
}

}  // namespace continuity::test
