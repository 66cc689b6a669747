// What a rehearsal says, line by line, into a file that `continuity check` has made: words and
// numbers, which the command knows the names of. Written in one piece; the last line shows
// that nothing is missing.
#include "shim/rehearsal.hpp"

#include "core/socket_options.hpp"
#include "shim/hiding.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"

#include <fcntl.h>
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

}  // namespace

void end_rehearsal(Process& process) noexcept {
  const Sys& sys = real_sys();
  try {
    const std::string text = describe(process);
    const OwnedFd file(sys, sys.openat(AT_FDCWD, process.options.rehearsal.c_str(),
                                       O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0));
    if (!file.is_open() || sys.write(file.get(), text.data(), text.size()) < 0) {
      process.log.error("CONTINUITY_REHEARSAL: {}: {}", process.options.rehearsal,
                        error_text(errno));
    }
    process.log.info("this was a rehearsal; this program ends, and nothing has changed");
    abandon_hiding(process);
  } catch (...) {  // no memory: the command sees that there is no end
  }
  ::_exit(0);
}

}  // namespace continuity::shim
