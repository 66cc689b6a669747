#include "shim/test_hooks.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace continuity::shim {
namespace {

Sys g_unfaulted;
std::atomic<long> g_calls_left{-1};
int g_errno = 0;
std::string_view g_missing;  // a call's name

// What never fails for want of descriptors or memory, and what gives them back.
constexpr bool may_fail(std::string_view name) {
  return name != "close" && name != "clock_gettime" && name != "getpid" && name != "geteuid" &&
         name != "number" && name != "futex" && name != "kill" && name != "tgkill" &&
         name != "gettid" && name != "ppoll";
}

bool fails_now(std::string_view name) {
  const bool is_missing = name == g_missing;
  if (!is_missing &&
      (!may_fail(name) || g_calls_left.load() < 0 || g_calls_left.fetch_sub(1) != 0)) {
    return false;
  }
  errno = g_errno;
  return true;
}

#define SYS_CALL(result, name, parameters, arguments) \
  result faulty_##name parameters {                   \
    if (fails_now(#name)) {                           \
      return static_cast<result>(-1);                 \
    }                                                 \
    return g_unfaulted.name arguments;                \
  }
#include "core/sys_calls.def"
#undef SYS_CALL

}  // namespace

Sys with_faults(const Sys& sys) {
  const char* wanted = std::getenv("CONTINUITY_TEST_FAIL");  // NOLINT(concurrency-mt-unsafe)
  if (wanted == nullptr) {
    return sys;
  }
  const std::string_view text = wanted;
  const std::size_t colon = std::min(text.find(':'), text.size());
  g_errno = colon < text.size() ? std::atoi(wanted + colon + 1) : EMFILE;
  const int count = std::atoi(wanted);
  g_calls_left.store(count - 1);
  g_missing = count == 0 ? text.substr(0, colon) : std::string_view();
  g_unfaulted = sys;
  return Sys{
#define SYS_CALL(result, name, parameters, arguments) .name = faulty_##name,
#include "core/sys_calls.def"
#undef SYS_CALL
  };
}

}  // namespace continuity::shim
