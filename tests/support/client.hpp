// Single connections of a test, blocking, with a deadline on every step; for
// load there is load_driver.hpp.
#pragma once

#include <string>
#include <sys/socket.h>
#include <sys/un.h>

namespace continuity::test {

// 127.0.0.1:PORT, [::1]:PORT, /path or @abstract.
struct SocketAddress {
  explicit SocketAddress(const std::string& text);
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }

  sockaddr_storage storage{};
  socklen_t length = 0;
};

class Connection {
 public:
  // A connection that cannot be made has the reason as its answers.
  explicit Connection(const std::string& address, int type = SOCK_STREAM);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends a line; the line that comes back, "closed", or an errno's name.
  std::string ask(const std::string& line);
  void send(const std::string& text) const;
  std::string receive_line();

 private:
  int fd_;
  std::string problem_;
  std::string partial_;
};

// The answer to one line on a connection of its own.
std::string answer_from(const std::string& address, const std::string& line = "hello");

// A port that was free for TCP and UDP and that, as long as this lives, nobody gets
// who does not ask for it by number: bound, with SO_REUSEADDR, and not listening.
class ReservedPort {
 public:
  explicit ReservedPort(int family = AF_INET);
  ~ReservedPort();
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;

  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] int number() const { return number_; }

 private:
  int fd_;
  int number_ = 0;
  std::string address_;
};

}  // namespace continuity::test
