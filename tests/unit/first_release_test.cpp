// The first release as it talks, byte by byte, against what we have become. Nothing here
// uses our code for messages, and nothing here changes when the protocol does: that is the
// point of it.
#include "conversation.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

namespace continuity::test {
namespace {

namespace first_release {

enum Type : std::uint16_t {
  hello = 1,
  inventory = 2,
  claim = 3,
  grant = 4,
  got = 5,
  ready = 7,
  retired = 8,
  healthy = 9,
};

enum Tag : std::uint16_t {
  protocol_min = 0x8001,
  protocol_max = 0x8002,
  generation = 0x8003,
  identity = 0x8004,
  pid = 0x8005,
  state = 0x8006,
  rival_pid = 0x0007,
  duration = 0x0008,
  total = 0x8009,
  more = 0x800a,
  listener = 0x800b,
  ids = 0x800c,
  last_known = 0x8012,
};

template <typename Number>
std::string bytes_of(Number number) {
  std::string bytes(sizeof number, 0);
  std::memcpy(bytes.data(), &number, sizeof number);  // little-endian, as all our machines
  return bytes;
}

std::string field(std::uint16_t tag, const std::string& value) {
  return bytes_of(tag) + bytes_of(static_cast<std::uint16_t>(value.size())) + value;
}

std::string message(std::uint16_t type, const std::string& fields) {
  static std::uint32_t sequence = 0;
  return "CNTY" + bytes_of(type) + bytes_of(std::uint16_t{0}) +
         bytes_of(static_cast<std::uint32_t>(fields.size())) + bytes_of(++sequence) + fields;
}

struct Heard {
  std::uint16_t type = 0;
  std::multimap<std::uint16_t, std::string> fields{};
  std::vector<OwnedFd> fds{};
};

template <typename Number>
Number number_in(const std::string& bytes, std::size_t at = 0) {
  Number number{};
  REQUIRE(bytes.size() >= at + sizeof number);
  std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

// Goes on only with what it knows: a tag that is critical and new ends the conversation.
Heard read(const std::string& bytes) {
  constexpr std::size_t header = 16;
  constexpr std::uint16_t critical = 0x8000;
  REQUIRE(bytes.size() >= header);
  REQUIRE(bytes.substr(0, 4) == "CNTY");
  REQUIRE(number_in<std::uint32_t>(bytes, 8) == bytes.size() - header);
  Heard heard{.type = number_in<std::uint16_t>(bytes, 4)};
  for (std::size_t at = header; at < bytes.size();) {
    const auto tag = number_in<std::uint16_t>(bytes, at);
    const auto size = number_in<std::uint16_t>(bytes, at + 2);
    REQUIRE(at + 4 + size <= bytes.size());
    CAPTURE(tag);
    REQUIRE(((tag & critical) == 0 || tag <= last_known));
    heard.fields.emplace(tag, bytes.substr(at + 4, size));
    at += std::size_t{4} + size;
  }
  return heard;
}

void send(int fd, const std::string& bytes, const std::vector<int>& fds = {}) {
  std::string body = bytes;
  iovec part{.iov_base = body.data(), .iov_len = body.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(4 * sizeof(int))> control{};
  msghdr packet{};
  packet.msg_iov = &part;
  packet.msg_iovlen = 1;
  if (!fds.empty()) {
    packet.msg_control = control.data();
    packet.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&packet);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  REQUIRE(::sendmsg(fd, &packet, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
}

// Of type 0 if there is none.
Heard receive(int fd) {
  std::string room(65'536, 0);
  iovec part{.iov_base = room.data(), .iov_len = room.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control{};
  msghdr packet{};
  packet.msg_iov = &part;
  packet.msg_iovlen = 1;
  packet.msg_control = control.data();
  packet.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(fd, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (size <= 0) {
    return {};
  }
  Heard heard = read(room.substr(0, static_cast<std::size_t>(size)));
  if (const cmsghdr* header = CMSG_FIRSTHDR(&packet); header != nullptr) {
    for (std::size_t at = 0; at < header->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(header) + at, sizeof number);
      heard.fds.push_back(own(number));
    }
  }
  return heard;
}

sockaddr_un socket_at(const std::string& path) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  REQUIRE(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

std::string meeting_place(const World& world) {
  return world.directory.path() + "/" + std::to_string(::geteuid());
}

std::string greeting() {
  return message(hello, field(protocol_min, bytes_of(std::uint16_t{1})) +
                            field(protocol_max, bytes_of(std::uint16_t{1})) +
                            field(generation, bytes_of(std::uint64_t{4711})) +
                            field(identity, "server") +
                            field(pid, bytes_of(std::int32_t{::getpid()})));
}

}  // namespace first_release

}  // namespace

TEST_CASE("a successor of the first release takes over", "[release]") {
  using namespace first_release;
  World world;
  Predecessor predecessor(world);
  predecessor.owner.live_connections = 1;
  std::string door;
  for (const auto& entry : std::filesystem::directory_iterator(meeting_place(world))) {
    const std::string name = entry.path().filename();
    if (name.starts_with("server.") && name.ends_with(".sock")) {
      door = entry.path();
    }
  }
  const OwnedFd channel = own(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  const sockaddr_un address = socket_at(door);
  REQUIRE(::connect(channel.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
          0);
  const auto hear = [&] {
    world.settle();
    return receive(channel.get());
  };

  first_release::send(channel.get(), greeting());
  const Heard offered = hear();
  REQUIRE(offered.type == inventory);
  REQUIRE(offered.fields.find(protocol_max)->second == bytes_of(std::uint16_t{1}));
  REQUIRE(offered.fields.find(identity)->second == "server");
  REQUIRE(offered.fields.count(listener) == 1);
  const std::string id = offered.fields.find(listener)->second.substr(0, 4);

  first_release::send(channel.get(), message(claim, field(ids, id)));
  const Heard granted = hear();
  REQUIRE(granted.type == grant);
  REQUIRE(granted.fields.find(ids)->second == id);
  REQUIRE(granted.fds.size() == 1);
  CHECK(same_socket(granted.fds[0].get(), predecessor.fd()));

  first_release::send(channel.get(), message(got, ""));
  first_release::send(channel.get(), message(ready, field(ids, id)));
  const Heard done = hear();
  REQUIRE(done.type == retired);
  CHECK(done.fields.find(ids)->second == id);
  CHECK(number_in<std::int64_t>(done.fields.find(duration)->second) == world.options.probation);
  CHECK_FALSE(predecessor.accepts());

  world.pass(world.options.probation + second);
  CHECK(receive(channel.get()).type == healthy);
  CHECK(predecessor.holder.phase() == HolderPhase::draining);
}

TEST_CASE("a predecessor of the first release hands over", "[release]") {
  using namespace first_release;
  World world;
  Rendezvous rendezvous = world.open_rendezvous(world.taker_sys);  // makes the directory
  const OwnedFd listening = listen_at("127.0.0.1:0", SOCK_NONBLOCK);
  const Address name = name_of(listening.get());
  const OwnedFd door = own(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const sockaddr_un address = socket_at(meeting_place(world) + "/server.00000000000012ab.sock");
  REQUIRE(::bind(door.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(door.get(), 64) == 0);

  std::uint64_t net_namespace = 0;
  socklen_t size = sizeof net_namespace;
  ::getsockopt(listening.get(), SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &net_namespace, &size);
  const std::string offer =
      bytes_of(std::uint32_t{1}) + bytes_of(std::int32_t{SOCK_STREAM}) +
      bytes_of(std::int32_t{IPPROTO_TCP}) + std::string(1, 0) + bytes_of(net_namespace) +
      std::string(16, 0) + bytes_of(static_cast<std::uint16_t>(name.length)) +
      std::string(reinterpret_cast<const char*>(&name.storage), name.length) + std::string(4, 0);
  OwnedFd channel;
  std::vector<std::uint16_t> heard_types;
  const auto answer = [&](const Heard& heard) {
    switch (heard.type) {
      case hello:
        first_release::send(
            channel.get(),
            message(inventory,
                    field(protocol_min, bytes_of(std::uint16_t{1})) +
                        field(protocol_max, bytes_of(std::uint16_t{1})) +
                        field(generation, bytes_of(std::uint64_t{0x12ab})) +
                        field(identity, "server") + field(pid, bytes_of(std::int32_t{::getpid()})) +
                        field(total, bytes_of(std::uint32_t{1})) + field(listener, offer)));
        break;
      case claim:
        first_release::send(channel.get(),
                            message(grant, field(total, bytes_of(std::uint32_t{1})) +
                                               field(ids, bytes_of(std::uint32_t{1}))),
                            {listening.get()});
        break;
      case ready:
        CHECK(heard.fields.find(ids)->second == bytes_of(std::uint32_t{1}));
        first_release::send(channel.get(),
                            message(retired, field(ids, bytes_of(std::uint32_t{1})) +
                                                 field(duration, bytes_of(std::int64_t{second}))));
        break;
      default:
        break;
    }
  };
  world.on_wait = [&] {
    if (OwnedFd knocking(libc_sys(), ::accept4(door.get(), nullptr, nullptr, SOCK_CLOEXEC));
        knocking.is_open()) {
      channel = std::move(knocking);
    }
    const Heard heard = channel.is_open() ? receive(channel.get()) : Heard{};
    if (heard.type != 0) {
      heard_types.push_back(heard.type);
      answer(heard);
    }
  };

  Taker taker = world.make_taker(2);
  const OwnedFd fresh = own(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Listener wanted = *describe_socket(libc_sys(), fresh.get(), &name);
  const auto claimed = taker.claim(rendezvous, wanted);
  REQUIRE(claimed.found == Taker::Found::claimed);
  CHECK(same_socket(claimed.fd.get(), listening.get()));
  const auto outcome = taker.become_owner(rendezvous);
  CHECK(outcome.owner);
  CHECK(outcome.probation_ends == Approx(world.time() + second).margin(200.0 * millisecond));
  CHECK(heard_types == std::vector<std::uint16_t>{hello, claim, got, ready});
}

}  // namespace continuity::test
