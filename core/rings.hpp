// io_uring: what a program has asked of a ring goes on whatever is under its
// descriptor numbers afterwards, for a ring holds the file.
//
// An accept that waits is cancelled by the file it waits on; the program sees
// ECANCELED, and what it asks for then finds what has the number by then, or the slot
// in the ring's table of fixed files. All of this is done past the program's memory.
#pragma once

#include "core/result.hpp"
#include "core/ring_info.hpp"
#include "core/sys.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace continuity {

// A ring may obey one thread only (IORING_SETUP_SINGLE_ISSUER): who can have that thread
// make a call.
class RingIssuer {
 public:
  RingIssuer() = default;
  RingIssuer(const RingIssuer&) = delete;
  RingIssuer& operator=(const RingIssuer&) = delete;
  virtual ~RingIssuer() = default;

  // Finds the thread of such a ring. False: it cannot be reached.
  virtual bool reach(int /*ring*/) { return false; }
  // io_uring_register by the thread that was found. It is interrupted by it.
  virtual int call(int ring, unsigned operation, void* argument, unsigned count);
};

class Rings {
 public:
  // `proc` is an open /proc.
  Rings(const Sys& sys, int proc, RingIssuer* issuer = nullptr)
      : sys_(&sys), proc_(proc), issuer_(issuer) {}

  // What the kernel tells of this ring of the program's. It tells nothing while the ring
  // is in use, so it may take several looks.
  [[nodiscard]] RingInfo look(int ring) const;

  // Whether it waits for connections, or for datagrams as well, just now, at one look; false
  // where it cannot be told.
  [[nodiscard]] bool waits_for_work(int ring, bool datagrams) const;

  // What a ring may accept from, by inode.
  struct Listeners {
    std::span<const std::uint64_t> all;
    bool called_for;  // the program waits for each of them by calls, or by an epoll
    bool datagrams;   // among those for which it does not there are datagram sockets
  };
  // Why accepts that wait in this ring, and receives, could not be ended; null: they can,
  // or there are none. Nothing is changed.
  [[nodiscard]] const char* why_not(int ring, const Listeners& listeners) const;

  // Ends all accepts that wait in one of these rings on a file that is under one of `fds`.
  enum class Ended { none, some, refused };
  [[nodiscard]] Ended end_accepts(std::span<const int> rings, std::span<const int> fds) const;
  // The same of receives and reads.
  [[nodiscard]] Ended end_receives(std::span<const int> rings, std::span<const int> fds) const;

  // Puts what is under `fd` into the ring's table of fixed files.
  [[nodiscard]] bool put(int ring, unsigned slot, int fd) const;

  // Rings that the program has mapped, and no descriptor of: nobody can ask them
  // anything. `rings` are those with descriptors.
  [[nodiscard]] bool any_closed(std::span<const int> rings) const;

 private:
  [[nodiscard]] RingInfo look_once(int ring) const;
  [[nodiscard]] RingInfo look_patiently(int ring) const;
  [[nodiscard]] RingInfo look_for_accepts(int ring) const;
  // Whose thread has made the call.
  enum class By { us, issuer };
  // `only_for`: where none of these operations waits, its thread is left alone; 0: never.
  int control(int ring, unsigned operation, void* argument, By& by, std::uint64_t only_for) const;
  [[nodiscard]] int cancel(int ring, int fd, std::uint8_t operation, By& by) const;
  [[nodiscard]] Ended end_once(int ring, int fd, std::span<const std::uint8_t> operations,
                               bool& any) const;
  [[nodiscard]] Ended end(std::span<const int> rings, std::span<const int> fds,
                          std::span<const std::uint8_t> operations) const;

  const Sys* sys_;
  int proc_;
  RingIssuer* issuer_;
};

// The inode in a line of /proc/PID/maps that is of a ring; 0 for any other.
std::uint64_t parse_ring_mapping(std::string_view line);

}  // namespace continuity
