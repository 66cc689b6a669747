// One connection of a client. Every step has a deadline and says what it tells
// of the server.
#pragma once

#include "answer.hpp"
#include "fd.hpp"
#include "outcome.hpp"
#include "target.hpp"

#include <cstdint>
#include <string_view>

namespace continuity::load {

// Where a client's connections come from. A connection that we end first
// occupies its local port for a minute (TIME_WAIT), and ports of one address
// run out in seconds. Towards 127.0.0.0/8, every address of that network is
// ours: each client uses 65,536 of them in turn.
class Sources {
 public:
  explicit Sources(unsigned client) : net_(127U << 24U | (client % 254 + 1) << 16U) {}
  std::uint32_t next() { return net_ | (used_++ & 0xffffU); }

 private:
  std::uint32_t net_;
  std::uint32_t used_ = 1;
};

class Connection {
 public:
  Verdict connect(const Endpoint& endpoint, Sources& sources, Deadline deadline);
  [[nodiscard]] Verdict send(std::string_view bytes, Deadline deadline) const;
  // Until the answer is decided or the peer has closed.
  [[nodiscard]] Verdict receive(Answer& answer, Deadline deadline) const;
  // Between two requests: ok, closed_idle, or what else the peer did unasked.
  [[nodiscard]] Verdict look_at_idle() const;
  // Waits that long, less if the peer closes. Whether it has.
  [[nodiscard]] bool peer_closes_within(Clock::duration time) const;
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  [[nodiscard]] Verdict bind_source(const Endpoint& endpoint, Sources& sources) const;
  [[nodiscard]] Verdict connect_inet(const Endpoint& endpoint, Deadline deadline) const;
  [[nodiscard]] Verdict connect_unix(const Endpoint& endpoint, Deadline deadline) const;

  Fd fd_;
};

}  // namespace continuity::load
