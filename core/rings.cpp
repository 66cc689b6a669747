#include "core/rings.hpp"

#include "core/clock.hpp"
#include "core/log.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"

#include <algorithm>
#include <array>
#include <linux/io_uring.h>
#include <sys/stat.h>

namespace continuity {
namespace {

// As the kernel has it since 6.6. In the header of an older one the operation is
// padding, which has to be zero there.
struct SyncCancel {
  std::uint64_t address = 0;
  std::int32_t fd = -1;
  std::uint32_t flags = 0;
  std::int64_t seconds = -1;
  std::int64_t nanoseconds = -1;
  std::uint8_t operation = 0;
  std::array<std::uint8_t, 31> padding{};
};
static_assert(sizeof(SyncCancel) == 64);
constexpr std::uint32_t by_operation = 1U << 5;  // IORING_ASYNC_CANCEL_OP

// Whether or not it does at the moment of a look: who asks for one connection at a time
// may be at work. Where something else waits for each listener, nothing else shows that.
bool may_accept(const RingInfo& info, const Rings::Listeners& listeners) {
  const auto& all = listeners.all;
  return info.accepts + info.queued_accepts > 0 || (!all.empty() && !listeners.called_for) ||
         std::any_of(info.sockets.begin(), info.sockets.end(), [&](const FixedSocket& one) {
           return one.inode == 0 || std::find(all.begin(), all.end(), one.inode) != all.end();
         });
}

}  // namespace

RingInfo Rings::look_once(int ring) const {
  return parse_ring_info(read_proc(*sys_, proc_, compose("thread-self/fdinfo/{}", ring)));
}

RingInfo Rings::look(int ring) const {
  constexpr int most_looks = 50;
  constexpr int looks_in_doubt = 3;
  constexpr Nanoseconds between = 100 * microsecond;
  RingInfo info;
  for (int look = 1; look <= most_looks; ++look) {
    info = look_once(ring);
    if (info.complete && (!info.doubtful || look >= looks_in_doubt)) {
      break;
    }
    pause_for(*sys_, between);
  }
  return info;
}

int RingIssuer::call(int /*ring*/, unsigned /*operation*/, void* /*argument*/, unsigned /*count*/) {
  errno = EEXIST;
  return -1;
}

int Rings::control(int ring, unsigned operation, void* argument, By& by,
                   std::uint64_t only_for) const {
  by = By::us;
  const int result = sys_->io_uring_register(ring, operation, argument, 1);
  // A program that waits for nothing in it need not be interrupted.
  if (result >= 0 || errno != EEXIST || issuer_ == nullptr ||
      (only_for != 0 && (look(ring).waiting & only_for) == 0)) {
    return result;
  }
  by = By::issuer;
  return issuer_->call(ring, operation, argument, 1);
}

bool Rings::waits_for_work(int ring, bool datagrams) const {
  return look_once(ring).waits_for_work(datagrams);
}

// The number of what is cancelled, or a negative errno. With the operation nothing else
// that waits on the file is touched (polls are); before 6.6 all that does has to go: but
// not answers that are being sent.
int Rings::cancel(int ring, int fd, std::uint8_t operation, By& by) const {
  SyncCancel request;
  request.fd = sys_->number(fd);
  request.flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL | by_operation;
  request.operation = operation;
  const std::uint64_t bit = std::uint64_t{1} << operation;
  int ended = control(ring, IORING_REGISTER_SYNC_CANCEL, &request, by, bit);
  if (ended < 0 && errno == EINVAL && operation == IORING_OP_ACCEPT) {
    request.flags &= ~by_operation;
    request.operation = 0;
    ended = control(ring, IORING_REGISTER_SYNC_CANCEL, &request, by, bit);
  }
  if (ended >= 0 || errno == ENOENT) {
    return std::max(ended, 0);
  }
  return -errno;
}

// Whoever uses it may be off its processor meanwhile, for as long as a busy machine likes.
RingInfo Rings::look_patiently(int ring) const {
  constexpr Nanoseconds longest = 300 * millisecond;
  const Nanoseconds deadline = after(*sys_, longest);
  RingInfo info = look(ring);
  while (!info.complete && now(*sys_) < deadline) {
    info = look(ring);
  }
  return info;
}

// Who asks for one connection at a time has just been given one, perhaps.
RingInfo Rings::look_for_accepts(int ring) const {
  constexpr int most_looks = 10;
  constexpr Nanoseconds between = 200 * microsecond;
  RingInfo info = look(ring);
  for (int i = 1; info.complete && info.accepts + info.queued_accepts == 0 && i < most_looks; ++i) {
    pause_for(*sys_, between);
    info = look(ring);
  }
  return info;
}

// A ring tells what it allows when it is asked to cancel what cannot be there: nothing
// waits on the open /proc, which is ours alone.
const char* Rings::why_not(int ring, const Listeners& listeners) const {
  By by = By::us;
  const Rings control(*sys_, proc_);  // whose thread it obeys is asked below
  int refusal = -control.cancel(ring, proc_, IORING_OP_ACCEPT, by);
  // One that has not been started yet has nothing that waits.
  if (refusal == EBADFD) {
    return nullptr;
  }
  // Also of a ring that accepts nothing now: it may by the time.
  if (refusal == EEXIST && issuer_ != nullptr && issuer_->reach(ring)) {
    refusal = 0;
  }
  RingInfo info = look_patiently(ring);
  if (info.complete && (refusal > 0 || info.has_kernel_thread)) {
    info = look_for_accepts(ring);
  }
  if (!info.complete) {
    return "it is in use all the time, so that what it waits for cannot be seen";
  }
  if (info.has_kernel_thread && may_accept(info, listeners)) {
    return "a thread of the kernel's looks for what is asked of it (IORING_SETUP_SQPOLL), and it "
           "may accept, or receive";
  }
  if (!info.waits_for_work(listeners.datagrams)) {
    return nullptr;
  }
  const bool receives = listeners.datagrams && info.receives > 0;
  if (refusal == 0 && receives && control.cancel(ring, proc_, IORING_OP_RECV, by) == -EINVAL) {
    return "this kernel cannot cancel what it receives, and nothing else (Linux 6.6 can)";
  }
  switch (refusal) {
    case 0:
      break;
    case EEXIST:
      return "it obeys one thread of the program only (IORING_SETUP_SINGLE_ISSUER), and that "
             "cannot be reached";
    case EINVAL:
      return "this kernel cannot cancel what it waits for (Linux 6.0 can)";
    case EACCES:
      return "the program has restricted it (IORING_REGISTER_RESTRICTIONS)";
    default:
      return error_text(refusal);
  }
  const bool unnamed = std::any_of(info.sockets.begin(), info.sockets.end(),
                                   [](const FixedSocket& one) { return one.inode == 0; });
  return unnamed ? "this kernel does not tell which sockets are its fixed files (Linux 6.14 does)"
                 : nullptr;
}

Rings::Ended Rings::end_accepts(std::span<const int> rings, std::span<const int> fds) const {
  constexpr std::array<std::uint8_t, 1> accepting{IORING_OP_ACCEPT};
  return end(rings, fds, accepting);
}

Rings::Ended Rings::end_receives(std::span<const int> rings, std::span<const int> fds) const {
  return end(rings, fds, receiving_operations);
}

// `any`: something has been cancelled, and there is to be another look.
Rings::Ended Rings::end_once(int ring, int fd, std::span<const std::uint8_t> operations,
                             bool& any) const {
  Ended ended = Ended::none;
  for (const std::uint8_t operation : operations) {
    By by = By::us;
    const int count = cancel(ring, fd, operation, by);
    if (count < 0 && (look(ring).waiting >> operation & 1) != 0) {
      return Ended::refused;
    }
    // The thread that would accept was in our handler: it was not accepting.
    any = any || (count > 0 && by == By::us);
    ended = count > 0 ? Ended::some : ended;
  }
  return ended;
}

// What has been cancelled accepts no more, even where the program has not seen it yet.
// But it may have been accepting at that moment, and until it is gone it may be the one
// that is woken for a connection: it is waited for, shortly.
Rings::Ended Rings::end(std::span<const int> rings, std::span<const int> fds,
                        std::span<const std::uint8_t> operations) const {
  constexpr Nanoseconds longest = 20 * millisecond;
  constexpr Nanoseconds between = 50 * microsecond;
  Ended ended = Ended::none;
  for (const Nanoseconds deadline = after(*sys_, longest); now(*sys_) < deadline;) {
    bool any = false;
    for (const int ring : rings) {
      for (const int fd : fds) {
        const Ended here = end_once(ring, fd, operations, any);
        if (here == Ended::refused) {
          return here;
        }
        ended = here == Ended::some ? here : ended;
      }
    }
    if (!any) {
      break;
    }
    pause_for(*sys_, between);
  }
  return ended;
}

bool Rings::put(int ring, unsigned slot, int fd) const {
  const std::int32_t number = sys_->number(fd);
  io_uring_files_update update{};
  update.offset = slot;
  update.fds = reinterpret_cast<std::uintptr_t>(&number);
  By by = By::us;
  return control(ring, IORING_REGISTER_FILES_UPDATE, &update, by, 0) == 1;
}

// "7f7978ffc000-7f7978ffd000 rw-s 10000000 00:10 1432126      anon_inode:[io_uring]"
std::uint64_t parse_ring_mapping(std::string_view line) {
  if (!line.ends_with(ring_name)) {
    return 0;
  }
  for (int i = 0; i < 4; ++i) {  // addresses, rights, offset, device
    take_word(line);
  }
  std::uint64_t inode = 0;
  return read_number(take_word(line), inode, 10) ? inode : 0;
}

bool Rings::any_closed(std::span<const int> rings) const {
  std::vector<std::uint64_t> open;
  for (const int ring : rings) {
    struct stat status {};
    if (sys_->fstat(ring, &status) == 0) {
      open.push_back(status.st_ino);
    }
  }
  bool closed = false;
  for_each_line(read_proc(*sys_, proc_, "thread-self/maps"), [&](std::string_view line) {
    const std::uint64_t inode = parse_ring_mapping(line);
    closed = closed || (inode != 0 && std::find(open.begin(), open.end(), inode) == open.end());
  });
  return closed;
}

}  // namespace continuity
