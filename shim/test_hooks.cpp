#include "shim/test_hooks.hpp"

#include "core/clock.hpp"
#include "shim/real_calls.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

Sys g_unfaulted;

// ---- Calls that fail ----------------------------------------------------------------

std::atomic<long> g_calls_left{-1};
std::atomic<int> g_errno{0};
std::string_view g_missing;      // a call's name
std::atomic<int> g_shortage{0};  // the errno of what there is no more of
std::atomic<Nanoseconds> g_shortage_ends{0};
std::atomic<long> g_shortage_left{0};  // ENOMEM: of so many calls

template <std::size_t N>
bool is_among(std::string_view name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What never fails for want of descriptors or memory, and what gives them back.
bool may_fail(std::string_view name) {
  constexpr std::array<std::string_view, 11> never_fails{
      "close", "clock_gettime", "getpid", "geteuid", "number", "sched_yield",
      "futex", "kill",          "tgkill", "gettid",  "ppoll"};
  return !is_among(name, never_fails);
}

bool is_short(std::string_view name) {
  constexpr std::array<std::string_view, 9> makes_descriptors{
      "accept4",    "epoll_create1", "eventfd",    "memfd_create", "openat",
      "pidfd_open", "socket",        "socketpair", "fcntl"};
  constexpr std::array<std::string_view, 5> makes_files{"bind", "fchmodat", "mkdirat", "renameat",
                                                        "renameat2"};
  if (g_shortage.load() == 0 || now(g_unfaulted) >= g_shortage_ends.load()) {
    return false;
  }
  switch (g_shortage.load()) {
    case EMFILE:
      return is_among(name, makes_descriptors);
    case ENOSPC:
      return is_among(name, makes_files);
    case ENOMEM:
      return may_fail(name) && g_shortage_left.fetch_sub(1) > 0;
    default:
      return false;
  }
}

bool fails_now(std::string_view name) {
  if (is_short(name)) {
    errno = g_shortage.load();
    return true;
  }
  const bool is_missing = name == g_missing;
  if (!is_missing &&
      (!may_fail(name) || g_calls_left.load() < 0 || g_calls_left.fetch_sub(1) != 0)) {
    return false;
  }
  errno = g_errno.load();
  return true;
}

#define SYS_CALL(result, name, parameters, arguments) \
  result faulty_##name parameters {                   \
    if (fails_now(#name)) {                           \
      return static_cast<result>(-1);                 \
    }                                                 \
    return g_unfaulted.name arguments;                \
  }
#include "core/sys_calls.def"
#undef SYS_CALL

// What a kernel has not, though it has the call.
bool is_without(std::string_view feature) {
  return g_missing == feature && (errno = g_errno.load(), true);
}

int featured_ioctl(int fd, unsigned long request, int* value) {
  constexpr unsigned long pidfd_get_info = _IOWR(0xFF, 11, char[64]);
  return request == pidfd_get_info && is_without("pidfd_info") ? -1
                                                               : faulty_ioctl(fd, request, value);
}

int featured_getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  constexpr int so_netns_cookie = 71;
  const bool asks = level == SOL_SOCKET && name == so_netns_cookie;
  return asks && is_without("netns_cookie") ? -1
                                            : faulty_getsockopt(fd, level, name, value, length);
}

int featured_setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  const bool asks = level == SOL_SOCKET && name == SO_ATTACH_FILTER;
  return asks && is_without("socket_filter") ? -1
                                             : faulty_setsockopt(fd, level, name, value, length);
}

int featured_socket(int family, int type, int protocol) {
  return family == AF_NETLINK && is_without("sock_diag") ? -1
                                                         : faulty_socket(family, type, protocol);
}

// 0 for what is none.
int number_at(const char* text) {
  return static_cast<int>(std::strtol(text, nullptr, 10));
}

void read_failures(const char* wanted) {
  const std::string_view text = wanted;
  const std::size_t colon = std::min(text.find(':'), text.size());
  g_errno.store(colon < text.size() ? number_at(wanted + colon + 1) : EMFILE);
  const int count = number_at(wanted);
  g_calls_left.store(count - 1);
  g_missing = count == 0 ? text.substr(0, colon) : std::string_view();
}

// ---- What happens in a conversation ---------------------------------------------------

struct {
  std::string_view when;
  int message = 0;
  std::string_view action;
} g_event;

// What has happened is over for all processes that are forked from this one.
struct Happened {
  std::atomic<bool> has_come{false};  // the message of a swap
  std::atomic<bool> is_over{false};
};
Happened g_happened_here;
Happened* g_happened = &g_happened_here;

constexpr std::size_t header_size = 16;

// The type of a message of ours; 0 for anything else.
int type_of(const msghdr& packet, std::size_t size) {
  if (packet.msg_iovlen != 1 || size < header_size ||
      std::memcmp(packet.msg_iov->iov_base, "CNTY", 4) != 0) {
    return 0;
  }
  std::uint16_t type = 0;
  std::memcpy(&type, static_cast<const char*>(packet.msg_iov->iov_base) + 4, sizeof type);
  return type;
}

bool happens(std::string_view when, int message) {
  if (message == 0 || message != g_event.message) {
    return false;
  }
  if (g_event.when == "swap") {
    g_happened->has_come.store(true);
  }
  return g_event.when == when && !g_happened->is_over.exchange(true);
}

void say_so() {
  std::array<char, 64> line{};
  const auto end = fmt::format_to_n(line.data(), line.size(),
                                    "continuity-test: it happens to pid={}\n", ::getpid());
  static_cast<void>(real().write(STDERR_FILENO, line.data(), end.size));
}

[[noreturn]] void hang() {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  for (;;) {
    ::pause();
  }
}

// True: it was of this kind.
bool act() {
  constexpr long calls_without_memory = 12;
  const std::string_view action = g_event.action;
  say_so();
  if (action == "kill" || action == "stop") {
    ::kill(::getpid(), action == "kill" ? SIGKILL : SIGSTOP);
  } else if (action == "segv") {
    static_cast<void>(::signal(SIGSEGV, SIG_DFL));
    // A fault of its own: blocked as signals are here, one that is sent would wait.
    volatile int* const nothing = nullptr;
    *nothing = 0;  // NOLINT(clang-analyzer-core.NullDereference)
  } else if (action == "exit0" || action == "exit1") {
    ::_exit(action == "exit0" ? 0 : 1);
  } else if (action == "hang") {
    hang();
  } else if (action == "emfile" || action == "enomem" || action == "enospc") {
    g_shortage_left.store(calls_without_memory);
    g_shortage_ends.store(now(g_unfaulted) + second);
    g_shortage.store(action == "emfile" ? EMFILE : action == "enomem" ? ENOMEM : ENOSPC);
  } else {
    return false;
  }
  return true;
}

// Sends something else in its place.
ssize_t send_changed(int fd, const msghdr& message, int flags) {
  const std::string_view action = g_event.action;
  msghdr packet = message;
  iovec body = *message.msg_iov;
  packet.msg_iov = &body;
  static constexpr std::array<char, 100> garbage{"This is not a message."};
  if (action == "garbage") {
    body = {.iov_base = const_cast<char*>(garbage.data()), .iov_len = garbage.size()};
  } else if (action == "truncate") {
    body.iov_len -= std::min<std::size_t>(body.iov_len, 4);
  }
  // Of its descriptors there are as many, but one.
  constexpr std::size_t room = 16;
  std::array<int, room> fds{};
  std::size_t count = 0;
  if (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr) {
    count = std::min((header->cmsg_len - CMSG_LEN(0)) / sizeof(int), room - 1);
    std::memcpy(fds.data(), CMSG_DATA(header), count * sizeof(int));
  }
  const int other = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (action == "more") {
    fds.at(count++) = other;
  } else if (action == "fewer" && count > 0) {
    --count;
  } else if (action == "others") {
    std::fill_n(fds.begin(), count, other);
  }
  alignas(cmsghdr) std::array<char, CMSG_SPACE(room * sizeof(int))> control{};
  packet.msg_control = count == 0 ? nullptr : control.data();
  packet.msg_controllen = count == 0 ? 0 : CMSG_SPACE(count * sizeof(int));
  if (cmsghdr* header = CMSG_FIRSTHDR(&packet); header != nullptr) {
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), count * sizeof(int));
  }
  const ssize_t sent = g_unfaulted.sendmsg(fd, &packet, flags);
  ::close(other);
  return sent < 0 ? sent : static_cast<ssize_t>(message.msg_iov->iov_len);
}

ssize_t staged_sendmsg(int fd, const msghdr* message, int flags) {
  const int type = type_of(*message, message->msg_iovlen == 1 ? message->msg_iov->iov_len : 0);
  if (happens("before", type) && !act()) {
    return send_changed(fd, *message, flags);
  }
  const ssize_t sent = faulty_sendmsg(fd, message, flags);
  if (sent > 0 && happens("after", type)) {
    act();
  }
  return sent;
}

ssize_t staged_recvmsg(int fd, msghdr* message, int flags) {
  const ssize_t received = faulty_recvmsg(fd, message, flags);
  const bool only_asks_for_size = message->msg_iov->iov_len == 0;
  if (received > 0 && !only_asks_for_size &&
      happens("got", type_of(*message, static_cast<std::size_t>(received)))) {
    act();
  }
  return received;
}

int staged_dup3(int from, int to, int flags) {
  if (g_happened->has_come.load() && !g_happened->is_over.exchange(true)) {
    act();
  }
  return faulty_dup3(from, to, flags);
}

void read_event(std::string_view text) {
  const auto word = [&] {
    const std::size_t end = std::min(text.find(':'), text.size());
    const std::string_view found = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return found;
  };
  g_event.when = word();
  g_event.message = number_at(word().data());
  g_event.action = word();
  void* shared =
      ::mmap(nullptr, sizeof(Happened), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared != MAP_FAILED) {
    g_happened = new (shared) Happened;
  }
}

}  // namespace

Sys with_faults(const Sys& sys) {
  const char* failures = std::getenv("CONTINUITY_TEST_FAIL");  // NOLINT(concurrency-mt-unsafe)
  const char* event = std::getenv("CONTINUITY_TEST_AT");       // NOLINT(concurrency-mt-unsafe)
  if (failures == nullptr && event == nullptr) {
    return sys;
  }
  if (failures != nullptr) {
    read_failures(failures);
  }
  if (event != nullptr) {
    read_event(event);
  }
  g_unfaulted = sys;
  Sys faulty{
#define SYS_CALL(result, name, parameters, arguments) .name = faulty_##name,
#include "core/sys_calls.def"
#undef SYS_CALL
  };
  faulty.sendmsg = staged_sendmsg;
  faulty.recvmsg = staged_recvmsg;
  faulty.dup3 = staged_dup3;
  faulty.ioctl = featured_ioctl;
  faulty.getsockopt = featured_getsockopt;
  faulty.setsockopt = featured_setsockopt;
  faulty.socket = featured_socket;
  return faulty;
}

}  // namespace continuity::shim
