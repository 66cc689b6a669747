#include "core/notice.hpp"

namespace continuity {

Notice read_notice(std::string_view text) {
  Notice notice;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    notice.is_ready |= line == "READY=1";
    notice.of_service |= line == "READY=1" || line == "STOPPING=1" || line == "RELOADING=1" ||
                         line.starts_with("MAINPID=");
  }
  return notice;
}

}  // namespace continuity
