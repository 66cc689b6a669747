#include "core/ring_info.hpp"

#include "core/proc_text.hpp"

#include <algorithm>
#include <array>

namespace continuity {
namespace {

// Kernels that do not name a socket's inode name its protocol (d_iname in
// io_uring/fdinfo.c, sock_alloc_file in net/socket.c).
bool is_protocol(std::string_view name) {
  static constexpr auto names =
      std::to_array<std::string_view>({"TCP", "TCPv6", "MPTCP", "MPTCPv6", "UNIX", "UNIX-STREAM"});
  return std::find(names.begin(), names.end(), name) != names.end();
}

// "    2: socket:[4711]", "    3: TCP" or "    4: <none>"; false for any other line.
bool note_file(std::string_view line, RingInfo& info) {
  const std::string_view number = take_word(line);
  unsigned slot = 0;
  if (!number.ends_with(':') || !read_number(number.substr(0, number.size() - 1), slot, 10)) {
    return false;
  }
  const std::string_view name = take_word(line);
  const std::uint64_t inode = socket_in_link(name);
  if (inode != 0 || is_protocol(name)) {
    info.sockets.push_back({.slot = slot, .inode = inode});
  }
  return true;
}

// "  op=13, task_works=0"
void note_wait(std::string_view line, RingInfo& info) {
  constexpr std::string_view label = "op=";
  const std::string_view word = take_word(line);
  unsigned operation = 0;
  if (word.starts_with(label) && word.ends_with(',') &&
      read_number(word.substr(label.size(), word.size() - label.size() - 1), operation, 10)) {
    const auto& receiving = receiving_operations;
    const bool receives =
        std::find(receiving.begin(), receiving.end(), operation) != receiving.end();
    const bool accepts = operation == IORING_OP_ACCEPT;
    info.accepts += accepts ? 1U : 0U;
    info.receives += receives ? 1U : 0U;
    info.waiting |= accepts || receives ? std::uint64_t{1} << operation : 0U;
  }
}

}  // namespace

// Headings begin at the edge; what belongs to them is indented.
RingInfo parse_ring_info(std::string_view text) {
  constexpr std::string_view files = "UserFiles:";
  constexpr std::string_view waits = "PollList:";
  constexpr std::string_view requests = "SQEs:";
  RingInfo info;
  std::string_view heading;
  unsigned room = 0;
  bool any_file = false;
  for_each_line(text, [&](std::string_view line) {
    if (line.empty()) {
      return;
    }
    if (line.front() != ' ') {
      heading = take_word(line);
      info.complete = info.complete || heading == waits;
      if (heading == "SqThread:") {
        info.has_kernel_thread = take_word(line) != "-1";
      } else if (heading == files) {
        read_number(take_word(line), room, 10);
      }
    } else if (heading == files) {
      any_file = note_file(line, info) || any_file;
    } else if (heading == requests) {
      // "    0: opcode:ACCEPT, fd:5, flags:0, ..."
      take_word(line);
      info.queued_accepts += take_word(line) == "opcode:ACCEPT," ? 1U : 0U;
    } else if (heading == waits) {
      note_wait(line, info);
    }
  });
  info.doubtful = room > 0 && !any_file;
  return info;
}

}  // namespace continuity
