// The instrument is tested before anything is judged by it: against servers
// that refuse, reset, close early, answer by half or not at all, each outcome
// has to come out under its name. The servers are scripted, in threads of ours
// or, where it matters which process serves, in children.
#include "clients.hpp"
#include "control.hpp"
#include "held.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <future>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <thread>
#include <vector>

namespace continuity::load {
namespace {

using std::chrono::milliseconds;

Fd listen_on(Endpoint& endpoint, bool listens = true) {
  Fd listener(::socket(endpoint.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(listener.get(), endpoint.get(), endpoint.length) == 0);
  REQUIRE(::getsockname(listener.get(), endpoint.get(), &endpoint.length) == 0);
  if (listens) {
    REQUIRE(::listen(listener.get(), 64) == 0);
  }
  return listener;
}

Endpoint any_port() {
  return parse_endpoint("127.0.0.1:0");
}

// Up to and including the end of a request, or of the connection.
std::string read_request(int fd) {
  std::string request;
  for (char byte = 0; request.find("\n\n") == std::string::npos &&
                      request.find("\r\n\r\n") == std::string::npos && ::read(fd, &byte, 1) == 1;) {
    request += byte;
  }
  return request;
}

// What goes wrong here shows at the client.
void say(int fd, std::string_view text) {
  static_cast<void>(::send(fd, text.data(), text.size(), MSG_NOSIGNAL));
}

void tear_down(Fd connection) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(connection.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

// Until the other side closes.
void await_end(int fd) {
  pollfd entry{.fd = fd, .events = POLLRDHUP, .revents = 0};
  ::poll(&entry, 1, 5000);
}

using Script = std::function<void(Fd)>;

// Plays the script with one connection after the other.
class ScriptedServer {
 public:
  explicit ScriptedServer(Script script, Endpoint where = any_port())
      : endpoint_(where),
        listener_(listen_on(endpoint_)),
        thread_([this, script = std::move(script)] {
          while (true) {
            Fd connection(::accept(listener_.get(), nullptr, nullptr));
            if (!connection.is_open()) {
              return;
            }
            script(std::move(connection));
          }
        }) {}
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;
  ~ScriptedServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);  // wakes the accept
    thread_.join();
  }

  [[nodiscard]] const Endpoint& endpoint() const { return endpoint_; }

 private:
  Endpoint endpoint_;
  Fd listener_;
  std::thread thread_;
};

Exchange http() {
  return http_exchange("localhost", "/", 200);
}
Exchange text() {
  return text_exchange("hello\n\n", "world\n");
}
// The pause is longer than any test: it is the stop that ends it, after one request.
constexpr Settings one_client{
    .clients = 1, .timeout = milliseconds{2000}, .pause = milliseconds{60'000}};

// One request of one client.
Counts ask(const Endpoint& endpoint, const Exchange& exchange, Settings settings = one_client) {
  const Target target{endpoint, exchange};
  Watched watched;
  Statistics statistics;
  // Stopped at once: it makes the one request that each client makes at least.
  Clients(target, settings, watched, statistics).stop();
  return statistics.total();
}

Counts ask(const Exchange& exchange, const Script& script) {
  const ScriptedServer server(script);
  return ask(server.endpoint(), exchange);
}

Script answering(const std::string& answer) {
  return [answer](Fd connection) {  // NOLINT(performance-unnecessary-value-param)
    read_request(connection.get());
    say(connection.get(), answer);
  };
}

void check(const Counts& counts, Outcome outcome) {
  INFO(counts.to_json());
  CHECK(counts.of(outcome) >= 1);
  const bool is_ours = outcome == Outcome::client_error;
  CHECK(counts.requests() == (is_ours ? 0 : counts.of(outcome)));
  CHECK(counts.failed() == (is_ours || outcome == Outcome::ok ? 0 : counts.requests()));
}

TEST_CASE("a whole answer is ok, whatever says how long it is") {
  check(ask(http(), answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")), Outcome::ok);
  check(ask(http(), answering("HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n")), Outcome::ok);
  check(ask(http(), answering("HTTP/1.0 200 OK\r\n\r\nhello")), Outcome::ok);
  check(ask(http(), answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "5;x=y\r\nhello\r\n1f\r\n0123456789012345678901234567890\r\n0\r\n"
                              "Trailer: 1\r\n\r\n")),
        Outcome::ok);
  check(ask(text(), answering("hello world\n")), Outcome::ok);
}

TEST_CASE("an answer in many pieces is put together") {
  const Exchange exchange = http();
  Answer answer(exchange);
  for (const char byte : std::string("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                     "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n")) {
    CHECK_FALSE(answer.is_decided());
    answer.add({&byte, 1});
  }
  CHECK(answer.is_decided());
  CHECK(answer.verdict().is_ok());
}

TEST_CASE("an answer that ends too early is short") {
  const auto* const cut =
      GENERATE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "HTTP/1.1 200 OK\r\nContent-Le",
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
               "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "H");
  INFO(cut);
  check(ask(http(), answering(cut)), Outcome::cut);
  CHECK(ask(http(), answering(cut)).to_json().find(R"("short":1)") != std::string::npos);
  check(ask(text(), answering("hello")), Outcome::cut);
}

TEST_CASE("another answer than the expected one is a failure of its own") {
  check(ask(http(), answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")), Outcome::other);
  check(ask(http(), answering("-ERR unknown command\r\n")), Outcome::other);
}

TEST_CASE("a connection that ends without an answer is closed") {
  check(ask(http(), [](const Fd& connection) { read_request(connection.get()); }), Outcome::closed);
  check(ask(text(), [](const Fd& connection) { read_request(connection.get()); }), Outcome::closed);
}

TEST_CASE("a connection that is torn down is reset") {
  SECTION("when it has been accepted") {
    check(ask(text(), tear_down), Outcome::reset);
  }
  SECTION("with the request unread") {
    check(ask(text(),
              [](const Fd& connection) {
                pollfd entry{.fd = connection.get(), .events = POLLIN, .revents = 0};
                ::poll(&entry, 1, 5000);
              }),
          Outcome::reset);
  }
  SECTION("in the middle of the answer") {
    check(ask(text(),
              [](Fd connection) {
                read_request(connection.get());
                say(connection.get(), "hello wo");
                tear_down(std::move(connection));
              }),
          Outcome::reset);
  }
  SECTION("when its listener is closed before it is accepted") {
    auto endpoint = any_port();
    auto listener = listen_on(endpoint);
    const Target target{endpoint, text()};
    Watched watched;
    Held held(target, one_client, watched);
    REQUIRE(held.open("a").verdict.is_ok());
    listener = Fd();
    CHECK(held.finish("a").verdict.outcome == Outcome::reset);
  }
}

TEST_CASE("where nobody listens, connections are refused") {
  SECTION("on TCP") {
    auto endpoint = any_port();
    const auto bound = listen_on(endpoint, false);
    check(ask(endpoint, text()), Outcome::refused);
  }
  SECTION("on a UNIX path that is not there") {
    check(ask(parse_endpoint("/nonexistent/socket"), text()), Outcome::refused);
  }
  SECTION("on a UNIX path that is left over") {
    std::string directory = "/tmp/continuity-load-XXXXXX";
    REQUIRE(::mkdtemp(directory.data()) != nullptr);
    auto endpoint = parse_endpoint(directory + "/socket");
    listen_on(endpoint);
    check(ask(endpoint, text()), Outcome::refused);
    ::unlink((directory + "/socket").c_str());
    ::rmdir(directory.c_str());
  }
}

TEST_CASE("a server that does not answer in time is a timeout") {
  Settings hasty = one_client;
  hasty.timeout = milliseconds{50};
  SECTION("because it does not accept") {
    auto endpoint = any_port();
    const auto listener = listen_on(endpoint);
    check(ask(endpoint, text(), hasty), Outcome::timeout);
  }
  SECTION("because it accepts and is silent") {
    const ScriptedServer server([](const Fd& connection) { await_end(connection.get()); });
    check(ask(server.endpoint(), text(), hasty), Outcome::timeout);
  }
  SECTION("because it stops in the middle") {
    const ScriptedServer server([](const Fd& connection) {
      say(connection.get(), "hello");
      await_end(connection.get());
    });
    check(ask(server.endpoint(), text(), hasty), Outcome::timeout);
  }
  SECTION("because its UNIX backlog stays full") {
    auto endpoint = parse_endpoint("@continuity-load-test-" + std::to_string(::getpid()));
    const auto listener = listen_on(endpoint);
    ::listen(listener.get(), 0);
    Connection first;
    Sources sources(0);
    REQUIRE(first.connect(endpoint, sources, Clock::now() + milliseconds{500}).is_ok());
    check(ask(endpoint, text(), hasty), Outcome::timeout);
  }
}

TEST_CASE("a client without a descriptor left blames itself, not the server") {
  auto endpoint = any_port();
  const auto listener = listen_on(endpoint);
  // Nothing but the one call, and no other thread: a sanitizer's runtime ends the
  // program if it finds no descriptor for itself, which it wants when a thread starts.
  Connection connection;
  Sources sources(0);
  const auto deadline = Clock::now() + milliseconds{500};
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  rlimit none = before;
  none.rlim_cur = 0;
  ::setrlimit(RLIMIT_NOFILE, &none);

  const Verdict verdict = connection.connect(endpoint, sources, deadline);

  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(verdict.outcome == Outcome::client_error);
}

// A process that accepts and answers, or has a child do it. Killed at the end.
class Child {
 public:
  Child(const Fd& listener, bool forks) : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      serve(listener.get(), forks);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  [[noreturn]] static void serve(int listener, bool forks) {
    static_cast<void>(::signal(SIGCHLD, SIG_IGN));
    while (true) {
      const Fd connection(::accept(listener, nullptr, nullptr));
      if (forks && ::fork() != 0) {
        continue;
      }
      while (!read_request(connection.get()).empty()) {
        ::send(connection.get(), "world\n", 6, MSG_NOSIGNAL);
      }
      if (forks) {
        ::_exit(0);
      }
    }
  }

  pid_t pid_;
};

Settings with_owners() {
  Settings settings = one_client;
  settings.owners = true;
  return settings;
}

TEST_CASE("the process that serves a connection is found") {
  const std::string name = std::to_string(::getpid());
  const std::string where =
      GENERATE("127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "[::]:0", "@continuity-load-");
  const bool forks = GENERATE(false, true);
  INFO(where << (forks ? ", a child per connection" : ""));
  auto endpoint = parse_endpoint(where.front() == '@' ? where + name : where);
  const auto listener = listen_on(endpoint);
  const auto port = ntohs(reinterpret_cast<const sockaddr_in*>(endpoint.get())->sin_port);
  if (where == "[::]:0") {  // an IPv4 client of an IPv6 server
    endpoint = parse_endpoint("127.0.0.1:" + std::to_string(port));
  }
  const Child server(listener, forks);
  const Target target{endpoint, text()};
  Watched watched;
  Statistics statistics;
  Held held(target, with_owners(), watched);
  Control control(watched, statistics, held);
  control.answer("watch 1 " + name + " " + std::to_string(server.pid()));

  Clients(target, with_owners(), watched, statistics).stop();
  const auto opened = held.open("a");

  const auto counts = statistics.total();
  INFO(counts.to_json());
  CHECK(counts.of(Outcome::ok) == 1);
  CHECK(counts.stale() == 0);
  CHECK(counts.to_json().find("\"by_pid\":{\"" + std::to_string(server.pid()) + "\":1}") !=
        std::string::npos);
  CHECK(opened.owner == server.pid());
  CHECK(held.finish("a").verdict.is_ok());
}

Settings silent_until_accepted() {
  Settings settings = with_owners();
  settings.silent = true;
  return settings;
}

TEST_CASE("how the connection of a silent client ends tells whether it had been accepted") {
  const std::string where = GENERATE("127.0.0.1:0", "@continuity-load-silent-");
  CAPTURE(where);
  const auto place = [&] {
    return parse_endpoint(where.front() == '@' ? where + std::to_string(::getpid()) : where);
  };
  SECTION("accepted, and nothing read") {
    const ScriptedServer server([](const Fd&) {}, place());
    CHECK(ask(server.endpoint(), text(), silent_until_accepted()).of(Outcome::closed) == 1);
  }
  SECTION("the same, where something was said: that is no different from a queue that is lost") {
    const ScriptedServer server(
        [](const Fd& connection) {
          pollfd entry{.fd = connection.get(), .events = POLLIN, .revents = 0};
          ::poll(&entry, 1, 5000);
        },
        place());
    CHECK(ask(server.endpoint(), text(), with_owners()).of(Outcome::reset) == 1);
  }
  SECTION("in the queue of a listener that is closed") {
    auto endpoint = place();
    auto listener = listen_on(endpoint);
    auto counts = std::async(std::launch::async,
                             [&] { return ask(endpoint, text(), silent_until_accepted()); });
    pollfd entry{.fd = listener.get(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&entry, 1, 5000) == 1);
    listener = Fd();
    CHECK(counts.get().of(Outcome::reset) == 1);
  }
}

TEST_CASE("a connection that nobody accepts has no owner yet") {
  auto endpoint = any_port();
  const auto listener = listen_on(endpoint);
  const Target target{endpoint, text()};
  Watched watched;
  watched.add(std::array{::getpid()});  // it holds the listener, but that is not the connection
  Connection connection;
  Sources sources(0);
  REQUIRE(connection.connect(endpoint, sources, Clock::now() + milliseconds{500}).is_ok());
  OwnerFinder finder(watched);

  CHECK(finder.find(connection, Clock::now() + milliseconds{30}) == 0);

  const Fd accepted(::accept(listener.get(), nullptr, nullptr));
  CHECK(finder.find(connection, Clock::now() + milliseconds{500}) == ::getpid());
}

TEST_CASE("an older process that serves is stale, and only for connections begun later") {
  auto endpoint = any_port();
  const auto listener = listen_on(endpoint);
  const Child old(listener, false);
  const Target target{endpoint, text()};
  Watched watched;
  watched.add(std::array{old.pid()});
  const auto stale_of = [&](std::initializer_list<pid_t> only) {
    Statistics statistics;
    watched.restrict_to(only);
    Clients(target, with_owners(), watched, statistics).stop();
    CHECK(statistics.total().failed() == 0);
    return statistics.total().stale();
  };

  CHECK(stale_of({old.pid()}) == 0);
  CHECK(stale_of({99999999}) == 1);
  CHECK(stale_of({::getpid()}) == 0);  // it descends from us
  watched.restrict_to(std::array{99999999});
  CHECK_FALSE(watched.retired().empty());
}

TEST_CASE("who is watched after `only` may serve") {
  Watched watched;
  watched.add(std::array{11, 12});
  watched.restrict_to(std::array{12});
  watched.add(std::array{13});
  CHECK(watched.retired() == std::vector<pid_t>{11});
  watched.restrict_to(std::array{13});
  CHECK(watched.retired() == std::vector<pid_t>{11, 12});
  watched.add(std::array{11});  // a dead one's number, of a new process
  CHECK(watched.retired() == std::vector<pid_t>{12});
}

TEST_CASE("a request begun before and finished later is answered") {
  const ScriptedServer server(answering("world\n"));
  const Target target{server.endpoint(), text()};
  Watched watched;
  Held held(target, one_client, watched);
  CHECK(held.open("a").verdict.is_ok());
  CHECK(held.finish("a").verdict.is_ok());
  CHECK(held.finish("a").verdict.outcome == Outcome::client_error);  // it is gone
}

TEST_CASE("a kept connection serves again, until it is closed between two requests") {
  std::promise<void> closed;
  const ScriptedServer server([&](const Fd& connection) {
    for (int i = 0; i < 2; ++i) {
      read_request(connection.get());
      say(connection.get(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
    ::shutdown(connection.get(), SHUT_WR);
    closed.set_value();
    await_end(connection.get());
  });
  const Target target{server.endpoint(), http()};
  Watched watched;
  Held held(target, one_client, watched);
  CHECK(held.keep("a").verdict.is_ok());
  CHECK(held.again("a").verdict.is_ok());
  REQUIRE(closed.get_future().wait_for(std::chrono::seconds{5}) == std::future_status::ready);
  CHECK(held.again("a").verdict.outcome == Outcome::closed_idle);
  held.drop("a");
  CHECK(held.again("a").verdict.outcome == Outcome::client_error);
}

TEST_CASE("a kept connection that is torn down is reset") {
  const ScriptedServer server([](Fd connection) {
    read_request(connection.get());
    say(connection.get(), "world\n");
    tear_down(std::move(connection));
  });
  const Target target{server.endpoint(), text()};
  Watched watched;
  Held held(target, one_client, watched);
  CHECK(held.keep("a").verdict.is_ok());
  CHECK(held.again("a").verdict.outcome == Outcome::reset);
}

TEST_CASE("commands are answered by JSON, and a mark begins a new count") {
  const ScriptedServer server(answering("world\n"));
  const Target target{server.endpoint(), text()};
  Watched watched;
  Statistics statistics;
  Held held(target, one_client, watched);
  Control control(watched, statistics, held);
  Clients(target, one_client, watched, statistics).stop();

  CHECK(control.answer("watch 7 8") == R"({"watch":[7,8]})");
  CHECK(control.answer("only 8") == R"({"only":[8]})");
  CHECK(control.answer("open x") == R"({"id":"x","outcome":"ok","detail":"","pid":0})");
  CHECK(control.answer("finish x") == R"({"id":"x","outcome":"ok","detail":"","pid":0})");
  CHECK(control.answer("mark").starts_with(R"({"requests":1,)"));
  CHECK(control.answer("mark").starts_with(R"({"requests":0,)"));
  CHECK(control.answer("stats").starts_with(R"({"requests":1,)"));
  CHECK(control.answer("dance x") == R"({"error":"no command dance"})");
  CHECK(control.answer("") == R"({"error":"cannot read the command "})");
  CHECK(json_string("a\"\\\n\xff") == R"("a\"\\\u000a\u00ff")");
}

TEST_CASE("clients use other local addresses on and on") {
  Sources first(0);
  Sources second(1);
  CHECK(first.next() == (127U << 24U | 1U << 16U | 1U));
  CHECK(first.next() == (127U << 24U | 1U << 16U | 2U));
  CHECK(second.next() == (127U << 24U | 2U << 16U | 1U));
}

TEST_CASE("percentiles are within 3 % of the truth") {
  Histogram histogram;
  for (int time = 1; time <= 100'000; ++time) {
    histogram.add(std::chrono::microseconds{time});
  }
  CHECK(histogram.percentile(50) == Approx(50'000).epsilon(0.032));
  CHECK(histogram.percentile(99) == Approx(99'000).epsilon(0.032));
  CHECK(histogram.worst() == 100'000);
}

TEST_CASE("the longest time without a good answer is known, and who failed how many requests") {
  using std::chrono::seconds;
  Counts counts;
  const auto begin = Clock::now();
  const auto ends = [&](Outcome outcome, seconds after, pid_t owner = 0) {
    counts.add({.verdict = {outcome, ""}, .ended = begin + after, .owner = owner});
  };
  ends(Outcome::ok, seconds{1});
  ends(Outcome::refused, seconds{2});
  ends(Outcome::reset, seconds{3}, 7);
  ends(Outcome::reset, seconds{3}, 7);
  ends(Outcome::closed, seconds{3}, 7);
  ends(Outcome::ok, seconds{6});
  ends(Outcome::ok, seconds{5});  // the clients are not in step

  CHECK(counts.silence(begin + seconds{7}) == seconds{5});
  CHECK(counts.silence(begin + seconds{20}) == seconds{14});
  const auto json = counts.to_json();
  CHECK(json.find(R"("failed_by_pid":{"7":{"reset":2,"closed":1}})") != std::string::npos);
  CHECK(json.find(R"("silence_ms":5000.000)") != std::string::npos);
}

TEST_CASE("targets are read as they are written") {
  const auto url = parse_url("http://[::1]:8080/a?b", 200);
  CHECK(url.endpoint.family() == AF_INET6);
  CHECK(url.exchange.request.starts_with("GET /a?b HTTP/1.1\r\nHost: [::1]:8080\r\n"));
  CHECK(parse_url("http://127.0.0.1", 200).exchange.request.starts_with("GET / HTTP"));
  CHECK(parse_endpoint("./socket").family() == AF_UNIX);
  CHECK_THROWS_AS(parse_url("https://localhost/", 200), std::invalid_argument);
  CHECK_THROWS_AS(parse_endpoint("localhost"), std::invalid_argument);
  CHECK_THROWS_AS(parse_endpoint(std::string(200, '/')), std::invalid_argument);
  CHECK(unescape(R"(a\r\n\x41\\\0)") == std::string("a\r\nA\\\0", 6));
  CHECK_THROWS_AS(unescape("\\q"), std::invalid_argument);
  CHECK_THROWS_AS(unescape("\\"), std::invalid_argument);
}

}  // namespace
}  // namespace continuity::load
