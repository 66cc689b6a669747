// Whom the clients ask, what they say, and what they want to hear.
#pragma once

#include <string>
#include <string_view>
#include <sys/socket.h>

namespace continuity::load {

struct Endpoint {
  sockaddr_storage address{};
  socklen_t length = 0;

  [[nodiscard]] int family() const { return address.ss_family; }
  [[nodiscard]] const sockaddr* get() const;
  [[nodiscard]] sockaddr* get();
};

struct Exchange {
  bool is_http = false;
  int status = 200;          // HTTP: of a good answer
  std::string expect;        // otherwise: what a good answer contains; empty: any byte
  std::string request;       // when the connection ends with its answer
  std::string kept_request;  // when another may follow
};

struct Target {
  Endpoint endpoint;
  Exchange exchange;
};

// HOST:PORT, [ADDRESS]:PORT, the path of a UNIX socket, or @NAME for an
// abstract one. These throw std::invalid_argument, with a sentence.
Endpoint parse_endpoint(const std::string& text);

Exchange http_exchange(const std::string& host, const std::string& path, int status);
Exchange text_exchange(const std::string& send, const std::string& expect);
// http://HOST[:PORT][/PATH]
Target parse_url(std::string_view url, int status);

// C escapes: \r \n \t \0 \\ \xHH.
std::string unescape(std::string_view text);

}  // namespace continuity::load
