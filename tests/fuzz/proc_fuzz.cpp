// What is read from the kernel: the lines of /proc, in parts of any size, links, and
// the answers of NETLINK_SOCK_DIAG. Names of programs and of UNIX sockets in there are
// chosen by other users.
#include "core/descriptors.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"
#include "core/wake.hpp"
#include "fuzz.hpp"
#include "unit/fake_sys.hpp"

#include <algorithm>

namespace continuity::fuzz {
namespace {

// A kernel in which every file has the same content.
class Kernel : public test::FakeSys<1> {
 public:
  Kernel(std::string_view content, std::size_t part) : content_(content), part_(part) {
    hooks.openat = [this](int, const char*, int flags, mode_t) {
      listed_ = listed_ && (flags & O_DIRECTORY) == 0;
      return open();
    };
    hooks.socket = [this](int, int, int) { return open(); };
    hooks.close = [](int) { return 0; };
    hooks.sendmsg = [](int, const msghdr*, int) { return ssize_t{0}; };
    hooks.fstatat = [](int, const char*, struct stat* status, int) {
      *status = {};
      return 0;
    };
    hooks.read = [this](int, void* buffer, std::size_t room) { return read(buffer, room); };
    hooks.recvmsg = [this](int, msghdr* message, int) {
      return read(message->msg_iov->iov_base, message->msg_iov->iov_len);
    };
    hooks.readlinkat = [this](int, const char*, char* buffer, std::size_t room) {
      const std::size_t size = std::min(room, content_.size());
      std::copy_n(content_.data(), size, buffer);
      return static_cast<ssize_t>(size);
    };
    hooks.getdents = [this](int, void* buffer, std::size_t) { return list(buffer); };
  }

 private:
  static constexpr int first_number = 100'000;
  int open() {
    at_ = 0;
    return first_number;
  }
  ssize_t read(void* buffer, std::size_t room) {
    const std::size_t size = std::min({room, part_, content_.size() - at_});
    std::copy_n(content_.data() + at_, size, static_cast<char*>(buffer));
    at_ += size;
    return static_cast<ssize_t>(size);
  }
  // One process, or one descriptor: 7.
  ssize_t list(void* buffer) { return std::exchange(listed_, true) ? 0 : put_entry(buffer, "7"); }

  std::string_view content_;
  std::size_t part_;
  std::size_t at_ = 0;
  bool listed_ = false;
};

void check_lines(std::string_view text) {
  for_each_line(text, [](std::string_view line) {
    for (const auto& found : {parse_tcp_line(line), parse_unix_line(line)}) {
      if (found) {
        require(found->local.is_supported(), "what holds a connection has an address");
        static_cast<void>(to_string(found->local));
        static_cast<void>(to_string(found->peer));
      }
    }
  });
  static_cast<void>(parse_parent(text));
  static_cast<void>(parse_ending(text));
  static_cast<void>(parse_stopped(text));
  static_cast<void>(parse_remains(text));
}

void check_processes(Kernel& kernel) {
  const int self = 7;
  const Processes processes(kernel, 0);
  static_cast<void>(processes.start_time(self));
  require(processes.names_of(self).size() <= 2, "a program has two names at most");
  static_cast<void>(processes.is_below(self, {1}));
  static_cast<void>(processes.topmost(self));
  static_cast<void>(processes.parents());
  static_cast<void>(processes.file_at(0x1000));
  static_cast<void>(processes.has_mapped(self, "/libcontinuity.so"));
  const std::array addresses{*parse_address("127.0.0.1:80"), *parse_address("[::]:80"),
                             *parse_address("unix:/x")};
  const auto held = processes.find_connections_of(self, addresses);
  require(held.count <= 1, "one descriptor holds one connection");
  static_cast<void>(to_string(held.peer));
}

void check_epolls(Kernel& kernel) {
  const std::array<std::uint64_t, 2> wanted{7, 0x1a2b};
  std::vector<Registration> found;
  if (Descriptors(kernel, 0).find_in_epoll(5, wanted, found)) {
    for (const Registration& one : found) {
      require(one.inode == wanted[0] || one.inode == wanted[1], "only what is wanted is found");
      require(one.epoll == 5, "it is found where it was looked for");
    }
  }
}

}  // namespace

void run(Bytes input) {
  if (input.empty()) {
    return;
  }
  const auto part = std::to_integer<std::size_t>(input.front()) * 16 + 1;
  const std::string_view text = as_text(input.subspan(1));
  Kernel kernel(text, part);
  check_lines(text);
  check_processes(kernel);
  check_epolls(kernel);
  static_cast<void>(find_call(kernel, 0, 7));
  static_cast<void>(is_pending(kernel, 0, 7, SIGTERM));
}

}  // namespace continuity::fuzz
