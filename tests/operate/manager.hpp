// A service manager, as far as a service can tell: the socket of sd_notify(3), and the rules
// by which systemd (v252) believes what is said there.
#pragma once

#include "support/temp_dir.hpp"

#include <string>
#include <sys/types.h>
#include <vector>

namespace continuity::test {

class NotifySocket {
 public:
  NotifySocket();
  ~NotifySocket();
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  [[nodiscard]] std::string variable() const { return "NOTIFY_SOCKET=" + path_; }
  // Only this process is heard, as with NotifyAccess=main.
  void believe(pid_t main) { main_ = main; }

  // The next message that has a line which begins with `line`; throws if none comes.
  std::string await(const std::string& line);
  // Whether a message so far had such a line.
  bool has_heard(const std::string& line);
  // Descriptors that came with FDSTORE=1, until FDSTOREREMOVE=1; the receiver's.
  [[nodiscard]] const std::vector<int>& stored() const { return stored_; }

 private:
  bool receive(int timeout);

  TempDir directory_{};
  std::string path_;
  int fd_;
  pid_t main_ = 0;
  std::vector<std::string> messages_{};
  std::size_t awaited_ = 0;
  std::vector<int> stored_{};
};

}  // namespace continuity::test
