// Which listener a program that binds an address may be given. Each row is
// held against the kernel too: what matches must be what natively conflicts,
// or a program would be given a socket in place of one it could have had.
#include "core/listener.hpp"
#include "fake_sys.hpp"
#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <net/if.h>
#include <netinet/in.h>
#include <optional>
#include <ostream>
#include <unistd.h>
#include <utility>

namespace continuity::test {
namespace {

constexpr int mptcp = 262;  // IPPROTO_MPTCP

struct Kind {
  const char* host;
  bool v6only = false;
  int type = SOCK_STREAM;
  int protocol = 0;
  const char* device = "";

  [[nodiscard]] Address at(std::uint16_t port) const {
    return address(std::string(host) + ":" + std::to_string(port));
  }
};

// A socket of this kind, not yet bound; closed where the kernel has none.
OwnedFd make(const Kind& kind) {
  const int family = kind.at(0).family();
  OwnedFd fd(libc_sys(), ::socket(family, kind.type | SOCK_CLOEXEC, kind.protocol));
  const int v6only = kind.v6only ? 1 : 0;
  if (family == AF_INET6) {
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
  }
  if (*kind.device != '\0' && ::setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, kind.device,
                                           static_cast<socklen_t>(std::strlen(kind.device))) != 0) {
    fd.reset();
  }
  return fd;
}

struct Row {
  Kind held;
  Kind wanted;
  bool match;
  bool conflict;
};

std::ostream& operator<<(std::ostream& out, const Row& row) {
  for (const Kind& kind : {row.held, row.wanted}) {
    out << kind.host << (kind.v6only ? " v6only" : "") << " type " << kind.type << " protocol "
        << kind.protocol << " " << kind.device << "; ";
  }
  return out;
}

constexpr Kind v4{"127.0.0.1"};
constexpr Kind v4_all{"0.0.0.0"};
constexpr Kind v6{"[::1]"};
constexpr Kind v6_only{"[::1]", true};
constexpr Kind both{"[::]"};
constexpr Kind v6_all{"[::]", true};
constexpr Kind mapped{"[::ffff:127.0.0.1]"};
constexpr Kind mapped_all{"[::ffff:0.0.0.0]"};
constexpr Kind v4_multipath{"127.0.0.1", false, SOCK_STREAM, mptcp};
constexpr Kind v4_datagram{"127.0.0.1", false, SOCK_DGRAM};
constexpr Kind v4_on_lo{"127.0.0.1", false, SOCK_STREAM, 0, "lo"};
constexpr Kind v4_all_on_lo{"0.0.0.0", false, SOCK_STREAM, 0, "lo"};

constexpr std::array rows{
    Row{v4, v4, true, true},
    Row{v4, Kind{"127.0.0.2"}, false, false},
    Row{v4, v4_all, false, true},
    Row{v4_all, v4, false, true},
    Row{v4_all, v4_all, true, true},
    Row{v4, v6, false, false},
    Row{v6, v4, false, false},
    Row{v6, v6, true, true},
    Row{v6, v6_only, true, true},
    Row{v6_only, v6, true, true},
    Row{v6, both, false, true},
    Row{both, v6, false, true},
    Row{both, both, true, true},
    Row{v6_all, v6_all, true, true},
    Row{both, v6_all, false, true},
    Row{v6_all, both, false, true},
    Row{both, v4_all, false, true},
    Row{v4_all, both, false, true},
    Row{v6_all, v4_all, false, false},
    Row{v4_all, v6_all, false, false},
    Row{both, v4, false, true},
    Row{mapped, v4, true, true},
    Row{v4, mapped, true, true},
    Row{mapped, mapped, true, true},
    Row{mapped, v6, false, false},
    Row{mapped_all, v4_all, true, true},
    Row{v4_all, mapped_all, true, true},
    Row{mapped_all, mapped_all, true, true},
    Row{mapped_all, both, false, true},
    Row{both, mapped_all, false, true},
    Row{v4, v4_datagram, false, false},
    Row{v4, v4_multipath, false, true},
    Row{v4_multipath, v4, false, true},
    Row{v4_multipath, v4_multipath, true, true},
    Row{v4_on_lo, v4_on_lo, true, true},
    Row{v4, v4_on_lo, false, true},
    Row{v4_on_lo, v4, false, true},
    Row{v4_all_on_lo, v4_all, false, true},
    Row{v4_all, v4_all_on_lo, false, true},
    Row{v4_all_on_lo, v4_all_on_lo, true, true},
};

}  // namespace

TEST_CASE("what matches is the same socket address, and natively conflicts", "[matching]") {
  for (const Row& row : rows) {
    CAPTURE(row);
    constexpr int attempts = 10;
    bool done = false;
    for (int attempt = 0; attempt < attempts && !done; ++attempt) {
      OwnedFd held = make(row.held);
      const OwnedFd wanted = make(row.wanted);
      const Address any = row.held.at(0);
      if (!held.is_open() || !wanted.is_open() || ::bind(held.get(), any.get(), any.length) != 0) {
        WARN("not on this machine: " << row);
        done = true;
        break;
      }
      REQUIRE(::listen(held.get(), 1) == 0);
      const Address same = row.wanted.at(name_of(held.get()).port());
      const auto in_use = [&] {
        return ::bind(wanted.get(), same.get(), same.length) != 0 && errno == EADDRINUSE;
      };

      const auto asked = describe_socket(libc_sys(), wanted.get(), &same);
      REQUIRE(asked.has_value());
      const bool match = matches(described(held.get()), *asked);
      const bool conflict = in_use();
      held.reset();
      if (conflict && in_use()) {
        continue;  // with another process, too, that has the port at the other address
      }

      CHECK(match == row.match);
      CHECK(conflict == row.conflict);
      CHECK((conflict || !match));
      done = true;
    }
    CHECK(done);
  }
}

namespace {

struct Pair {
  OwnedFd held;
  OwnedFd wanted;
  std::uint16_t port;
  Overlap predicted;
};

// Nothing, if there are no such sockets on this machine.
std::optional<Pair> listen_beside(const Row& row) {
  constexpr int attempts = 10;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    OwnedFd held = make(row.held);
    OwnedFd wanted = make(row.wanted);
    if (!held.is_open() || !wanted.is_open()) {
      return {};
    }
    REQUIRE(listen_in_group(held, row.held.at(0)));  // first, as a predecessor does
    const std::uint16_t port = name_of(held.get()).port();
    const Address same = row.wanted.at(port);
    const auto asked = describe_socket(libc_sys(), wanted.get(), &same);
    REQUIRE(asked.has_value());
    const Overlap predicted = overlap(described(held.get()), *asked);
    if (listen_in_group(wanted, same)) {
      return Pair{std::move(held), std::move(wanted), port, predicted};
    }
    REQUIRE(errno == EADDRINUSE);  // another process has the port at the other address
  }
  FAIL("of " << attempts << " ports none is free at both addresses: " << row);
  return {};
}

// Whom a connection to this address comes to: 'h'eld, 'w'anted, or nobody, '-'.
char who_gets(const Address& to, const OwnedFd& held, const OwnedFd& wanted) {
  const OwnedFd client = own(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(client.get(), to.get(), to.length) != 0) {
    return '-';
  }
  return becomes_readable(held.get(), 50 * millisecond) ? 'h'
         : becomes_readable(wanted.get())               ? 'w'
                                                        : '-';
}

}  // namespace

TEST_CASE("which of two overlapping listeners a connection comes to is what the kernel does",
          "[matching]") {
  if (!has_ipv6()) {
    WARN("skipped: no IPv6 on this machine");
    return;
  }
  for (const Row& row : rows) {
    if (!row.conflict || row.match || row.held.protocol == mptcp || row.wanted.protocol == mptcp ||
        *row.held.device != *row.wanted.device) {
      continue;  // of those the library does nothing
    }
    CAPTURE(row);
    const std::optional<Pair> pair = listen_beside(row);
    if (!pair) {
      WARN("not on this machine: " << row);
      continue;
    }

    // An address that both are reached at.
    std::string seen;
    for (const char* host : {"127.0.0.1", "[::1]"}) {
      const Address to = address(std::string(host) + ":" + std::to_string(pair->port));
      const auto reaches = [&](const Kind& kind) {
        const Address own = without_mapping(kind.at(pair->port));
        const bool any = own.is_wildcard();
        return own.family() == to.family() ? any || same_endpoint(own, to)
                                           : any && own.family() == AF_INET6 && !kind.v6only;
      };
      if (reaches(row.held) && reaches(row.wanted)) {
        seen += who_gets(to, pair->held, pair->wanted);
      }
    }
    CHECK(seen == (pair->predicted == Overlap::held_first ? "h" : "w"));
    CHECK(pair->predicted != Overlap::none);
  }
}

TEST_CASE("what matches, or shares no peer, does not overlap", "[matching]") {
  for (const Row& row : rows) {
    CAPTURE(row);
    const OwnedFd held = make(row.held);
    const OwnedFd wanted = make(row.wanted);
    if (!held.is_open() || !wanted.is_open()) {
      continue;
    }
    constexpr std::uint16_t port = 80;
    const Address at = row.held.at(port);
    const Address to = row.wanted.at(port);
    const auto one = describe_socket(libc_sys(), held.get(), &at);
    const auto other = describe_socket(libc_sys(), wanted.get(), &to);
    if (row.match || !row.conflict) {
      CHECK(overlap(*one, *other) == Overlap::none);
    }
  }
}

TEST_CASE("a mapped address on a V6ONLY socket is left to the kernel, which refuses it",
          "[matching]") {
  const OwnedFd held = listen_at("127.0.0.1:0");
  const OwnedFd wanted = make({"[::ffff:127.0.0.1]", true});
  if (!wanted.is_open()) {
    WARN("skipped: no IPv6 on this machine");
    return;
  }
  const Address same = mapped.at(name_of(held.get()).port());
  REQUIRE(::bind(wanted.get(), same.get(), same.length) != 0);
  REQUIRE(errno == EINVAL);

  const auto asked = describe_socket(libc_sys(), wanted.get(), &same);

  CHECK_FALSE(matches(described(held.get()), *asked));
}

TEST_CASE("port 0 matches nothing, not even itself", "[matching]") {
  Listener listener;
  listener.type = SOCK_STREAM;
  listener.address = address("127.0.0.1:0");
  CHECK_FALSE(matches(listener, listener));
  listener.address = address("127.0.0.1:1");
  CHECK(matches(listener, listener));
}

TEST_CASE("another port, network namespace or scope does not match", "[matching]") {
  Listener held;
  held.type = SOCK_STREAM;
  held.protocol = IPPROTO_TCP;
  held.address = address("127.0.0.1:80");
  held.net_namespace = 7;
  Listener wanted = held;
  REQUIRE(matches(held, wanted));

  wanted.address = address("127.0.0.1:81");
  CHECK_FALSE(matches(held, wanted));
  wanted = held;
  wanted.net_namespace = 8;
  CHECK_FALSE(matches(held, wanted));
  wanted = held;
  wanted.type = SOCK_SEQPACKET;
  CHECK_FALSE(matches(held, wanted));

  const auto scoped = [](unsigned scope) {
    sockaddr_in6 v6_address{};
    v6_address.sin6_family = AF_INET6;
    v6_address.sin6_port = 80;
    v6_address.sin6_addr.s6_addr[0] = 0xfe;
    v6_address.sin6_addr.s6_addr[1] = 0x80;
    v6_address.sin6_scope_id = scope;
    return Address(reinterpret_cast<const sockaddr*>(&v6_address), sizeof v6_address);
  };
  held.address = scoped(2);
  wanted = held;
  CHECK(matches(held, wanted));
  wanted.address = scoped(3);
  CHECK_FALSE(matches(held, wanted));
}

TEST_CASE("a UNIX listener matches by its file, whatever the path is called", "[matching]") {
  const TempDirectory directory;
  const std::string path = directory.path() + "/s";
  const OwnedFd fd = listen_at("unix:" + path);
  Listener held = described(fd.get());
  held.file = *find_socket_file(libc_sys(), path);

  std::filesystem::create_symlink("s", directory.path() + "/link");
  Listener wanted = held;
  wanted.address = address("unix:" + directory.path() + "/link");
  wanted.file = *find_socket_file(libc_sys(), directory.path() + "/link");
  CHECK(matches(held, wanted));

  // The same name again, but another socket: the predecessor's is gone.
  std::filesystem::rename(path, path + ".old");
  const OwnedFd other = listen_at("unix:" + path);
  wanted = held;
  wanted.file = *find_socket_file(libc_sys(), path);
  CHECK_FALSE(matches(held, wanted));

  wanted = held;
  wanted.file = {};
  CHECK_FALSE(matches(held, wanted));
  held.file = {};
  CHECK_FALSE(matches(held, wanted));
}

TEST_CASE("abstract names match by name and kind, and natively conflict", "[matching]") {
  const std::string name = "unix:@continuity-unit-" + std::to_string(::getpid());
  const OwnedFd fd = listen_at(name);
  const Listener held = described(fd.get());
  Listener wanted = held;
  CHECK(matches(held, wanted));
  const Address same = address(name);
  const OwnedFd rival = own(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK(::bind(rival.get(), same.get(), same.length) != 0);
  CHECK(errno == EADDRINUSE);

  wanted.address = address(name + "x");
  CHECK_FALSE(matches(held, wanted));
  wanted = held;
  wanted.type = SOCK_SEQPACKET;
  CHECK_FALSE(matches(held, wanted));
  wanted = held;
  wanted.address = address("127.0.0.1:80");
  CHECK_FALSE(matches(held, wanted));
  // NOLINTNEXTLINE(readability-suspicious-call-argument): the other way round
  CHECK_FALSE(matches(wanted, held));
}

TEST_CASE("the abstract name of no characters matches itself, and no path", "[matching]") {
  Listener held;
  held.type = SOCK_STREAM;
  held.address = address("unix:@");
  Listener wanted = held;
  CHECK(matches(held, wanted));
  CHECK(match_hash(held) == match_hash(wanted));
  wanted.address = address("unix:/a");
  CHECK_FALSE(matches(held, wanted));
}

TEST_CASE("an address is free as long as nobody is there, and no longer", "[matching]") {
  const auto* const at = GENERATE("127.0.0.1:0", "[::1]:0", "unix:@continuity-unit-free");
  if (std::string_view(at) == "[::1]:0" && !has_ipv6()) {
    return;
  }
  OwnedFd fd = listen_at(at);
  const int on = 1;  // as servers have it
  REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  const Listener listener = described(fd.get());
  CHECK_FALSE(is_free(libc_sys(), listener));
  const OwnedFd client = connect_to(listener.address);
  const OwnedFd accepted = own(::accept4(fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
  fd.reset();  // and a connection is left
  CHECK(is_free(libc_sys(), listener));
  CHECK(is_free(libc_sys(), listener));  // asking leaves nothing behind
}

TEST_CASE("a datagram address is not free, whoever may share it", "[matching]") {
  const OwnedFd fd = own(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const Address any = address("127.0.0.1:0");
  const int on = 1;
  REQUIRE(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  REQUIRE(::bind(fd.get(), any.get(), any.length) == 0);
  CHECK_FALSE(is_free(libc_sys(), described(fd.get())));
}

TEST_CASE("a socket is described as the kernel tells it", "[matching]") {
  const OwnedFd fd = listen_at("127.0.0.1:0");
  const Listener listener = described(fd.get());
  CHECK(listener.type == SOCK_STREAM);
  CHECK(listener.protocol == IPPROTO_TCP);
  CHECK(listener.address.port() != 0);
  CHECK(listener.bound_device.empty());
  CHECK_FALSE(listener.v6only);
  const OwnedFd second_one = listen_at("127.0.0.1:0");
  CHECK(described(second_one.get()).net_namespace == listener.net_namespace);
}

TEST_CASE("what is no socket is not described", "[matching]") {
  const OwnedFd file = own(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto described_file = describe_socket(libc_sys(), file.get());
  REQUIRE_FALSE(described_file.has_value());
  CHECK(code_of(described_file) == ENOTSOCK);
  CHECK(code_of(describe_socket(libc_sys(), -1)) == EBADF);
  CHECK_FALSE(is_listening(libc_sys(), file.get()));
  CHECK(socket_inode(libc_sys(), file.get()) == 0);
  CHECK(socket_inode(libc_sys(), -1) == 0);
}

TEST_CASE("only a socket after listen is listening", "[matching]") {
  const OwnedFd fd = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  CHECK_FALSE(is_listening(libc_sys(), fd.get()));
  const OwnedFd listener = listen_at("127.0.0.1:0");
  CHECK(is_listening(libc_sys(), listener.get()));
  const OwnedFd client = connect_to(name_of(listener.get()));
  CHECK_FALSE(is_listening(libc_sys(), client.get()));
}

TEST_CASE("copies of a socket share its inode number, other sockets do not", "[matching]") {
  const OwnedFd one = listen_at("127.0.0.1:0");
  const OwnedFd copy = own(::fcntl(one.get(), F_DUPFD_CLOEXEC, 0));
  const OwnedFd other = listen_at("127.0.0.1:0");
  CHECK(socket_inode(libc_sys(), one.get()) == socket_inode(libc_sys(), copy.get()));
  CHECK(socket_inode(libc_sys(), one.get()) != socket_inode(libc_sys(), other.get()));
}

TEST_CASE("a socket file is found by a relative path and told as an absolute one", "[matching]") {
  const TempDirectory directory;
  const OwnedFd fd = listen_at("unix:" + directory.path() + "/s");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  const auto file = find_socket_file(libc_sys(), "s");
  std::filesystem::current_path(before);

  REQUIRE(file.has_value());
  CHECK(file->path == std::filesystem::canonical(directory.path()).string() + "/s");
  CHECK(file->inode == find_socket_file(libc_sys(), directory.path() + "/s")->inode);
}

TEST_CASE("a socket file deeper than a message can tell is known by device and inode",
          "[matching]") {
  const TempDirectory directory;
  const OwnedFd fd = listen_at("unix:" + directory.path() + "/s");
  FakeSys<0> sys;
  sys.hooks.readlinkat = [](int, const char*, char* buffer, std::size_t size) {
    std::memset(buffer, 'd', size);
    return static_cast<ssize_t>(size);
  };
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  const auto file = find_socket_file(sys, "s");
  std::filesystem::current_path(before);
  REQUIRE(file.has_value());
  CHECK(file->path.empty());
  CHECK(file->inode != 0);
}

TEST_CASE("a path that is missing, empty or no socket is no socket file", "[matching]") {
  const TempDirectory directory;
  std::ofstream(directory.path() + "/file") << "x";
  CHECK_FALSE(find_socket_file(libc_sys(), "").has_value());
  CHECK_FALSE(find_socket_file(libc_sys(), directory.path() + "/none").has_value());
  CHECK_FALSE(find_socket_file(libc_sys(), directory.path() + "/file").has_value());
  CHECK_FALSE(find_socket_file(libc_sys(), directory.path()).has_value());
}

TEST_CASE("a kernel without the namespace cookie is no reason not to match", "[matching]") {
  FakeSys<0> sys;
  sys.hooks.getsockopt = [](int fd, int level, int name, void* value, socklen_t* length) {
    if (level == SOL_SOCKET && name == 71) {  // SO_NETNS_COOKIE
      errno = ENOPROTOOPT;
      return -1;
    }
    return ::getsockopt(fd, level, name, value, length);
  };
  const OwnedFd fd = listen_at("127.0.0.1:0");
  const auto listener = describe_socket(sys, fd.get());
  REQUIRE(listener.has_value());
  CHECK(listener->net_namespace == 0);
  CHECK(matches(*listener, *listener));
}

}  // namespace continuity::test
