// bind and listen, and everything the program does to a listener that is not
// its own yet.
//
// Between claim and take-over the inherited listener sits under the program's
// number, but what the program sets goes to the *model*, the socket it bound:
// it answers exactly as the kernel would, and is compared at the take-over.
#include "core/socket_options.hpp"
#include "shim/agent.hpp"
#include "shim/early_waits.hpp"
#include "shim/hiding.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/process.hpp"
#include "shim/real_calls.hpp"
#include "shim/waits.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace continuity::shim {
namespace {

// Only what may be a listener one day. Port 0 is never matched: whoever asks
// for any port does not ask for one that somebody has.
bool may_become_listener(int fd, const Address& address) {
  int type = 0;
  socklen_t size = sizeof type;
  const bool named = address.is_unix() ? address.length > sizeof(sa_family_t) : address.port() != 0;
  return address.is_supported() && named &&
         real().getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
         (type == SOCK_STREAM || type == SOCK_SEQPACKET || type == SOCK_DGRAM);
}

// What a datagram listener is marked with besides.
std::uint8_t kind_of(const Listener& listener) {
  return listener.is_datagram() ? fd_flag::datagram : std::uint8_t{0};
}

bool is_set(int fd, int option) {
  int on = 0;
  socklen_t size = sizeof on;
  return real().getsockopt(fd, SOL_SOCKET, option, &on, &size) == 0 && on != 0;
}

// Sockets of a group share one address: one more may share one of the sockets.
bool joins_group(int fd) {
  return is_set(fd, SO_REUSEPORT);
}

// Whether anybody can hold it: without a file there is no UNIX listener.
bool find_file(Listener& wanted) {
  if (wanted.address.unix_path().empty()) {
    return true;
  }
  const auto file = find_socket_file(real_sys(), wanted.address.unix_path());
  if (file) {
    wanted.file = *file;
  }
  return file.has_value();
}

// A member's own listener, which the leader does not have.
void note_private(const Process& process) {
  if (process.page->main.load() != ::getpid()) {
    process.page->private_listeners.fetch_add(1);
    if (process.agent == nullptr) {
      note_newcomer(real_sys(), *process.page, ::getpid());
    }
  }
}

// What is the same of a claim and of a socket beside the predecessor's.
void note_claimed(Process& process, ClaimedListener claimed) {
  const int fd = claimed.fds.front();
  const auto flags = static_cast<std::uint8_t>(fd_flag::claimed | kind_of(claimed.listener));
  process.claims.push_back(std::move(claimed));
  process.page->claims.fetch_add(1);
  process.page->note_claim(socket_inode(real_sys(), fd));
  note_private(process);
  process.has_bound = true;
  begin_early_waits(process);
  set_fd_flags(fd, flags);
  process.set_gate(Gate::unsettled);
  if ((flags & fd_flag::datagram) != 0) {
    expect_rings(process);  // nobody calls listen
  }
}

bool has_handed_over(const Process& process) {
  const DescriptorsHeld held;
  return process.has_handed_over;
}

// False: the number holds what the program bound, and nothing is claimed. A
// claim whose listener is nowhere would deafen the predecessor for nobody.
bool install(Process& process, int fd, const Address& address, Taker::Claim claim) {
  const Sys& sys = real_sys();
  ClaimedListener claimed;
  claimed.listener = std::move(claim.listener);
  claimed.fds.push_back(fd);
  claimed.again = claim.again;
  claimed.model = OwnedFd(sys, sys.fcntl(fd, F_DUPFD_CLOEXEC, 0));
  const int fd_flags = real().fcntl(fd, F_GETFD);
  if (!claimed.model.is_open() ||
      sys.dup3(claim.fd.get(), fd, (fd_flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0) < 0) {
    process.log.warn("{} is not taken over: {}", to_string(claimed.listener.address),
                     error_text(errno));
    process.taker->release(claimed.listener, claim.fd.get());
    return false;
  }
  process.log.debug("claimed {}", to_string(claimed.listener.address));
  if (claimed.listener.file.inode != 0) {
    const DescriptorsHeld held;
    process.socket_files[socket_inode(sys, fd)] = claimed.listener.file;
  }
  note_claimed(process, std::move(claimed));
  note_inherited(process, address.unix_path());
  return true;
}

// The program's own sockets conflict with each other as they would without us: only a
// group of which all have asked for it is let be.
bool conflicts_with_own(const Process& process, const Listener& wanted, bool grouped) {
  return std::any_of(process.claims.begin(), process.claims.end(), [&](const ClaimedListener& one) {
    return one.native && !(grouped && one.grouped) &&
           (matches(one.listener, wanted) || overlap(one.listener, wanted) != Overlap::none);
  });
}

// Another address in the way, which the predecessor has: the program binds its own socket
// beside that, with SO_REUSEPORT on both. `nothing`: there is none.
Taker::Found bind_beside(Process& process, int fd, const Address& address) {
  if (has_handed_over(process)) {
    return Taker::Found::nothing;
  }
  auto wanted = describe_socket(real_sys(), fd, &address);
  const bool grouped = joins_group(fd);
  if (!wanted || wanted->type != SOCK_STREAM || address.is_unix() ||
      process.rendezvous() == nullptr || !process.start_watching() ||
      conflicts_with_own(process, *wanted, grouped)) {
    return Taker::Found::nothing;
  }
  ClaimedListener own;
  own.listener = *wanted;
  own.fds.push_back(fd);
  own.native = true;
  own.grouped = grouped;
  const auto found =
      process.own_taker().bind_beside(*process.rendezvous(), *wanted, fd, own.beside);
  if (found == Taker::Found::claimed) {
    note_claimed(process, std::move(own));
  }
  return found;
}

// Of two that share a socket and are told of one connection, one finds nothing: it sleeps
// in accept, if that blocks, and its program with it. So this one gets what the program
// has bound, which listens at the take-over. What does not block goes on sharing: its
// queue survives a successor that is killed.
void take_own_socket(Process& process, ClaimedListener& claim) {
  const Sys& sys = real_sys();
  if (!claim.again || claim.shared || claim.fds.size() != 1 || claim.listener.type != SOCK_STREAM ||
      claim.listener.address.is_unix()) {
    return;
  }
  const int model = claim.model.get();
  const int fd = claim.fds.front();
  const int marks = real().fcntl(fd, F_GETFD);
  const Address& address = claim.listener.address;
  if ((sys.fcntl(model, F_GETFL, 0) & O_NONBLOCK) != 0) {
    return;
  }
  if (sys.bind(model, address.get(), address.length) != 0 ||
      sys.dup3(model, fd, (marks & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0) < 0) {
    process.log.debug("{} goes on sharing a socket: {}", to_string(address), error_text(errno));
    return;
  }
  claim.model = {};
  claim.again = false;
  claim.native = true;
  claim.grouped = true;
  if (process.taker) {
    process.taker->release(claim.listener);
  }
  process.page->note_claim(socket_inode(sys, fd));
}

Taker::Found try_beside(int fd, const Address& address) {
  const ErrnoGuard guard;
  try {
    const SlowPath process(Process::get());
    return process ? bind_beside(*process, fd, address) : Taker::Found::nothing;
  } catch (...) {  // no memory: as if not loaded
    return Taker::Found::nothing;
  }
}

bool has_handed_over(const Process& process, const Address& address) {
  const DescriptorsHeld held;
  return std::any_of(process.handed_over_addresses.begin(), process.handed_over_addresses.end(),
                     [&](const Address& one) { return same_endpoint(one, address); });
}

// A retired program that binds again, because it was told to reload, gets what
// it left: a stand-in. What it handed over is its successor's.
bool bind_stand_in(Process& process, int fd, const Address& address) {
  const Sys& sys = real_sys();
  const auto listener = describe_socket(sys, fd, &address);
  const int status = real().fcntl(fd, F_GETFL);
  const int marks = real().fcntl(fd, F_GETFD);
  if (!listener || status < 0 || marks < 0) {
    return false;
  }
  const bool blocking = (status & O_NONBLOCK) == 0;
  const auto stand_in = process.stand_ins().get(fd, *listener, blocking);
  if (!stand_in) {
    return false;
  }
  const DescriptorsHeld held;
  if (sys.dup3(*stand_in, fd, (marks & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0) < 0) {
    return false;
  }
  process.retired_names[fd] = address;
  set_fd_flags(fd, static_cast<std::uint8_t>(fd_flag::retired | kind_of(*listener) |
                                             (blocking ? fd_flag::blocking : 0)));
  return true;
}

Taker::Found try_claim(Process& process, int fd, const Address& address) {
  if (has_handed_over(process)) {
    // A retired generation never claims: what it binds now is new, or its own.
    return has_handed_over(process, address) && bind_stand_in(process, fd, address)
               ? Taker::Found::claimed
               : Taker::Found::nothing;
  }
  auto wanted = describe_socket(real_sys(), fd, &address);
  if (!wanted || !find_file(*wanted) || process.rendezvous() == nullptr ||
      !process.start_watching()) {
    return Taker::Found::nothing;
  }
  process.has_looked = true;
  process.own_taker().ask_own_generation(process.may_join());
  Taker::Claim claim = process.own_taker().claim(*process.rendezvous(), *wanted, joins_group(fd));
  if (claim.found == Taker::Found::claimed) {
    return install(process, fd, address, std::move(claim)) ? Taker::Found::claimed
                                                           : Taker::Found::refused;
  }
  if (claim.found == Taker::Found::handed_over) {
    return bind_stand_in(process, fd, address) ? Taker::Found::claimed : Taker::Found::refused;
  }
  return claim.found;
}

// A socket with a path: what file that is can be told now, and only now.
void note_bound(Process& process, int fd, const Address& address) {
  process.has_bound = true;
  add_fd_flags(fd, fd_flag::bound);
  if (!address.is_unix()) {
    return;
  }
  if (auto file = find_socket_file(real_sys(), address.unix_path())) {
    const DescriptorsHeld held;
    process.socket_files[socket_inode(real_sys(), fd)] = std::move(*file);
  }
}

void note_listening(int fd) {
  const SlowPath process(Process::get());
  int domain = 0;
  int type = 0;
  socklen_t size = sizeof domain;
  if (!process || is_ours(fd) ||
      real().getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
      real().getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX)) {
    return;
  }
  if (process->rendezvous() == nullptr || !process->start_watching()) {
    return;
  }
  remove_fd_flags(fd, fd_flag::bound);
  add_fd_flags(fd, static_cast<std::uint8_t>(fd_flag::listening |
                                             (type == SOCK_DGRAM ? fd_flag::datagram : 0)));
  note_private(*process);
  note_listener_made(real_sys(), *process->page, process->bell());
  if (process->agent == nullptr) {
    process->set_gate(Gate::unsettled);
  } else if (gate() == Gate::open || gate() == Gate::with_bell) {
    process->set_gate(Gate::note_polls);
  }
  expect_rings(*process);
}

bool is_claimed(int fd) {
  return (fd_flags(fd) & fd_flag::claimed) != 0;
}
bool is_retired(int fd) {
  return (fd_flags(fd) & fd_flag::retired) != 0;
}

// The number to ask instead of `fd`: the model's for a claimed listener.
int stand_for(int fd) {
  if (!is_claimed(fd)) {
    return fd;
  }
  const SlowPath process(Process::existing());
  const ClaimedListener* claim = process ? process->claim_of(fd) : nullptr;
  return claim != nullptr && claim->model.is_open() ? real_sys().number(claim->model.get()) : fd;
}

}  // namespace

namespace {

// Whoever bound a listener that came from elsewhere (systemd, say) is not here to tell what
// file that made. It is most likely still there.
void note_given(int fd) {
  const auto described = describe_socket(real_sys(), fd);
  const auto path = described ? described->address.unix_path() : std::string_view();
  const auto file = path.starts_with('/') ? find_socket_file(real_sys(), path) : std::nullopt;
  const SlowPath process(Process::existing());
  if (process && file) {
    const DescriptorsHeld held;
    process->socket_files.try_emplace(socket_inode(real_sys(), fd), *file);
  }
}

}  // namespace

bool is_unknown_listener(int fd) noexcept {
  const ErrnoGuard guard;
  if ((fd_flags(fd) & ~fd_flag::bound) != 0 || !receives_work(real_sys(), fd)) {
    return false;
  }
  try {
    note_listening(fd);
    note_given(fd);
  } catch (...) {
  }
  return is_listener(fd);
}

namespace {

// A UNIX path that is hidden, and that nobody hands over.
bool move_beside(Address& wanted) noexcept {
  try {
    const SlowPath process(Process::get());
    const auto beside = process ? bound_beside(*process, wanted) : std::nullopt;
    if (beside) {
      wanted = *beside;
    }
    return beside.has_value();
  } catch (...) {
    return false;
  }
}

// What a program inherits over exec it may wait on without another word to us.
__attribute__((constructor)) void find_inherited() noexcept {
  constexpr int highest = 127;
  const ErrnoGuard guard;
  Process::notice_forks();
  // One call tells which numbers are open: to ask for each costs every program
  // that has the library 20 µs.
  std::array<pollfd, highest + 1> numbers{};
  for (int fd = 0; fd <= highest; ++fd) {
    numbers.at(static_cast<std::size_t>(fd)).fd = fd;
  }
  const timespec at_once{};
  const bool known = real_sys().ppoll(numbers.data(), numbers.size(), &at_once) >= 0;
  for (const pollfd& number : numbers) {
    if (!known || (number.revents & POLLNVAL) == 0) {
      is_unknown_listener(number.fd);
    }
  }
}

}  // namespace

namespace {

// Whoever has the address is in the way, and the kernel says so: no need to look for a
// predecessor before each of thousands. The first time it is looked for in any case, to
// say what is wrong there and to remove what the dead have left. A member of a group is
// not in the way, nor is a datagram socket with SO_REUSEADDR, and of UNIX sockets there
// is a file besides.
bool is_told_by_kernel(int fd, const Address& address) {
  int type = 0;
  socklen_t size = sizeof type;
  const Process* process = Process::existing();
  return process != nullptr && process->has_looked && !address.is_unix() &&
         real().getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
         (type == SOCK_STREAM || (type == SOCK_DGRAM && !is_set(fd, SO_REUSEADDR))) &&
         !joins_group(fd) && !has_handed_over(*process);
}

Taker::Found claim_address(int fd, const Address& wanted) noexcept {
  try {
    const SlowPath process(Process::get());
    return process ? try_claim(*process, fd, wanted) : Taker::Found::nothing;
  } catch (...) {  // no memory: as if not loaded
    return Taker::Found::nothing;
  }
}

void note_native(int fd, const Address& wanted) noexcept {
  const ErrnoGuard guard;
  try {
    {
      const SlowPath process(Process::get());
      if (process) {
        note_bound(*process, fd, wanted);
      }
    }
    if (receives_work(real_sys(), fd)) {
      note_listening(fd);  // a datagram socket needs no more
    }
  } catch (...) {
  }
}

// Nobody hands it over. `wanted`: what the program calls the address.
int bind_natively(int fd, const sockaddr* address, socklen_t length, const Address& wanted) {
  // A socket of a group would share connections with the predecessor at once.
  Taker::Found found = joins_group(fd) ? try_beside(fd, wanted) : Taker::Found::nothing;
  int result = 0;
  if (found == Taker::Found::nothing) {
    result = real().bind(fd, address, length);
    if (result == 0) {
      note_native(fd, wanted);
    } else if (errno == EADDRINUSE) {
      found = try_beside(fd, wanted);
    }
  }
  if (found == Taker::Found::refused) {
    errno = EADDRINUSE;
    return -1;
  }
  return found == Taker::Found::claimed ? 0 : result;
}

}  // namespace

int bind_socket(int fd, const sockaddr* address, socklen_t length) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  if (address == nullptr || length < sizeof(sa_family_t)) {
    return real().bind(fd, address, length);
  }
  Address wanted(address, length);
  if (!may_become_listener(fd, wanted)) {
    return real().bind(fd, address, length);
  }
  if (is_told_by_kernel(fd, wanted)) {
    const int result = real().bind(fd, address, length);
    if (result == 0) {
      note_native(fd, wanted);
      return 0;
    }
    if (errno != EADDRINUSE) {
      return result;
    }
  }
  switch (claim_address(fd, wanted)) {
    case Taker::Found::claimed:
      return 0;
    case Taker::Found::refused:
      // Natively two sockets with SO_REUSEPORT would share the connections.
      errno = EADDRINUSE;
      return -1;
    case Taker::Found::outlived:
      end_outlived(*Process::existing());
    case Taker::Found::handed_over:  // it has a stand-in by now, or is refused
    case Taker::Found::nothing:
      break;
  }
  if (hides() && move_beside(wanted)) {
    address = wanted.get();
    length = wanted.length;
  }
  return bind_natively(fd, address, length, wanted);
}

int listen_on(int fd, int backlog) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  if (is_claimed(fd)) {
    const SlowPath process(Process::existing());
    ClaimedListener* claim = process ? process->claim_of(fd) : nullptr;
    if (claim != nullptr) {
      // A negative one is as long as may be to the kernel; here it is none.
      claim->backlog = backlog < 0 ? INT_MAX : backlog;
      const ErrnoGuard guard;
      try {
        take_own_socket(*process, *claim);
        expect_rings(*process);
      } catch (...) {  // no memory to say why not
      }
      return 0;
    }
  }
  if (is_retired(fd)) {
    return 0;  // on the stand-in, which listens already
  }
  const int result = real().listen(fd, backlog);
  if (result == 0) {
    const ErrnoGuard guard;
    try {
      note_listening(fd);
    } catch (...) {
    }
  }
  return result;
}

int set_option(int fd, int level, int name, const void* value, socklen_t length) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  const int result = real().setsockopt(stand_for(fd), level, name, value, length);
  if (result == 0 && is_claimed(fd)) {
    try {
      const SlowPath process(Process::existing());
      if (process && process->page != nullptr) {
        process->page->model_changes.fetch_add(1);
      }
      ClaimedListener* claim = process ? process->claim_of(fd) : nullptr;
      if (claim != nullptr && !is_carried_over(level, name)) {
        const auto* bytes = static_cast<const std::byte*>(value);
        claim->recorded.push_back({level, name, {bytes, bytes + length}});
      }
    } catch (...) {
    }
  }
  return result;
}

int get_option(int fd, int level, int name, void* value, socklen_t* length) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  if (is_claimed(fd) && level == SOL_SOCKET && name == SO_ACCEPTCONN) {
    const SlowPath process(Process::existing());
    const ClaimedListener* claim = process ? process->claim_of(fd) : nullptr;
    const int truth = real().getsockopt(fd, level, name, value, length);
    if (truth == 0 && claim != nullptr) {
      // What the program has done, whichever socket is there until the take-over.
      const int listens = claim->backlog >= 0 ? 1 : 0;
      std::memcpy(value, &listens, std::min<std::size_t>(*length, sizeof listens));
    }
    return truth;
  }
  return real().getsockopt(stand_for(fd), level, name, value, length);
}

int get_name(int fd, sockaddr* address, socklen_t* length) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  if (is_retired(fd)) {
    Process* process = Process::existing();
    const DescriptorsHeld held;
    const auto name = process->retired_names.find(fd);
    if (name != process->retired_names.end()) {
      std::memcpy(address, &name->second.storage, std::min(*length, name->second.length));
      *length = name->second.length;
      return 0;
    }
  }
  return real().getsockname(fd, address, length);
}

int control_file(int fd, int command, long argument) {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: {
      const int copy = real().fcntl(fd, command, argument);
      note_copy(fd, copy);
      return copy;
    }
    case F_GETFD:
    case F_SETFD:
      return real().fcntl(fd, command, argument);
    default:
      return real().fcntl(stand_for(fd), command, argument);
  }
}

int control_device(int fd, unsigned long request, void* argument) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  const bool of_the_descriptor = request == FIOCLEX || request == FIONCLEX;
  return real().ioctl(of_the_descriptor ? fd : stand_for(fd), request, argument);
}

// A shared listener that is shut down is deaf for everybody. What the program
// wants is that its own threads wake up, and that it hears no more: a socket
// that was never listened on gives it that, in this process alone.
int shut_down(int fd, int how) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  if (is_claimed(fd)) {
    return 0;
  }
  // A bound socket may as well have become a connection, which is the program's alone.
  if (!is_retired(fd) && (!Agent::has_granted() || !receives_work(real_sys(), fd))) {
    return real().shutdown(fd, how);
  }
  const SlowPath process(Process::existing());
  if (!process) {
    return 0;  // a vfork child: not its listener
  }
  int domain = AF_INET;
  int type = SOCK_STREAM;
  socklen_t size = sizeof domain;
  real().getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
  real().getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
  const OwnedFd deaf(real_sys(), real_sys().socket(domain, type | SOCK_CLOEXEC, 0));
  const int marks = real().fcntl(fd, F_GETFD);
  if (deaf.is_open()) {
    const DescriptorsHeld held;
    real_sys().dup3(deaf.get(), fd, (marks & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    set_fd_flags(fd, 0);
    process->retired_names.erase(fd);
  }
  wake_sleepers(fd);
  return 0;
}

namespace {

// Nobody may ask any more whether it is readable. What is left of the question is
// asked; if there is nothing left, the epoll does not know the socket at all.
int control_retired_datagrams(int epoll, int operation, int fd, epoll_event* event) {
  wait_until_settled();
  if (operation == EPOLL_CTL_DEL || event == nullptr) {
    const int result = real().epoll_ctl(epoll, operation, fd, event);
    return result != 0 && errno == ENOENT ? 0 : result;
  }
  epoll_event rest = *event;
  rest.events &= ~about_reading;
  if ((rest.events & about_writing) == 0) {
    real().epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nullptr);
    return 0;
  }
  if (operation == EPOLL_CTL_MOD &&
      (real().epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &rest) == 0 || errno != ENOENT)) {
    return 0;
  }
  const int result = real().epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &rest);
  return result != 0 && errno == EEXIST ? real().epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &rest)
                                        : result;
}

}  // namespace

int control_epoll(int epoll, int operation, int fd, epoll_event* event) noexcept {
  if (is_ours(fd)) {
    errno = EBADF;
    return -1;
  }
  const auto is_gone = [fd] {
    constexpr std::uint8_t gone = fd_flag::retired | fd_flag::datagram;
    return (fd_flags(fd) & gone) == gone;
  };
  if (is_gone()) {
    return control_retired_datagrams(epoll, operation, fd, event);
  }
  if (waits_early() && is_claimed(fd)) {
    if (const int early = control_early_epoll(epoll, operation, fd, event); early != not_early) {
      return early;
    }
  }
  const int result = real().epoll_ctl(epoll, operation, fd, event);
  if (result != 0 && is_retired(fd) && (errno == ENOENT || errno == EEXIST)) {
    // In the middle of a swap the epoll knows it under neither name, and a datagram
    // socket that has been retired since perhaps not at all.
    wait_until_settled();
    return is_gone() ? control_retired_datagrams(epoll, operation, fd, event)
                     : real().epoll_ctl(epoll, operation, fd, event);
  }
  return result;
}

}  // namespace continuity::shim
