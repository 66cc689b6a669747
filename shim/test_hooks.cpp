#include "shim/test_hooks.hpp"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace continuity::shim {
namespace {

Sys g_unfaulted;
std::atomic<long> g_calls_left{-1};
int g_errno = 0;

// What never fails for want of descriptors or memory, and what gives them back.
constexpr bool may_fail(std::string_view name) {
  return name != "close" && name != "clock_gettime" && name != "getpid" && name != "geteuid" &&
         name != "number" && name != "futex" && name != "kill" && name != "tgkill" &&
         name != "gettid" && name != "ppoll";
}

bool fails_now() {
  if (g_calls_left.load() < 0 || g_calls_left.fetch_sub(1) != 0) {
    return false;
  }
  errno = g_errno;
  return true;
}

#define SYS_CALL(result, name, parameters, arguments) \
  result faulty_##name parameters {                   \
    if (may_fail(#name) && fails_now()) {             \
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
  char* end = nullptr;
  const long count = std::strtol(wanted, &end, 10);
  g_errno = *end == ':' ? static_cast<int>(std::strtol(end + 1, nullptr, 10)) : EMFILE;
  g_calls_left.store(count - 1);
  g_unfaulted = sys;
  return Sys{
#define SYS_CALL(result, name, parameters, arguments) .name = faulty_##name,
#include "core/sys_calls.def"
#undef SYS_CALL
  };
}

}  // namespace continuity::shim
