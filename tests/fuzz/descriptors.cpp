#include "descriptors.hpp"

#include <cstring>
#include <fcntl.h>
#include <sys/eventfd.h>

namespace continuity::fuzz {
namespace {

std::vector<int> make() {
  const auto keep = [](int fd) {
    require(fd >= 0, "a descriptor can be made");
    return fd;
  };
  const auto copy = [&](const OwnedFd& fd) { return keep(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); };
  std::vector<int> fds{copy(test::listen_at("127.0.0.1:0", SOCK_NONBLOCK)),
                       copy(test::listen_at("127.0.0.1:0", SOCK_NONBLOCK)),
                       keep(::open("/dev/null", O_RDONLY | O_CLOEXEC)),
                       keep(::open("/", O_PATH | O_CLOEXEC)),
                       keep(::eventfd(0, EFD_CLOEXEC)),
                       copy(test::make_epoll()),
                       keep(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
                       keep(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)),
                       keep(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0))};
  // Of the same address, and not listening.
  fds.push_back(copy(test::connect_to(test::name_of(fds.at(0)))));
  return fds;
}

}  // namespace

Descriptors::Descriptors() {
  static const std::vector<int> fds = make();
  fds_ = fds;
}

bool send_with(int socket, std::string_view bytes, std::span<const int> fds) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(most_descriptors * sizeof(int))> control{};
  iovec body{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  msghdr packet{};
  packet.msg_iov = &body;
  packet.msg_iovlen = 1;
  if (!fds.empty()) {
    packet.msg_control = control.data();
    packet.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&packet);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  return ::sendmsg(socket, &packet, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

}  // namespace continuity::fuzz
