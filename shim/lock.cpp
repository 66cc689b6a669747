#include "shim/lock.hpp"

#include "shim/real_calls.hpp"

#include <cerrno>
#include <linux/futex.h>
#include <sys/syscall.h>

namespace continuity::shim {

void Lock::wait() noexcept {
  const int saved = errno;
  while (word_.exchange(is_waited_for) != is_free) {
    real().syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, is_waited_for, nullptr);
  }
  errno = saved;
}

void Lock::wake() noexcept {
  const int saved = errno;
  real().syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1);
  errno = saved;
}

}  // namespace continuity::shim
