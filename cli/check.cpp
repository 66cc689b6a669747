// continuity check: a restart up to the moment at which it would happen.
#include "cli/describe.hpp"
#include "cli/launch.hpp"
#include "cli/notify.hpp"
#include "cli/program_file.hpp"
#include "cli/server_run.hpp"
#include "core/proc_text.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

struct Arguments {
  std::vector<std::string> command;
  Nanoseconds timeout = 60 * second;
  bool as_json = false;
};

struct OptionName {
  int level;
  int number;
  const char* name;
};
#define NAMED(level, option) \
  OptionName {               \
    level, option, #option   \
  }
constexpr std::array option_names{
    NAMED(SOL_SOCKET, SO_KEEPALIVE),  NAMED(SOL_SOCKET, SO_LINGER),
    NAMED(SOL_SOCKET, SO_OOBINLINE),  NAMED(SOL_SOCKET, SO_DONTROUTE),
    NAMED(SOL_SOCKET, SO_MARK),       NAMED(SOL_SOCKET, SO_RCVLOWAT),
    NAMED(SOL_SOCKET, SO_RCVTIMEO),   NAMED(SOL_SOCKET, SO_SNDTIMEO),
    NAMED(SOL_SOCKET, SO_RCVBUF),     NAMED(SOL_SOCKET, SO_SNDBUF),
    NAMED(SOL_SOCKET, SO_REUSEADDR),  NAMED(SOL_SOCKET, SO_REUSEPORT),
    NAMED(SOL_SOCKET, SO_PRIORITY),   NAMED(IPPROTO_IP, IP_TOS),
    NAMED(IPPROTO_IP, IP_TTL),        NAMED(IPPROTO_IP, IP_TRANSPARENT),
    NAMED(IPPROTO_IP, IP_FREEBIND),   NAMED(IPPROTO_IPV6, IPV6_TCLASS),
    NAMED(IPPROTO_TCP, TCP_NODELAY),  NAMED(IPPROTO_TCP, TCP_DEFER_ACCEPT),
    NAMED(IPPROTO_TCP, TCP_KEEPIDLE), NAMED(IPPROTO_TCP, TCP_KEEPINTVL),
    NAMED(IPPROTO_TCP, TCP_KEEPCNT),  NAMED(IPPROTO_TCP, TCP_USER_TIMEOUT),
    NAMED(IPPROTO_TCP, TCP_FASTOPEN), NAMED(IPPROTO_TCP, TCP_CONGESTION),
};
#undef NAMED

std::string name_of_option(int level, int number) {
  const auto* const found = std::find_if(
      option_names.begin(), option_names.end(),
      [&](const OptionName& one) { return one.level == level && one.number == number; });
  return found == option_names.end() ? compose("option {} of level {}", number, level)
                                     : found->name;
}

// Where the rehearsal tells of itself, whichever of its processes and users that is.
class Reports {
 public:
  Reports() : socket_(make_named_socket(sys_, SOCK_STREAM, name_)) {
    constexpr int queue = 8;
    if (sys_.listen(socket_.get(), queue) != 0) {
      socket_.reset();
    }
  }
  [[nodiscard]] bool is_open() const { return socket_.is_open(); }
  [[nodiscard]] const std::string& name() const { return name_; }

  // What a process of the run says within this time; empty: nothing.
  std::string receive(Run& run, Nanoseconds patience) {
    if (!await(socket_, now(sys_) + patience)) {
      return {};
    }
    const OwnedFd teller(
        sys_, sys_.accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    ucred peer{};
    socklen_t length = sizeof peer;
    // Anybody can find a name in the abstract namespace.
    if (!teller.is_open() ||
        sys_.getsockopt(teller.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 ||
        !run.has(peer.pid)) {
      return {};
    }
    std::string text;
    std::array<char, 4096> part{};
    const Nanoseconds deadline = after(sys_, telling_time);
    while (!text.ends_with("end\n") && await(teller, deadline)) {
      const ssize_t size = sys_.read(teller.get(), part.data(), part.size());
      if (size <= 0) {
        break;
      }
      text.append(part.data(), static_cast<std::size_t>(size));
    }
    return text;
  }

 private:
  static constexpr Nanoseconds telling_time = 5 * second;

  bool await(const OwnedFd& fd, Nanoseconds deadline) {
    pollfd entry{.fd = fd.get(), .events = POLLIN, .revents = 0};
    const timespec timeout = to_timespec(std::max<Nanoseconds>(deadline - now(sys_), 0));
    return sys_.ppoll(&entry, 1, &timeout) > 0;
  }

  const Sys& sys_ = libc_sys();
  std::string name_{};
  OwnedFd socket_;
};

// What the rehearsal has said, as JSON; nothing: not all of it, or not yet.
std::optional<Json> read_report(const std::string& text) {
  if (!text.ends_with("end\n")) {
    return std::nullopt;
  }
  Json report = {{"ready", "unknown"},
                 {"claims", Json::array()},
                 {"new", Json::array()},
                 {"dropped", Json::array()}};
  for_each_line(text, [&](std::string_view line) {
    const std::string_view kind = take_word(line);
    const auto take_int = [&] {
      int number = 0;
      read_number(take_word(line), number, 10);
      return number;
    };
    if (kind == "ready") {
      const int evidence = take_int();
      report["ready"] = name_of(evidence >= 0 && evidence <= static_cast<int>(Evidence::said)
                                    ? static_cast<Evidence>(evidence)
                                    : Evidence::unknown);
    } else if (kind == "new" || kind == "dropped") {
      report[std::string(kind)].push_back(std::string(take_word(line)));
    } else if (kind == "claimed") {
      Json claim = {{"address", std::string(take_word(line))}, {"options", Json::array()}};
      const int before = take_int();
      const int after = take_int();
      if (before >= 0 && after >= 0 && before != after) {
        claim["backlog"] = {{"before", before}, {"after", after}};
      }
      report["claims"].push_back(std::move(claim));
    } else if (kind == "option" && !report["claims"].empty()) {
      take_word(line);  // of the claim before
      const int level = take_int();
      const std::string name = name_of_option(level, take_int());
      const int before = take_int();
      report["claims"].back()["options"].push_back(
          {{"name", name}, {"before", before}, {"after", take_int()}});
    }
  });
  return report;
}

std::string describe(const Json& report) {
  std::string text;
  for (const Json& claim : report["claims"]) {
    text += compose("claims   {}\n", claim["address"].get<std::string>());
    if (claim.contains("backlog")) {
      text += compose("           backlog: {} becomes {}\n", claim["backlog"]["before"].get<int>(),
                      claim["backlog"]["after"].get<int>());
    }
    for (const Json& option : claim["options"]) {
      text += compose("           {}: {} becomes {}\n", option["name"].get<std::string>(),
                      option["before"].get<int>(), option["after"].get<int>());
    }
  }
  for (const Json& address : report["new"]) {
    text += compose("new      {}\n", address.get<std::string>());
  }
  for (const Json& address : report["dropped"]) {
    text += compose("dropped  {}\n", address.get<std::string>());
  }
  if (report["claims"].empty()) {
    text += "claims nothing: nobody of its name has an address that it binds\n";
  }
  return text + compose("ready after {} ms ({}), {} KiB\n", report["took_ms"].get<std::int64_t>(),
                        report["ready"].get<std::string>(),
                        report["memory_kib"].get<std::int64_t>());
}

Start start_of(const Arguments& given, const Reports& reports) {
  std::error_code error;
  Start start{.arguments = given.command};
  if (const std::string program = find_in_path(given.command.front()); !program.empty()) {
    start.program = std::filesystem::absolute(program, error).string();
  }
  start.directory = std::filesystem::current_path(error).string();
  start.mask = ::umask(0);
  ::umask(start.mask);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    start.environment.emplace_back(*variable);
  }
  set_variable(start.environment, preload_variable());
  set_variable(start.environment, "CONTINUITY_REHEARSAL=" + reports.name());
  return start;
}

Exit rehearse(const Arguments& given, Reports& reports, Output& output) {
  constexpr Nanoseconds look_interval = 5 * millisecond;
  const Start start = start_of(given, reports);
  if (start.program.empty()) {
    return complain(Exit::failed, compose("{}: not found", given.command.front()));
  }
  const Nanoseconds began = now(libc_sys());
  auto run = Run::start(start, output);
  if (!run) {
    return complain(Exit::failed, compose("{}: {}: {}", start.program, run.error().step,
                                          error_text(run.error().code)));
  }
  std::optional<Json> report;
  bool running = true;
  while (!report && running && now(libc_sys()) < began + given.timeout) {
    report = read_report(reports.receive(*run, look_interval));
    running = report || run->is_running();
  }
  const Nanoseconds took = now(libc_sys()) - began;
  run->end();
  if (!report) {
    complain(running ? Exit::timed_out : Exit::failed,
             running ? "it was not ready in time, and has been ended"
                     : compose("it {} before it was ready", run->how_it_ended()));
    show_last_lines(output);
    return running ? Exit::timed_out : Exit::failed;
  }
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  (*report)["took_ms"] = took / millisecond;
  (*report)["memory_kib"] = usage.ru_maxrss;
  if (given.as_json || !is_for_people()) {
    print_json(*report);
  } else {
    print_lines(describe(*report));
  }
  return Exit::done;
}

Exit check(const Arguments& given) {
  auto output = Output::make("check", 0);
  Reports reports;
  if (!reports.is_open()) {
    complain(Exit::system, "no socket can be made");
  }
  if (!output || !reports.is_open()) {
    return Exit::system;
  }
  const Exit exit = rehearse(given, reports, *output);
  output->remove();
  return exit;
}

}  // namespace

void add_check(CLI::App& application, Exit& exit) {
  Command command(application, "check", "Rehearse a restart, and change nothing");
  auto given = std::make_shared<Arguments>();
  command.add_texts("COMMAND", given->command, "after --: what a restart would be",
                    Command::Need::yes);
  command.add_duration("--timeout", given->timeout, "to be ready (1m)");
  command.add_flag("--json", given->as_json, "as JSON, on a terminal too");
  command.on_call([given, &exit] { exit = check(*given); });
}

}  // namespace continuity::cli
