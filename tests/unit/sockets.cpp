#include "sockets.hpp"

#include "core/log.hpp"

#include <algorithm>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <sys/un.h>
#include <unistd.h>

namespace continuity::test {
namespace {

void require(bool condition, const char* what) {
  if (!condition) {
    throw std::runtime_error(std::string(what) + ": " + error_text(errno));
  }
}

}  // namespace

TempDirectory::TempDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "continuity-unit-XXXXXX").string();
  require(::mkdtemp(name.data()) != nullptr, "mkdtemp");
  path_ = name;
}

TempDirectory::~TempDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> TempDirectory::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path_)) {
    names.push_back(std::filesystem::relative(entry.path(), path_).string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

OwnedFd own(int fd) {
  require(fd >= 0, "a descriptor");
  return {libc_sys(), fd};
}

OwnedFd open_directory(const TempDirectory& directory) {
  return own(::open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

OwnedFd open_proc() {
  return own(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

OwnedFd copy_of(int fd) {
  return own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

Address address(std::string_view text) {
  const auto parsed = parse_address(text);
  if (!parsed) {
    throw std::runtime_error("not an address: " + std::string(text));
  }
  return *parsed;
}

Address name_of(int fd) {
  Address name;
  name.length = sizeof name.storage;
  require(::getsockname(fd, name.get(), &name.length) == 0, "getsockname");
  return name;
}

OwnedFd listen_at(std::string_view text, int flags, int type) {
  const Address where = address(text);
  OwnedFd fd = own(::socket(where.family(), type | SOCK_CLOEXEC | flags, 0));
  require(::bind(fd.get(), where.get(), where.length) == 0, "bind");
  require(::listen(fd.get(), 64) == 0, "listen");
  return fd;
}

bool listen_in_group(const OwnedFd& fd, const Address& where) {
  const int on = 1;
  return ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
         ::bind(fd.get(), where.get(), where.length) == 0 && ::listen(fd.get(), 8) == 0;
}

OwnedFd connect_to(const Address& where, int type) {
  OwnedFd fd = own(::socket(where.family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::connect(fd.get(), where.get(), where.length) == 0) {
    return fd;
  }
  pollfd entry{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  const timespec timeout = to_timespec(second);
  if (errno != EINPROGRESS || ::ppoll(&entry, 1, &timeout, nullptr) <= 0 ||
      (entry.revents & (POLLERR | POLLHUP)) != 0) {
    fd.reset();
  }
  return fd;
}

Listener described(int fd) {
  auto listener = describe_socket(libc_sys(), fd);
  require(listener.has_value(), "describe a socket");
  return *listener;
}

bool has_ipv6() {
  const Address loopback = address("[::1]:0");
  const OwnedFd fd(libc_sys(), ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return fd.is_open() && ::bind(fd.get(), loopback.get(), loopback.length) == 0;
}

bool same_socket(int one, int other) {
  const std::uint64_t inode = socket_inode(libc_sys(), one);
  return inode != 0 && inode == socket_inode(libc_sys(), other);
}

bool becomes_readable(int fd, Nanoseconds longest) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  const timespec timeout = to_timespec(longest);
  return ::ppoll(&entry, 1, &timeout, nullptr) > 0;
}

OwnedFd make_epoll() {
  return own(::epoll_create1(EPOLL_CLOEXEC));
}

void watch(int epoll, int fd, std::uint32_t events, std::uint64_t data) {
  epoll_event event{.events = events, .data = {.u64 = data}};
  require(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

std::vector<std::string> registrations_of(int epoll) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(epoll));
  std::vector<std::string> lines;
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("tfd:", 0) == 0) {
      lines.push_back(line);
    }
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::vector<int> open_descriptors() {
  std::vector<int> numbers;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    numbers.push_back(std::stoi(entry.path().filename().string()));
  }
  // One was the listing's own.
  std::erase_if(numbers, [](int number) { return ::fcntl(number, F_GETFD) < 0; });
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace continuity::test
