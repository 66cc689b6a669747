// What the program tells systemd (sd_notify) passes by here.
//
// READY=1 is its own word that it is ready: it takes over before that is passed on. A
// program that has handed over is not the service any more: what it says of that goes
// nowhere. With CONTINUITY_READY=notify and no systemd the program is given an address to
// say it to, since most say nothing otherwise; nobody is there.
#include "shim/manager.hpp"

#include "core/address.hpp"
#include "core/notice.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"
#include "shim/waits.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <sys/auxv.h>
#include <sys/un.h>

namespace continuity::shim {
namespace {

constexpr const char* own_address = "@continuity-notify";

// As it was at the start: programs take it out of their environment when they have used it.
constinit sockaddr_un g_manager{};
constinit std::atomic<socklen_t> g_manager_length{0};
constinit std::atomic<bool> g_nobody_there{false};
// Tells a socket from another one that has its number by now.
constinit std::atomic<std::uint64_t> g_notifier_cookie{0};
constinit std::atomic<bool> g_has_said_ready{false};

bool says(const char* variable, const char* value) {
  const char* const text = ::getenv(variable);  // NOLINT(concurrency-mt-unsafe): before main
  return text != nullptr && std::strcmp(text, value) == 0;
}

__attribute__((constructor)) void find_manager() noexcept {
  const ErrnoGuard guard;
  if (::getauxval(AT_SECURE) != 0 || says("CONTINUITY_DISABLE", "1")) {
    return;
  }
  const char* where = ::getenv("NOTIFY_SOCKET");  // NOLINT(concurrency-mt-unsafe)
  if ((where == nullptr || *where == 0) && says("CONTINUITY_READY", "notify")) {
    ::setenv("NOTIFY_SOCKET", own_address, 1);  // NOLINT(concurrency-mt-unsafe)
    where = own_address;
  }
  const std::size_t size = where == nullptr ? 0 : std::strlen(where);
  if (size < 2 || size >= sizeof g_manager.sun_path || (*where != '/' && *where != '@')) {
    return;
  }
  g_manager.sun_family = AF_UNIX;
  std::memcpy(g_manager.sun_path, where, size);
  if (*where == '@') {
    g_manager.sun_path[0] = 0;
  }
  g_nobody_there.store(std::strcmp(where, own_address) == 0);
  g_manager_length.store(static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size));
  g_has_manager.store(true);
}

const sockaddr* manager() {
  return reinterpret_cast<const sockaddr*>(&g_manager);
}

bool is_manager(const sockaddr* address, socklen_t length) {
  const socklen_t known = g_manager_length.load();
  if (known == 0 || address == nullptr || length < known || length > sizeof g_manager ||
      address->sa_family != AF_UNIX) {
    return false;
  }
  // A path may have its zero, and more of them behind it.
  const auto* bytes = reinterpret_cast<const char*>(address);
  return std::memcmp(bytes, &g_manager, known) == 0 &&
         (length == known || (g_manager.sun_path[0] != 0 && bytes[known] == 0));
}

std::uint64_t cookie_of(int fd) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  return real().getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

void note_notifier(int fd) {
  g_notifier_cookie.store(cookie_of(fd));
  g_notifier.store(fd);
}

bool is_notifier(int fd) {
  if (fd < 0 || fd != g_notifier.load()) {
    return false;
  }
  if (cookie_of(fd) == g_notifier_cookie.load()) {
    return true;
  }
  g_notifier.store(-1);
  return false;
}

// True: it goes nowhere, and the program is told that it has been sent.
bool keeps(std::string_view text) noexcept {
  const Notice notice = read_notice(text);
  if (notice.is_ready) {
    g_has_said_ready.store(true);
  }
  if (notice.of_service) {
    try {
      const SlowPath process(Process::existing());
      if (process && process->page != nullptr) {
        if (process->page->stage.load() >= static_cast<std::uint32_t>(Stage::retired)) {
          return true;
        }
        if (notice.is_ready) {
          note_said_ready(*process);
        }
      }
    } catch (...) {  // no memory: its first wait will do, or the next word
    }
  }
  return g_nobody_there.load();
}

}  // namespace

bool has_said_ready() noexcept {
  return g_has_said_ready.load();
}

bool keeps_notice(int fd, const sockaddr* address, socklen_t length, const void* data,
                  std::size_t size) noexcept {
  const ErrnoGuard guard;
  const bool told = address != nullptr ? is_manager(address, length) : is_notifier(fd);
  return told && data != nullptr && keeps({static_cast<const char*>(data), size});
}

ssize_t keeps_notice(int fd, const msghdr* message) noexcept {
  const ErrnoGuard guard;
  const auto* address = static_cast<const sockaddr*>(message->msg_name);
  if (address != nullptr ? !is_manager(address, message->msg_namelen) : !is_notifier(fd)) {
    return -1;
  }
  constexpr std::size_t longest = 4096;
  std::array<char, longest> text;  // NOLINT: filled as far as it is used
  std::size_t used = 0;
  std::size_t size = 0;
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) {
    const iovec& part = message->msg_iov[i];
    const std::size_t some = std::min(part.iov_len, longest - used);
    if (some > 0) {
      std::memcpy(text.data() + used, part.iov_base, some);
    }
    used += some;
    size += part.iov_len;
  }
  return keeps({text.data(), used}) ? static_cast<ssize_t>(size) : -1;
}

// Of nobody's the socket itself is the peer: what passes us by stays in its queue.
int connect_to_manager(int fd, const sockaddr* address, socklen_t length) {
  if (!is_manager(address, length)) {
    return hides() ? connect_shown(fd, address, length) : real().connect(fd, address, length);
  }
  int result = -1;
  if (g_nobody_there.load()) {
    sockaddr_un own{};
    own.sun_family = AF_UNIX;
    auto* name = reinterpret_cast<sockaddr*>(&own);
    socklen_t size = sizeof own.sun_family;
    real().bind(fd, name, size);  // any name
    size = sizeof own;
    result = real().getsockname(fd, name, &size) == 0 ? real().connect(fd, name, size) : -1;
  } else {
    result = real().connect(fd, address, length);
  }
  if (result == 0) {
    const ErrnoGuard guard;
    note_notifier(fd);
  }
  return result;
}

void tell_main_process(pid_t main) noexcept {
  const socklen_t length = g_manager_length.load();
  Process* process = Process::existing();
  if (length == 0 || g_nobody_there.load() || process == nullptr) {
    return;
  }
  try {
    const OwnedFd socket(real_sys(), real_sys().socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const std::string text = compose("MAINPID={}", main);
    if (!socket.is_open() ||
        real().sendto(real_sys().number(socket.get()), text.data(), text.size(),
                      MSG_NOSIGNAL | MSG_DONTWAIT, manager(), length) < 0) {
      process->log.warn("NOTIFY_SOCKET cannot be told of pid {}: {}", main, error_text(errno));
    } else {
      process->log.debug("told NOTIFY_SOCKET that pid {} is the main process", main);
    }
  } catch (...) {
  }
}

}  // namespace continuity::shim
