// What a rehearsal says, line by line, to `continuity check`, which listens at an abstract name:
// words and numbers, which the command knows the names of. The last line shows that nothing is
// missing. A name, since nothing else reaches as far: a worker of another user could not open
// the command's file, nor find one in a chroot, and a descriptor of the command's does not
// outlive a server that closes all it does not know.
#include "shim/rehearsal.hpp"

#include "core/socket_options.hpp"
#include "shim/hiding.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"

#include <algorithm>
#include <cerrno>
#include <sys/socket.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

std::string describe(Process& process) {
  std::string text = compose("ready {}\n", static_cast<int>(process.evidence));
  for (const ClaimedListener& claim : process.claims) {
    const std::string address = to_string(claim.listener.address);
    if (claim.native) {
      text += compose("new {}\n", address);
      continue;
    }
    const int fd = claim.fds.front();
    text += compose("claimed {} {} {}\n", address, queue_limit(real_sys(), fd), claim.backlog);
    for (const OptionChange& change : compare_options(real_sys(), claim.model.get(), fd)) {
      text += compose("option {} {} {} {} {}\n", address, change.level, change.name, change.before,
                      change.after);
    }
  }
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & fd_flag::listening) != 0 && receives_work(real_sys(), fd)) {
      if (const auto listener = describe_socket(real_sys(), fd); listener) {
        text += compose("new {}\n", to_string(listener->address));
      }
    }
  }
  if (process.taker) {
    for (const Listener& listener : process.taker->unclaimed()) {
      text += compose("dropped {}\n", to_string(listener.address));
    }
  }
  return text + "end\n";
}

// Until the command has read all of it: it asks the kernel whose word this is, which must not
// be gone by then. False: errno says why.
bool tell_command(const Sys& sys, const std::string& name, std::string_view text) {
  constexpr timeval patience{.tv_sec = 5, .tv_usec = 0};
  const auto address = parse_address("unix:" + name);
  const OwnedFd socket(sys, sys.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!address || !socket.is_open() ||
      sys.setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
      sys.setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
      sys.connect(socket.get(), address->get(), address->length) != 0) {
    return false;
  }
  while (!text.empty()) {
    iovec body{.iov_base = const_cast<char*>(text.data()),  // NOLINT: sendmsg does not write
               .iov_len = text.size()};
    msghdr message{};
    message.msg_iov = &body;
    message.msg_iovlen = 1;
    const ssize_t size = sys.sendmsg(socket.get(), &message, MSG_NOSIGNAL);
    if (size < 0 && errno != EINTR) {
      return false;
    }
    text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  }
  char end = 0;
  ssize_t size = -1;
  while ((size = sys.read(socket.get(), &end, sizeof end)) < 0 && errno == EINTR) {
  }
  return size == 0;
}

}  // namespace

void tell_of_rehearsal(Process& process) noexcept {
  try {
    if (!tell_command(real_sys(), process.options.rehearsal, describe(process))) {
      process.log.error("CONTINUITY_REHEARSAL: {}: {}", process.options.rehearsal,
                        error_text(errno));
    }
  } catch (...) {  // no memory: the command sees that there is no end
  }
}

void end_rehearsal(Process& process) noexcept {
  process.log.info("this was a rehearsal; this program ends, and nothing has changed");
  abandon_hiding(process);
  ::_exit(0);
}

}  // namespace continuity::shim
