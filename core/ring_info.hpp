// What the kernel tells of an io_uring in /proc/PID/fdinfo: what it waits for, and
// which sockets are in its table of fixed files, where no descriptor shows them.
#pragma once

#include <array>
#include <cstdint>
#include <linux/io_uring.h>
#include <string_view>
#include <vector>

namespace continuity {

// What takes what has come to a socket, a datagram perhaps.
constexpr std::uint8_t read_multishot = 49;  // IORING_OP_READ_MULTISHOT, Linux 6.7
inline constexpr std::array<std::uint8_t, 6> receiving_operations{
    IORING_OP_READV, IORING_OP_READ_FIXED, IORING_OP_RECVMSG,
    IORING_OP_READ,  IORING_OP_RECV,       read_multishot};

// A socket in the table of fixed files ("direct descriptors").
struct FixedSocket {
  unsigned slot;
  std::uint64_t inode;  // 0: the kernel does not say which (before 6.14)
};

struct RingInfo {
  // The ring was not in use at that moment, which would hide all that follows.
  bool complete = false;
  // The table has room, and nothing in it is shown: it is empty, or was in use (6.1).
  bool doubtful = false;
  // A thread of the kernel's looks for what is asked (IORING_SETUP_SQPOLL).
  bool has_kernel_thread = false;
  unsigned accepts = 0;         // that wait for a connection
  unsigned queued_accepts = 0;  // the program has asked, and the kernel has not seen it yet
  unsigned receives = 0;        // and reads, that wait for something to come
  std::uint64_t waiting = 0;    // operations of either kind that wait, a bit for each
  std::vector<FixedSocket> sockets;

  // For connections, or for datagrams as well.
  [[nodiscard]] bool waits_for_work(bool datagrams) const {
    return accepts > 0 || (datagrams && receives > 0);
  }
};

RingInfo parse_ring_info(std::string_view text);

}  // namespace continuity
