// Addresses: parsing, printing, and which two are the same.
#include "core/address.hpp"

#include "sockets.hpp"

#include <catch2/catch.hpp>

#include <cstring>
#include <netinet/in.h>
#include <sys/un.h>

namespace continuity::test {
namespace {

Address link_local(unsigned scope) {
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(80);
  v6.sin6_addr.s6_addr[0] = 0xfe;
  v6.sin6_addr.s6_addr[1] = 0x80;
  v6.sin6_addr.s6_addr[15] = 1;
  v6.sin6_scope_id = scope;
  return {reinterpret_cast<const sockaddr*>(&v6), sizeof v6};
}

Address unix_of(std::string_view bytes) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, bytes.data(), bytes.size());
  return {reinterpret_cast<const sockaddr*>(&address),
          static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + bytes.size())};
}

}  // namespace

TEST_CASE("what is printed is parsed to the same address", "[address]") {
  const auto* text = GENERATE("127.0.0.1:80", "0.0.0.0:65535", "1.2.3.4:0", "[::1]:80", "[::]:443",
                              "[2001:db8::7]:1", "[::ffff:1.2.3.4]:80", "unix:/run/a.sock",
                              "unix:relative", "unix:@abstract", "unix:@with space");
  CAPTURE(text);
  const auto parsed = parse_address(text);
  REQUIRE(parsed.has_value());
  CHECK(to_string(*parsed) == text);
  CHECK(parsed->is_supported());
}

TEST_CASE("a link-local address is printed with its scope and parsed back", "[address]") {
  const std::string text = to_string(link_local(2));
  CHECK(text == "[fe80::1%2]:80");
  const auto parsed = parse_address(text);
  REQUIRE(parsed.has_value());
  CHECK(same_endpoint(*parsed, link_local(2)));
}

TEST_CASE("a star is every IPv4 address", "[address]") {
  const Address star = address("*:8080");
  CHECK(star.family() == AF_INET);
  CHECK(star.is_wildcard());
  CHECK(star.port() == 8080);
}

TEST_CASE("text that is no address is refused", "[address]") {
  const auto* text = GENERATE(
      "", ":", "80", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
      "127.0.0.1:+80", "127.0.0.1: 80", "127.0.0.1:80 ", " 127.0.0.1:80", "127.0.0.1:80x",
      "127.0.0.1:99999999999999999999", "1.2.3:80", "1.2.3.4.5:80", "256.0.0.1:80", "localhost:80",
      "::1:80", "[::1]", "[::1]:", "[]:80", "[::1:80", "::1]:80", "[127.0.0.1]:80", "[:::]:80",
      "[fe80::1%]:80", "unix:", "UNIX:/path", "[::1]80", "**:80", "127.0.0.1:80:80");
  CAPTURE(text);
  CHECK_FALSE(parse_address(text).has_value());
}

TEST_CASE("text that goes on behind a zero is no address, but for an abstract name", "[address]") {
  using namespace std::string_view_literals;
  const auto text = GENERATE("127.0.0.1\0x:80"sv, "[::1\0x]:80"sv, "unix:\0x"sv, "unix:/a\0b"sv);
  CHECK_FALSE(parse_address(text).has_value());
  CHECK(parse_address("unix:@a\0b"sv)->abstract_name() == "a\0b"sv);
}

TEST_CASE("a UNIX path as long as the kernel takes is parsed, a longer one is not", "[address]") {
  constexpr std::size_t longest = sizeof(sockaddr_un::sun_path) - 1;
  const std::string path(longest, 'x');
  const auto parsed = parse_address("unix:" + path);
  REQUIRE(parsed.has_value());
  CHECK(parsed->unix_path() == path);
  CHECK_FALSE(parse_address("unix:" + path + "x").has_value());
}

TEST_CASE("a path that fills sun_path to its last byte is read to its end only", "[address]") {
  // The kernel takes 108 bytes without a zero and answers with one more.
  const std::string path(sizeof(sockaddr_un::sun_path), 'x');
  const Address whole = unix_of(path);
  CHECK(whole.is_supported());
  CHECK(whole.unix_path() == path);
  CHECK(same_endpoint(whole, whole));
}

TEST_CASE("an abstract name is what the length says, zeros and all", "[address]") {
  const Address name = unix_of(std::string_view("\0a\0b", 4));
  CHECK(name.unix_path().empty());
  CHECK(name.abstract_name() == std::string_view("a\0b", 3));
  CHECK(same_endpoint(name, unix_of(std::string_view("\0a\0b", 4))));
  CHECK_FALSE(same_endpoint(name, unix_of(std::string_view("\0a\0c", 4))));
  CHECK_FALSE(same_endpoint(name, unix_of(std::string_view("\0a", 2))));
  CHECK_FALSE(same_endpoint(name, unix_of(std::string_view("\0a\0b\0", 5))));
  CHECK_FALSE(same_endpoint(unix_of(std::string_view("\0a", 2)), unix_of("a")));
}

TEST_CASE("the abstract name of no characters is not an unnamed socket", "[address]") {
  Address unnamed;
  unnamed.storage.ss_family = AF_UNIX;
  unnamed.length = sizeof(sa_family_t);
  const Address empty = unix_of(std::string_view("\0", 1));
  CHECK_FALSE(same_endpoint(empty, unnamed));
  CHECK(empty.is_abstract());
  CHECK_FALSE(unnamed.is_abstract());
  CHECK_FALSE(unix_of("a").is_abstract());
  CHECK(to_string(empty) == "unix:@");
  CHECK(same_endpoint(*parse_address("unix:@"), empty));
}

TEST_CASE("an unnamed UNIX socket, a short address and a strange family are not supported",
          "[address]") {
  Address unnamed;
  unnamed.storage.ss_family = AF_UNIX;
  unnamed.length = sizeof(sa_family_t);
  CHECK_FALSE(unnamed.is_supported());
  CHECK(unnamed.unix_path().empty());
  CHECK(unnamed.abstract_name().empty());

  Address v4 = address("127.0.0.1:80");
  v4.length = sizeof(sockaddr_in) - 1;
  CHECK_FALSE(v4.is_supported());

  Address v6 = address("[::1]:80");
  v6.length = offsetof(sockaddr_in6, sin6_scope_id);  // RFC 2133
  CHECK(v6.is_supported());
  --v6.length;
  CHECK_FALSE(v6.is_supported());

  Address strange;
  strange.storage.ss_family = AF_PACKET;
  strange.length = sizeof strange.storage;
  CHECK_FALSE(strange.is_supported());
  CHECK_FALSE(same_endpoint(strange, strange));
  CHECK(to_string(strange) == "an address of family " + std::to_string(AF_PACKET));
  CHECK_FALSE(Address{}.is_supported());
}

TEST_CASE("an address longer than any is cut, not written past its end", "[address]") {
  std::array<char, 2 * sizeof(sockaddr_storage)> bytes{};
  bytes.fill('x');
  alignas(sockaddr_storage) std::array<char, sizeof bytes> copy = bytes;
  const Address cut(reinterpret_cast<const sockaddr*>(copy.data()), sizeof copy);
  CHECK(cut.length == sizeof(sockaddr_storage));
}

TEST_CASE("an IPv4-mapped address is the IPv4 address", "[address]") {
  const Address mapped = address("[::ffff:127.0.0.1]:80");
  CHECK(to_string(without_mapping(mapped)) == "127.0.0.1:80");
  CHECK(same_endpoint(mapped, address("127.0.0.1:80")));
  CHECK(same_endpoint(address("127.0.0.1:80"), mapped));
  CHECK_FALSE(same_endpoint(mapped, address("127.0.0.1:81")));
  CHECK_FALSE(same_endpoint(mapped, address("127.0.0.2:80")));
  CHECK(to_string(without_mapping(address("[::1]:80"))) == "[::1]:80");
  CHECK(to_string(without_mapping(address("127.0.0.1:80"))) == "127.0.0.1:80");
}

TEST_CASE("addresses that differ in family, host or port are not the same", "[address]") {
  const std::array<Address, 7> all{
      address("127.0.0.1:80"), address("127.0.0.1:81"), address("0.0.0.0:80"), address("[::1]:80"),
      address("[::]:80"),      address("unix:/a"),      address("unix:@/a")};
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = 0; j < all.size(); ++j) {
      CAPTURE(to_string(all.at(i)), to_string(all.at(j)));
      CHECK(same_endpoint(all.at(i), all.at(j)) == (i == j));
    }
  }
}

TEST_CASE("the scope tells link-local addresses apart, and only them", "[address]") {
  CHECK(same_endpoint(link_local(2), link_local(2)));
  CHECK_FALSE(same_endpoint(link_local(2), link_local(3)));

  Address global = address("[2001:db8::7]:80");
  sockaddr_in6 scoped{};
  std::memcpy(&scoped, &global.storage, sizeof scoped);
  scoped.sin6_scope_id = 3;
  scoped.sin6_flowinfo = 7;
  CHECK(same_endpoint(global, {reinterpret_cast<const sockaddr*>(&scoped), sizeof scoped}));
}

TEST_CASE("bytes behind an address do not matter", "[address]") {
  Address one = address("127.0.0.1:80");
  std::memset(reinterpret_cast<char*>(&one.storage) + offsetof(sockaddr_in, sin_zero), 0x5a, 8);
  CHECK(same_endpoint(one, address("127.0.0.1:80")));

  Address path = unix_of(std::string_view("/a\0garbage", 10));
  CHECK(same_endpoint(path, address("unix:/a")));
}

TEST_CASE("a connection came through the listener of its address or of a wildcard", "[address]") {
  struct Row {
    const char* local;
    const char* listener;
    bool through;
  };
  const auto row = GENERATE(values<Row>({
      {"127.0.0.1:80", "127.0.0.1:80", true},
      {"127.0.0.1:80", "127.0.0.1:81", false},
      {"127.0.0.1:80", "127.0.0.2:80", false},
      {"127.0.0.1:80", "0.0.0.0:80", true},
      {"127.0.0.1:81", "0.0.0.0:80", false},
      {"127.0.0.1:80", "[::]:80", true},
      {"[::ffff:127.0.0.1]:80", "[::]:80", true},
      {"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
      {"[::1]:80", "[::]:80", true},
      {"[::1]:81", "[::]:80", false},
      {"[::1]:80", "0.0.0.0:80", false},
      {"[::1]:80", "[::1]:80", true},
      {"[::ffff:127.0.0.1]:80", "[::ffff:0.0.0.0]:80", true},
      {"[::1]:80", "[::ffff:127.0.0.1]:80", false},
      {"unix:/a", "unix:/a", true},
      {"unix:/a", "unix:/b", false},
      {"unix:@a", "unix:@a", true},
      {"unix:/a", "0.0.0.0:80", false},
      {"127.0.0.1:80", "unix:/a", false},
  }));
  CAPTURE(row.local, row.listener);
  CHECK(came_through(address(row.local), address(row.listener)) == row.through);
  // Among others it is the same.
  const std::vector<Address> listeners{address("127.0.0.9:9"), address(row.listener),
                                       address("unix:/z")};
  CHECK(CameThrough(listeners)(address(row.local)) == row.through);
}

TEST_CASE("only 0.0.0.0 and :: are wildcards", "[address]") {
  CHECK(address("0.0.0.0:1").is_wildcard());
  CHECK(address("[::]:1").is_wildcard());
  CHECK_FALSE(address("127.0.0.1:1").is_wildcard());
  CHECK_FALSE(address("[::1]:1").is_wildcard());
  CHECK_FALSE(address("unix:/a").is_wildcard());
}

TEST_CASE("what the kernel tells of a socket is what was bound", "[address]") {
  const OwnedFd fd = listen_at("127.0.0.1:0");
  const Address name = name_of(fd.get());
  CHECK(name.port() != 0);
  CHECK(to_string(name) == "127.0.0.1:" + std::to_string(name.port()));

  const TempDirectory directory;
  const OwnedFd local = listen_at("unix:" + directory.path() + "/s");
  CHECK(to_string(name_of(local.get())) == "unix:" + directory.path() + "/s");
}

}  // namespace continuity::test
