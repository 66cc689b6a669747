// Whatever is wrong around the library, the server runs as if it were not there,
// and one line says what is wrong.
#include "core/wire.hpp"
#include "place.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

namespace continuity::test {
namespace {

namespace fs = std::filesystem;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct BadValue {
  std::string variable;
  std::string value;
  std::string expected;
};

// Serves, and a second start fails as it does natively.
void runs_as_if_not_loaded(const Place& place, const std::string& complaint) {
  Process server = place.start({"poll"});
  CHECK(answer_from(place.address()) == answer_of(server));
  Process second = place.spawn({"poll"});
  CHECK(second.next_line() == "bind EADDRINUSE");
  second.wait_exit();
  for (Process* process : {&server, &second}) {
    CAPTURE(process->log(), complaint);
    CHECK(process->log().size() == 1);
    CHECK(process->logged(complaint) == 1);
  }
}

// The user's directory below the base, made as the library makes it.
std::string make_own_directory(const Place& place) {
  std::string path = place.rendezvous() + "/" + std::to_string(::geteuid());
  ::mkdir(path.c_str(), S_IRWXU);
  return path;
}

// A socket in the rendezvous directory at which somebody else answers. It is
// named so that a tiny-server asks it.
class Pretender {
 public:
  using Answer = std::function<void(int connection)>;

  Pretender(const Place& place, Answer answer)
      : name_("tiny-server.00000000000000ff.sock"),
        listener_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)),
        answer_(std::move(answer)) {
    const SocketAddress address(make_own_directory(place) + "/" + name_);
    if (::bind(listener_, address.get(), address.length) != 0 || ::listen(listener_, 16) != 0) {
      throw std::runtime_error("no pretender");
    }
    thread_ = std::thread([this] { run(); });
  }
  ~Pretender() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (const int connection : connections_) {
      ::close(connection);
    }
    ::close(listener_);
  }
  Pretender(const Pretender&) = delete;
  Pretender& operator=(const Pretender&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  void run() {
    for (int connection = 0;
         (connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      connections_.push_back(connection);
      answer_(connection);
    }
  }

  std::string name_;
  int listener_;
  Answer answer_;
  std::vector<int> connections_{};
  std::thread thread_{};
};

void send_bytes(int connection, const void* bytes, std::size_t size) {
  ::send(connection, bytes, size, MSG_NOSIGNAL);
}

void send_message(int connection, const Message& message) {
  const auto bytes = encode(message);
  send_bytes(connection, bytes->data(), bytes->size());
}

// With such a socket beside it a server starts, is restarted, and complains.
void restarts_beside(Place& place, const std::string& complaint) {
  Process server = place.start({"poll"});
  Process successor = place.restart({"poll"});
  CHECK(left_by_itself(server));
  CHECK(answer_from(place.address()) == answer_of(successor));
  for (Process* process : {&server, &successor}) {
    CAPTURE(process->log(), complaint);
    CHECK(process->logged(complaint) >= 1);
    CHECK(process->logged("ignored") >= 1);
  }
}

}  // namespace

// ---- Options ----------------------------------------------------------------------

TEST_CASE("a value that cannot be read is named, with what is expected, in one line") {
  const std::string duration = "a duration such as 500ms, 5s, 2m or 1h";
  const std::string signal = "a signal such as TERM, SIGUSR1 or 15, or none";
  const auto bad = GENERATE_COPY(
      BadValue{"CONTINUITY_READY_TIMEOUT", "5", duration},
      BadValue{"CONTINUITY_READY_TIMEOUT", "", duration},
      BadValue{"CONTINUITY_STOP_TIMEOUT", "5 s", duration},
      BadValue{"CONTINUITY_UNCLAIMED", "-1s", duration},
      BadValue{"CONTINUITY_DRAIN_TIMEOUT", "99999999999999999999h", duration},
      BadValue{"CONTINUITY_STOP_SIGNAL", "TREM", signal},
      BadValue{"CONTINUITY_SUCCESS_SIGNAL", "0", signal},
      BadValue{"CONTINUITY_RETIRE_SIGNAL", "65",
               "a signal such as TERM, SIGUSR1 or 15, none, or auto"},
      BadValue{"CONTINUITY_BUSY", "no", "fail or wait"},
      BadValue{"CONTINUITY_READY", "yes", "wait, notify or listen"},
      BadValue{"CONTINUITY_LOG", "verbose", "error, warn, info or debug"},
      BadValue{"CONTINUITY_NAME", "a/b", "a name of at most 64 characters"},
      BadValue{"CONTINUITY_NEW", "2", "0 or 1"}, BadValue{"CONTINUITY_DISABLE", "true", "0 or 1"});
  CAPTURE(bad.variable, bad.value);
  Place place;
  place.environment = {bad.variable + "=" + bad.value};

  Process server = place.start({"poll"});

  REQUIRE(server.log().size() == 1);
  CHECK(contains(server.log().front(), bad.variable + "=" + bad.value + " is not " + bad.expected));
  Process successor = place.restart({"poll"});  // by the default
  CHECK(answer_from(place.address()) == answer_of(successor));
}

TEST_CASE("a relative rendezvous directory is not accepted") {
  Place place;
  place.environment = {"CONTINUITY_DIR=some/where"};
  Process server = place.spawn_listening({"poll"});

  server.await_log("CONTINUITY_DIR=some/where is not an absolute path; the default is used");
}

// ---- The rendezvous directory -------------------------------------------------------

TEST_CASE("without a usable rendezvous directory a server runs as if nothing were loaded") {
  Place place;
  const auto use = [&](const std::string& path) {
    place.environment = {"CONTINUITY_DIR=" + path};
    return path;
  };
  const std::string path = place.directory / "base";

  SECTION("missing") {
    use(path);
    runs_as_if_not_loaded(place, path + " does not exist");
  }
  SECTION("a file") {
    write_file(use(path), "not a directory");
    runs_as_if_not_loaded(place, path + " is not a directory");
  }
  SECTION("a symbolic link") {
    fs::create_directory(place.directory / "target");
    fs::create_directory_symlink(place.directory / "target", use(path));
    runs_as_if_not_loaded(place, path + " is a symbolic link");
  }
  SECTION("written by everybody") {
    fs::create_directory(use(path));
    fs::permissions(path, fs::perms::all);
    runs_as_if_not_loaded(place, path + " may be written by everybody");
  }
  SECTION("our own below it is open to others") {
    const std::string own = make_own_directory(place);
    fs::permissions(own, fs::perms::all);
    runs_as_if_not_loaded(place, own + " has mode 777, must be 700");
  }
  SECTION("our own below it is a symbolic link") {
    fs::create_directory(place.directory / "target");
    const std::string own = place.rendezvous() + "/" + std::to_string(::geteuid());
    fs::create_directory_symlink(place.directory / "target", own);
    runs_as_if_not_loaded(place, own);
  }
  SECTION("our own below it is somebody else's") {
    const std::string own = make_own_directory(place);
    if (::chown(own.c_str(), 65534, 65534) != 0) {
      WARN("needs root");
      return;
    }
    runs_as_if_not_loaded(place, own + " belongs to user 65534, not to us");
  }
}

TEST_CASE("with a rendezvous directory on a file system without room a server runs on") {
  // A file system of its own, mounted where nobody else sees it.
  const auto [options, complaint] = GENERATE(
      table<std::string, std::string>({{"ro", "cannot be made (Read-only file system)"},
                                       {"nr_inodes=1", "cannot be made (No space left on device)"},
                                       {"nr_inodes=2", "No space left on device"}}));
  Place place;
  const std::string script = "mount -t tmpfs -o " + options +
                             " none \"$CONTINUITY_DIR\" && exec env LD_PRELOAD=" CONTINUITY_LIBRARY
                             " " TINY_SERVER " poll " +
                             place.address();
  Process server =
      Process::start({"unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script},
                     {"CONTINUITY_DIR=" + place.rendezvous()});
  try {
    server.next_line();
  } catch (const std::runtime_error&) {
    WARN("skipped: this user may not mount");
    return;
  }

  CHECK(answer_from(place.address()) == answer_of(server));
  CAPTURE(server.log());
  CHECK(server.log().size() == 1);
  CHECK(server.logged(complaint) == 1);
}

// ---- Who else is there ----------------------------------------------------------------

TEST_CASE("the socket of a dead server is removed, and said so") {
  const Place place;
  Process dead = place.start({"poll"});
  dead.signal(SIGKILL);
  dead.wait_exit();
  const auto stale = files_below(place.rendezvous());
  REQUIRE(stale.size() == 1);

  Process server = place.start({"poll"});

  CHECK(server.logged(fs::path(stale.front()).filename().string() +
                      ": nobody listens there any more; removed") == 1);
  CHECK_FALSE(fs::exists(stale.front()));
  CHECK(files_below(place.rendezvous()).size() == 1);
}

TEST_CASE("somebody who says nothing at the rendezvous is named and ignored") {
  Place place;
  const Pretender pretender(place, [](int) {});
  restarts_beside(place, "does not answer");
}

TEST_CASE("somebody who talks nonsense at the rendezvous is named and ignored") {
  Place place;
  const Pretender pretender(place, [](int connection) {
    send_bytes(connection, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
  });
  restarts_beside(place, "answered something else");
}

TEST_CASE("somebody who hangs up at the rendezvous is named and ignored") {
  Place place;
  const Pretender pretender(place, [](int connection) { ::shutdown(connection, SHUT_RDWR); });
  restarts_beside(place, "ignored");
}

TEST_CASE("somebody who speaks another protocol at the rendezvous is named and ignored") {
  Place place;
  const Pretender pretender(place, [](int connection) {
    Message no{.type = MessageType::abort, .code = EPROTONOSUPPORT};
    no.protocol_min = no.protocol_max = protocol_version + 1;
    send_message(connection, no);
  });
  restarts_beside(place, "speaks protocol 2 to 2, we speak 1");
}

TEST_CASE("an inventory of another protocol is ignored") {
  Place place;
  const Pretender pretender(place, [](int connection) {
    Message inventory{.type = MessageType::inventory};
    inventory.protocol_min = inventory.protocol_max = protocol_version + 1;
    inventory.identity = "tiny-server";
    send_message(connection, inventory);
  });
  restarts_beside(place, "ignored");
}

TEST_CASE("a socket at the rendezvous that belongs to another user is named and ignored") {
  if (needs_root()) {
    return;
  }
  Place place;
  const SocketAddress address(make_own_directory(place) + "/tiny-server.00000000000000ff.sock");
  const int listener = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  REQUIRE(::bind(listener, address.get(), address.length) == 0);
  // Who listened is who the kernel says the peer is (SO_PEERCRED).
  REQUIRE(::seteuid(65534) == 0);
  const int listening = ::listen(listener, 16);
  REQUIRE(::seteuid(0) == 0);
  REQUIRE(listening == 0);

  restarts_beside(place, "belongs to user 65534");
  ::close(listener);
}

TEST_CASE("a server is not shaken by nonsense at its own door") {
  const Place place;
  Process server = place.start({"poll"});
  const auto doors = files_below(place.rendezvous());
  REQUIRE(doors.size() == 1);
  Process successor;
  {
    Connection silent(doors.front(), SOCK_SEQPACKET);
    Connection noisy(doors.front(), SOCK_SEQPACKET);
    noisy.send("GET / HTTP/1.1\r\n\r\n");
    server.await_log("said something that is not ours");
    CHECK(answer_from(place.address()) == answer_of(server));
    successor = place.restart({"poll"});
    CHECK(answer_from(place.address()) == answer_of(successor));
  }
  CHECK(left_by_itself(server));
}

}  // namespace continuity::test
