// continuity-load: keeps a server busy while it is restarted, and says what its
// clients lost. See `usage` below; commands come on standard input.
#include "clients.hpp"
#include "control.hpp"
#include "held.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <exception>
#include <iterator>
#include <optional>
#include <poll.h>
#include <stdexcept>
#include <string>
#include <unistd.h>

namespace {

using namespace continuity::load;
using std::chrono::milliseconds;

constexpr const char* usage = R"(usage: continuity-load --url http://HOST:PORT/PATH [OPTION...]
       continuity-load --connect HOST:PORT|PATH|@NAME [OPTION...]

Opens a fresh connection for every request and says what became of each.

  --url-path PATH    with --connect: speak HTTP there
  --status N         HTTP: the status of a good answer (200)
  --send TEXT        what a request is, with \r \n \t \0 \\ \xHH (\n)
  --expect TEXT      what a good answer contains (any byte)
  --clients N        that many at a time (8)
  --timeout TIME     of a whole request (10s)
  --pause TIME       of a client between two requests (2ms)
  --owners           find for every connection the process that serves it
  --silent           the same, and say nothing before somebody has accepted: whoever had not
                     is told by the end of such a connection (reset), and who had (closed)
  --duration TIME    end by itself

Commands, one a line on standard input, each answered by one line of JSON:
  stats | mark                all counts since the start | since the last mark
  watch PID...                processes that may serve, for --owners
  only PID...                 of all watched so far, the only ones that may serve connections
                              begun from now on
  open ID, finish ID          a request without its last two bytes, and these
  keep ID, again ID, drop ID  a request on a connection that stays, one more, its end
  quit                        finish what is in flight; the last line; so does the end of input

Exit status: 0 nothing lost, 1 something lost or stale, or no request made; 2 wrong usage;
111 the system failed us.
)";

struct Options {
  std::string url;
  std::string connect;
  std::string url_path;
  std::string send = "\n";
  std::string expect;
  int status = 200;
  Settings settings;
  std::optional<milliseconds> duration;
};

unsigned parse_number(const std::string& text) {
  unsigned value = 0;
  const auto* end = text.data() + text.size();
  if (const auto read = std::from_chars(text.data(), end, value); read.ptr != end || text.empty()) {
    throw std::invalid_argument(fmt::format("{} is not a number", text));
  }
  return value;
}

milliseconds parse_time(const std::string& text) {
  const auto unit = std::min(text.find_first_not_of("0123456789"), text.size());
  const milliseconds number{parse_number(text.substr(0, unit))};
  if (text.substr(unit) == "ms") {
    return number;
  }
  if (text.substr(unit) == "s") {
    return number * 1000;
  }
  throw std::invalid_argument(fmt::format("{} is not a time as in 500ms or 5s", text));
}

bool read_option(Options& options, const std::string& name, const std::string& value) {
  const std::array texts{std::pair{"--url", &options.url}, std::pair{"--connect", &options.connect},
                         std::pair{"--send", &options.send}, std::pair{"--expect", &options.expect},
                         std::pair{"--url-path", &options.url_path}};
  const auto* text =
      std::find_if(texts.begin(), texts.end(), [&](const auto& one) { return one.first == name; });
  if (text != texts.end()) {
    *text->second = value;
  } else if (name == "--status") {
    options.status = static_cast<int>(parse_number(value));
  } else if (name == "--clients") {
    options.settings.clients = parse_number(value);
  } else if (name == "--timeout") {
    options.settings.timeout = parse_time(value);
  } else if (name == "--pause") {
    options.settings.pause = parse_time(value);
  } else if (name == "--duration") {
    options.duration = parse_time(value);
  } else {
    return false;
  }
  return true;
}

Options read_options(const std::vector<std::string>& words) {
  Options options;
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (*word == "--owners" || *word == "--silent") {
      options.settings.owners = true;
      options.settings.silent = options.settings.silent || *word == "--silent";
    } else if (std::next(word) == words.end() || !read_option(options, *word, *std::next(word))) {
      throw std::invalid_argument(fmt::format("cannot read {}; see --help", *word));
    } else {
      ++word;
    }
  }
  if (options.url.empty() == options.connect.empty()) {
    throw std::invalid_argument("one of --url and --connect is needed; see --help");
  }
  return options;
}

Target target_of(const Options& options) {
  if (!options.url.empty()) {
    return parse_url(options.url, options.status);
  }
  const bool is_unix = options.connect.find_first_of("/@") != std::string::npos;
  return {parse_endpoint(options.connect),
          options.url_path.empty() ? text_exchange(unescape(options.send), unescape(options.expect))
                                   : http_exchange(is_unix ? "localhost" : options.connect,
                                                   options.url_path, options.status)};
}

void print(const std::string& line) {
  fmt::print("{}\n", line);
  static_cast<void>(std::fflush(stdout));  // nobody reads any more: so be it
}

// Lines of standard input, until it ends or the time is over.
class Commands {
 public:
  explicit Commands(std::optional<milliseconds> duration) {
    if (duration) {
      end_ = Clock::now() + *duration;
    }
  }

  std::optional<std::string> next() {
    while (true) {
      if (const auto end = unread_.find('\n'); end != std::string::npos) {
        std::string line = unread_.substr(0, end);
        unread_.erase(0, end + 1);
        return line;
      }
      if (!read_more()) {
        return std::nullopt;
      }
    }
  }

 private:
  bool read_more() {
    // Without commands, a duration still has to pass.
    pollfd input{.fd = is_open_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&input, 1, remaining());
    if (ready <= 0) {
      return ready < 0 && errno == EINTR;
    }
    std::array<char, 4096> buffer{};
    const ssize_t size = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (size > 0) {
      unread_.append(buffer.data(), static_cast<std::size_t>(size));
      return true;
    }
    is_open_ = false;
    return end_.has_value();
  }

  [[nodiscard]] int remaining() const {
    if (!end_) {
      return -1;
    }
    const auto rest = std::chrono::ceil<milliseconds>(*end_ - Clock::now());
    return static_cast<int>(std::max(rest, milliseconds{0}).count());
  }

  std::string unread_;
  bool is_open_ = true;
  std::optional<Deadline> end_;
};

int run(const Options& options) {
  const Target target = target_of(options);
  Watched watched;
  Statistics statistics;
  if (options.settings.owners) {
    const OwnerFinder probe(watched);  // here its failure can be reported
  }
  Held held(target, options.settings, watched);
  Control control(watched, statistics, held);
  Clients clients(target, options.settings, watched, statistics);

  Commands commands(options.duration);
  for (auto command = commands.next(); command && *command != "quit"; command = commands.next()) {
    print(control.answer(*command));
  }
  clients.stop();
  const Counts counts = statistics.total();
  print(counts.to_json());
  return counts.failed() == 0 && counts.stale() == 0 && counts.requests() > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const auto complain = [](const std::exception& problem, int status) {
    static_cast<void>(std::fprintf(stderr, "continuity-load: %s\n", problem.what()));
    return status;
  };
  try {
    const std::vector<std::string> words(std::next(argv), std::next(argv, argc));
    if (std::find(words.begin(), words.end(), "--help") != words.end()) {
      fmt::print("{}", usage);
      return 0;
    }
    return run(read_options(words));
  } catch (const std::invalid_argument& problem) {
    return complain(problem, 2);
  } catch (const std::exception& problem) {
    return complain(problem, 111);
  }
}
