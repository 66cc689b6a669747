#include "shim/waits.hpp"

#include "core/descriptors.hpp"
#include "core/processes.hpp"
#include "core/socket_options.hpp"
#include "core/wake.hpp"
#include "shim/agent.hpp"
#include "shim/early_waits.hpp"
#include "shim/hiding.hpp"
#include "shim/hooks.hpp"
#include "shim/own_descriptors.hpp"
#include "shim/real_calls.hpp"
#include "shim/rehearsal.hpp"

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <link.h>
#include <linux/futex.h>
#include <span>
#include <sys/syscall.h>

namespace continuity::shim {
namespace {

// What the program did to the listener while it was not its own.
void apply_recorded(Process& process, const ClaimedListener& claim) {
  const Sys& sys = real_sys();
  const int fd = claim.fds.front();
  if (claim.native) {
    const int grouped = claim.grouped ? 1 : 0;
    sys.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &grouped, sizeof grouped);
    return;
  }
  CarriedOver carried = claim.alike ? carry_over_blocking(sys, claim.model.get(), fd)
                                    : carry_over(sys, claim.model.get(), fd);
  for (const RecordedOption& option : claim.recorded) {
    const bool set = sys.setsockopt(fd, option.level, option.name, option.value.data(),
                                    static_cast<socklen_t>(option.value.size())) == 0;
    ++(set ? carried.changed : carried.failed);
  }
  if (claim.backlog >= 0) {
    sys.listen(fd, claim.backlog);
  }
  if (carried.changed + carried.failed > 0) {
    process.log.debug("{}: {} options differ from the predecessor's and are set, {} cannot be set",
                      to_string(claim.listener.address), carried.changed, carried.failed);
  }
}

// A socket beside the predecessor's: false if the kernel does not let it listen.
bool listen_beside(Process& process, const ClaimedListener& claim) {
  if (!claim.native || claim.backlog < 0 ||
      real_sys().listen(claim.fds.front(), claim.backlog) == 0) {
    return true;
  }
  const std::string error = error_text(errno);
  process.log.error("cannot listen at {}{}: {}", to_string(claim.listener.address),
                    claim.beside.empty()
                        ? ""
                        : compose(" beside {}", to_string(claim.beside.front().listener.address)),
                    error);
  return false;
}

// Those that may listen before the predecessor is asked, or the others.
bool listen_beside_all(Process& process, bool early) {
  return std::all_of(
      process.claims.begin(), process.claims.end(), [&](const ClaimedListener& claim) {
        return Taker::may_listen_early(claim.beside) != early || listen_beside(process, claim);
      });
}

// Nobody needs to know any more what is polled once every blocking listener
// has been seen.
Gate settled_gate() {
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    const std::uint8_t flags = fd_flags(fd);
    if ((flags & fd_flag::listening) != 0 && (flags & fd_flag::polled) == 0 &&
        (real().fcntl(fd, F_GETFL) & O_NONBLOCK) == 0) {
      return Gate::note_polls;
    }
  }
  return Gate::open;
}

void take_lifelines(Process& process) {
  const DescriptorsHeld held;
  for (Channel& channel : process.taker->release_channels()) {
    process.lifelines.push_back(std::move(channel));
  }
  process.taker.reset();
}

// What has been claimed is the program's own from now on.
void forget_claims(Process& process, bool all) {
  for (const ClaimedListener& claim : process.claims) {
    for (const int fd : claim.fds) {
      if (all || claim.shared) {
        add_fd_flags(fd, fd_flag::listening);
        remove_fd_flags(fd, fd_flag::claimed);
      }
    }
  }
  process.claims.remove_if([&](const ClaimedListener& claim) { return all || claim.shared; });
}

void ring_bell(const Process& process) {
  if (process.ties.bell.is_open()) {
    ring(real_sys(), process.ties.bell.get());
  }
}

void tell_generation(Process& process, GenerationPhase phase) {
  Page& page = *process.page;
  page.phase.store(static_cast<std::uint32_t>(phase));
  real_sys().futex(&page.phase, FUTEX_WAKE, INT_MAX, nullptr);
  ring_bell(process);
}

// Who of a predecessor is told again later on, should it bind.
struct Predecessor {
  pid_t leader;
  pid_t main;
  std::uint64_t started;
};

std::vector<Predecessor> find_predecessors(const Process& process, Taker::Share share) {
  const Processes processes(real_sys(), process.proc.get());
  std::vector<Predecessor> found;
  for (const pid_t leader : process.taker->predecessors(share)) {
    const pid_t main = processes.topmost(leader);
    found.push_back({leader, main, processes.start_time(main)});
  }
  return found;
}

void note_outlived(Page& page, const Predecessor& predecessor) {
  const auto at = page.outlived_count.fetch_add(1) % page.outlived.size();
  page.outlived.at(at).process.store(predecessor.main);
  page.outlived.at(at).started.store(predecessor.started);
}

// Asks for what this process has claimed, and makes it the program's own.
// False: it is not to be had.
bool become_owner(Process& process, Taker::Share share) {
  if (!process.taker || !process.taker->has_claims()) {
    return true;
  }
  const auto give_up = [&](const std::string& reason) {
    if (share == Taker::Share::all) {
      tell_generation(process, GenerationPhase::ended);
    }
    end_successor(process, reason);
  };
  const char* const cannot_listen = "an address cannot be listened on";
  // Before the predecessor is asked: when it lets go of its own, whoever comes must find
  // somebody here.
  if (!listen_beside_all(process, true)) {
    give_up(cannot_listen);
  }
  // So is what takes a hundred calls to find out: nobody accepts once it has let go.
  const std::uint32_t model_changes = process.page->model_changes.load();
  for (ClaimedListener& claim : process.claims) {
    claim.alike =
        !claim.native && compare_options(real_sys(), claim.model.get(), claim.fds.front()).empty();
  }
  const std::vector<Predecessor> predecessors = find_predecessors(process, share);
  Taker::Outcome outcome =
      process.taker->become_owner(*process.rendezvous(), share, process.evidence);
  if (!outcome.owner) {
    give_up(outcome.reason);
  }
  if (!listen_beside_all(process, false)) {
    give_up(cannot_listen);  // who handed over sees us end, and takes everything back
  }
  // Another process of this generation may have set something on a model meanwhile.
  const bool models_are_as_before = process.page->model_changes.load() == model_changes;
  for (ClaimedListener& claim : process.claims) {
    claim.alike = claim.alike && models_are_as_before;
    apply_recorded(process, claim);
  }
  for (const Predecessor& predecessor : predecessors) {
    if (std::ranges::find(outcome.outlived, predecessor.leader) != outcome.outlived.end()) {
      note_outlived(*process.page, predecessor);
    }
  }
  if (share == Taker::Share::all) {
    process.page->journal = outcome.journal;
  }
  process.page->probation_ends.store(
      std::max(process.page->probation_ends.load(), outcome.probation_ends));
  if (process.agent != nullptr && share == Taker::Share::own) {
    process.agent->watch(std::move(outcome.predecessors), outcome.probation_ends);
  } else {
    const DescriptorsHeld held;
    for (Channel& channel : outcome.predecessors) {
      process.lifelines.push_back(std::move(channel));
    }
  }
  return true;
}

// Whether this process waits on what another of its generation has claimed: one
// that executed another program, or was given the listener, has no part in the
// claim. The one that has it is still there to be asked.
bool waits_for_others(const Process& process) {
  const Page& page = *process.page;
  if (!is_running(real_sys(), page.main.load())) {
    return false;
  }
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & fd_flag::listening) != 0 &&
        page.was_claimed(socket_inode(real_sys(), fd))) {
      return true;
    }
  }
  return false;
}

// What this process may ask for, of what has been claimed.
enum class MayAsk {
  all,         // it has everything that was claimed before a fork, or it leads
  by_another,  // it waits on some of it; who leads can ask
  its_own,     // only what it has claimed for itself
  nothing,     // it waits on a listener of its own (apache's cgid does)
};

MayAsk may_ask(const Process& process) {
  const Page& page = *process.page;
  const auto shared = std::count_if(process.claims.begin(), process.claims.end(),
                                    [](const ClaimedListener& claim) { return claim.shared; });
  const bool has_claims = process.taker && process.taker->has_claims();
  const bool has_all =
      shared >= static_cast<std::ptrdiff_t>(page.shared_claims.load()) || page.main == ::getpid();
  if (page.claims.load() == 0 || (has_claims && has_all)) {
    return MayAsk::all;
  }
  if (shared > 0 || waits_for_others(process)) {
    return MayAsk::by_another;
  }
  return has_claims ? MayAsk::its_own : MayAsk::nothing;
}

// Until the generation owns its listeners. One process asks, the others wait for
// it, and if it dies meanwhile another asks again. False: not yet, and it is not
// this process's affair.
bool settle_generation(Process& process, bool for_others) {
  Page& page = *process.page;
  for (;;) {
    std::uint32_t phase = page.phase.load();
    const timespec moment = to_timespec(10 * millisecond);
    const MayAsk asks = for_others ? MayAsk::all : may_ask(process);
    switch (static_cast<GenerationPhase>(phase)) {
      case GenerationPhase::starting:
        if (asks != MayAsk::all) {
          if (asks != MayAsk::by_another) {
            return false;
          }
          page.ready_requested.store(1);
          ring_bell(process);
          real_sys().futex(&page.phase, FUTEX_WAIT, phase, &moment);
          break;
        }
        [[fallthrough]];
      case GenerationPhase::asking:
        // The one before may have ended after it was answered.
        if (asks == MayAsk::all && take_turn(real_sys(), page.asker) &&
            page.phase.compare_exchange_strong(
                phase, static_cast<std::uint32_t>(GenerationPhase::asking))) {
          if (!process.options.rehearsal.empty()) {
            tell_of_rehearsal(process);
            tell_generation(process, GenerationPhase::ended);
            end_rehearsal(process);
          }
          if (process.agent != nullptr) {
            process.agent->see_to_announcement();
          }
          become_owner(process, Taker::Share::all);
          end_hiding(process, false);
          forget_claims(process, true);
          tell_generation(process, GenerationPhase::active);
        } else {
          if (process.agent != nullptr) {
            process.agent->announce_if_leading();
          }
          real_sys().futex(&page.phase, FUTEX_WAIT, phase, &moment);
        }
        break;
      case GenerationPhase::active:
        return true;
      case GenerationPhase::ended:
        end_successor(process, "another process of this program was not allowed to take over");
    }
  }
}

// Finds its generation, and has an agent. `announces`: it is about to own its listeners.
void take_part(Process& process, bool announces) {
  if (process.may_join() && process.rendezvous() != nullptr) {
    const OwnedFd one_at_a_time = process.rendezvous()->lock();
    if (!process.join_generation()) {
      end_outlived(process);
    }
    process.agent = Agent::start(process);
    if (process.agent != nullptr && announces) {
      process.agent->see_to_announcement();
    }
  }
  if (process.agent == nullptr) {
    process.agent = Agent::start(process);
  }
}

// The first wait on a listener, or the first on a new one.
void settle(Process& process, bool for_others = false) {
  // Before the predecessor is asked to go deaf, since it takes time.
  take_part(process, true);
  if (settle_generation(process, for_others)) {
    stop_hiding_if_over();
    forget_claims(process, false);
  } else if (!process.taker || !process.taker->has_own_claims()) {
    return;  // asked again at the next wait
  }
  if (process.taker && process.taker->has_own_claims()) {
    become_owner(process, Taker::Share::own);
    forget_claims(process, true);
  }
  if (process.taker) {
    take_lifelines(process);
    if (process.agent != nullptr) {
      process.agent->notice_lifelines();  // it may have looked already, and be asleep
    }
  }
  end_early_waits(process);
  process.set_gate(settled_gate());
}

// Work that it waits for on a claimed listener, or on one of its own. Not on a datagram
// socket of its own while there are claims: that may be a client's.
bool is_unsettled_listener(int fd) {
  const std::uint8_t flags = fd_flags(fd);
  if ((flags & fd_flag::listening) == 0 || (flags & fd_flag::datagram) == 0) {
    return (flags & (fd_flag::listening | fd_flag::claimed)) != 0;
  }
  const Process* process = Process::existing();
  return process == nullptr || process->page == nullptr ||
         process->page->current_phase() != GenerationPhase::starting ||
         process->page->claims.load() == 0;
}

}  // namespace

bool has_listener(std::uint8_t of_kind) {
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if ((fd_flags(fd) & of_kind) == of_kind && is_unsettled_listener(fd)) {
      return true;
    }
  }
  return false;
}

namespace {

bool watches_listener(Process& process, int epoll) {
  std::vector<std::uint64_t> inodes;
  const Sys& sys = real_sys();
  for (int fd = 0; fd <= g_highest_fd.load(); ++fd) {
    if (is_unsettled_listener(fd)) {
      inodes.push_back(socket_inode(sys, fd));
    }
  }
  std::vector<Registration> found;
  const auto read = Descriptors(sys, process.proc.get()).find_in_epoll(epoll, inodes, found);
  return read && !found.empty();
}

// Marks one listener as polled; true if that was news.
bool note_polled(int fd) {
  if (!is_listener(fd) || (fd_flags(fd) & fd_flag::polled) != 0) {
    return false;
  }
  add_fd_flags(fd, fd_flag::polled);
  return true;
}

// CONTINUITY_READY=listen: for programs that wait by means we cannot see. The
// first wait of any kind after the last listen, since there may be more of them.
bool listens_on_all(const Process& process) {
  return process.options.ready == ReadyEvidence::listen && !process.claims.empty() &&
         std::all_of(process.claims.begin(), process.claims.end(),
                     [](const ClaimedListener& claim) { return claim.backlog >= 0; });
}

void settle_if(bool waits_for_work, Evidence evidence) noexcept {
  try {
    const SlowPath process(Process::existing());
    if (!process || gate() != Gate::unsettled || !(waits_for_work || listens_on_all(*process))) {
      return;
    }
    if (must_wait_early(*process)) {
      take_part(*process, false);
    } else {
      process->evidence = waits_for_work ? evidence : Evidence::listen;
      settle(*process);
    }
  } catch (...) {  // no memory just now: the next wait tries again
  }
}

void note_polls(bool news) noexcept {
  // A listener that this many polls have not asked for never will be.
  constexpr std::uint32_t enough = 10'000;
  static constinit std::atomic<std::uint32_t> polls{0};
  if (!news && gate() == Gate::note_polls &&
      polls.fetch_add(1, std::memory_order_relaxed) == enough) {
    const SlowPath process(Process::existing());
    if (process) {
      process->set_gate(Gate::open);
    }
    return;
  }
  if (news && gate() == Gate::note_polls) {
    const SlowPath process(Process::existing());
    if (process) {
      process->set_gate(settled_gate());
    }
  }
}

}  // namespace

// By its own word the program is ready. Where this process has no part in what is claimed,
// who leads asks for it.
void note_said_ready(Process& process) {
  constexpr Nanoseconds longest = 10 * second;
  Page& page = *process.page;
  page.ready_said.store(1);
  ring_bell(process);
  if (gate() != Gate::unsettled || page.claims.load() == 0 ||
      page.current_phase() != GenerationPhase::starting) {
    return;
  }
  if (may_ask(process) != MayAsk::nothing) {
    process.evidence = Evidence::said;
    settle(process);
    return;
  }
  page.ready_requested.store(1);
  ring_bell(process);
  const Nanoseconds deadline = after(real_sys(), longest);
  for (std::uint32_t phase = page.phase.load();
       phase < static_cast<std::uint32_t>(GenerationPhase::active) && now(real_sys()) < deadline;
       phase = page.phase.load()) {
    const timespec moment = to_timespec(10 * millisecond);
    real_sys().futex(&page.phase, FUTEX_WAIT, phase, &moment);
  }
}

void settle_said(Process& process) noexcept {
  try {
    const SlowPath entered(&process);
    if (!entered || !waits_early() || process.page->ready_said.load() == 0) {
      return;
    }
    const MayAsk asks = may_ask(process);
    if (asks == MayAsk::all || asks == MayAsk::its_own) {
      process.evidence = Evidence::said;
      settle(process);
    }
  } catch (...) {  // no memory: the next wait tries again
  }
}

void settle_for_others(Process& process) noexcept {
  try {
    const SlowPath entered(&process);
    if (entered && process.taker && process.taker->has_claims() && !must_wait_early(process)) {
      settle(process, true);
    }
  } catch (...) {  // no memory: it is asked for again
  }
}

namespace {

constinit std::atomic<bool> g_has_made_ring{false};
// Or may have liburing make them, or wait by other means that we do not see.
constinit std::atomic<bool> g_may_use_rings{false};

// liburing makes its system calls itself, so that nobody sees them.
bool has_liburing() {
  return ::dl_iterate_phdr(
             [](dl_phdr_info* object, std::size_t, void*) {
               return std::strstr(object->dlpi_name, "/liburing") != nullptr ? 1 : 0;
             },
             nullptr) != 0;
}

}  // namespace

void expect_rings(Process& process) {
  if (gate() != Gate::unsettled) {
    return;
  }
  // A forked child must not ask for liburing: another thread of its parent's may have had
  // the loader's lock.
  if (!g_may_use_rings.load() && (g_has_made_ring.load() || has_liburing() ||
                                  process.options.ready == ReadyEvidence::listen)) {
    g_may_use_rings.store(true);
  }
  if (!g_may_use_rings.load()) {
    return;
  }
  if (process.agent == nullptr) {
    process.agent = Agent::start(process);
  }
  if (process.agent != nullptr) {
    process.agent->watch_rings();
  }
}

void note_ring() noexcept {
  const ErrnoGuard guard;
  g_has_made_ring.store(true);
  if (gate() != Gate::unsettled) {
    return;
  }
  try {
    const SlowPath process(Process::existing());
    if (process && has_listener()) {
      expect_rings(*process);
    }
  } catch (...) {  // no memory: the program is ready when it first waits otherwise
  }
}

// Not in a handler of fork's, where no thread may be made.
void begin_in_child() noexcept {
  if (!g_may_use_rings.load()) {
    return;
  }
  const ErrnoGuard guard;
  try {
    const SlowPath process(Process::existing());
    if (process && has_listener()) {
      expect_rings(*process);
    }
  } catch (...) {  // no memory: its parent refuses to hand over if it waits by a ring
  }
}

void settle_for_ring(Process& process) noexcept {
  try {
    const SlowPath entered(&process);
    if (entered && gate() == Gate::unsettled && !must_wait_early(process)) {
      process.evidence = Evidence::ring;
      settle(process);
    }
  } catch (...) {  // no memory: it is looked for again
  }
}

void adopt_settled_here(Process& process) {
  forget_claims(process, false);
  const bool has_own = process.taker && process.taker->has_own_claims();
  if (process.taker && !has_own) {
    take_lifelines(process);
  }
  if (!has_own) {
    end_early_waits(process);
  }
}

void adopt_settled(Process& process) noexcept {
  try {
    const SlowPath entered(&process);
    if (entered) {
      adopt_settled_here(process);
    }
  } catch (...) {  // no memory: what the program sets goes to a socket nobody uses
  }
}

void note_copy(int fd, int copy) noexcept {
  const ErrnoGuard guard;
  const std::uint8_t flags = fd_flags(fd);
  if (copy < 0 || (flags & (fd_flag::listener | fd_flag::bound)) == 0) {
    return;
  }
  try {
    const SlowPath process(Process::existing());
    if (!process) {
      return;
    }
    if (ClaimedListener* claim = process->claim_of(fd)) {
      claim->fds.push_back(copy);
    }
    set_fd_flags(copy, flags);
  } catch (...) {
  }
}

void before_accept(int fd) noexcept {
  settle_if(is_unsettled_listener(fd), Evidence::accept);
}

void before_receive(int fd) noexcept {
  settle_if(is_unsettled_listener(fd), Evidence::receive);
}

void before_epoll_wait(int epoll) noexcept {
  if (gate() != Gate::unsettled) {
    return;
  }
  if (waits_early()) {
    settle_if(true, Evidence::epoll);  // no epoll knows of a claimed listener
    return;
  }
  bool watches = false;
  try {
    const SlowPath process(Process::existing());
    watches = process && watches_listener(*process, epoll);
  } catch (...) {
  }
  settle_if(watches, Evidence::epoll);
}

void before_poll(const pollfd* fds, nfds_t count) noexcept {
  if (gate() == Gate::with_bell) {
    return;
  }
  bool watches = false;
  bool news = false;
  for (nfds_t i = 0; i < count; ++i) {
    if (is_listener(fds[i].fd) && (fds[i].events & POLLIN) != 0) {
      watches = true;
      news |= note_polled(fds[i].fd);
    }
  }
  if (gate() == Gate::unsettled) {
    settle_if(watches, Evidence::poll);
  }
  note_polls(news);
}

void before_select(int count, const fd_set* readable) noexcept {
  if (gate() == Gate::with_bell) {
    return;
  }
  bool watches = false;
  bool news = false;
  for (int fd = 0; readable != nullptr && fd < count; ++fd) {
    // Not FD_ISSET: programs use sets larger than FD_SETSIZE.
    if (is_listener(fd) &&
        (reinterpret_cast<const unsigned long*>(readable)[static_cast<std::size_t>(fd) / 64] >>
             (static_cast<unsigned>(fd) % 64) &
         1UL) != 0) {
      watches = true;
      news |= note_polled(fd);
    }
  }
  if (gate() == Gate::unsettled) {
    settle_if(watches, Evidence::select);
  }
  note_polls(news);
}

namespace {

// Which listeners' ends a thread has been told of, since the last time any were retired.
struct Told {
  std::uint32_t epoch = 0;
  std::uint32_t count = 0;
  // A thread that polls more of them may be told of one twice.
  std::array<int, 16> numbers{};

  // True once for each.
  bool is_news(int fd) {
    const std::uint32_t current = retire_epoch();
    if (epoch != current || count == numbers.size()) {
      epoch = current;
      count = 0;
    }
    const std::span<const int> told(numbers.data(), count);
    if (std::find(told.begin(), told.end(), fd) != told.end()) {
      return false;
    }
    numbers.at(count++) = fd;
    return true;
  }
};

__attribute__((tls_model("initial-exec"))) constinit thread_local Told t_told;

}  // namespace

// Never reaches a connection. Whether it returns decides what becomes of the
// program: one that was told "readable" before the listener went must come
// back to its loop; one that does nothing but accept sleeps, as it would with
// no client left in the world.
int accept_retired(int fd, sockaddr* address, socklen_t* length, int flags) {
  wait_until_settled();
  const std::uint8_t known = fd_flags(fd);
  if ((known & fd_flag::retired) == 0) {
    return listener_is_back;
  }
  if ((known & fd_flag::blocking) == 0) {
    errno = EAGAIN;
    return -1;
  }
  if ((known & fd_flag::polled) != 0 && t_told.is_news(fd)) {
    errno = ECONNABORTED;
    return -1;
  }
  AcceptSlot* slot = own_accept_slot();
  if (slot != nullptr) {
    slot->where.exchange(AcceptSlot::inside(fd) | AcceptSlot::parked);
    // As before an accept on a listener: who revives clears the mark and then
    // looks for sleepers. One that it missed would sleep on the listener, unseen
    // by the next retirement.
    if ((fd_flags(fd) & fd_flag::retired) == 0) {
      slot->where.store(AcceptSlot::outside);
      return listener_is_back;
    }
  }
  const int result =
      flags == 0 ? real().accept(fd, address, length) : real().accept4(fd, address, length, flags);
  if (slot != nullptr) {
    const bool revived = slot->where.exchange(AcceptSlot::outside) == AcceptSlot::inside(fd);
    // Revived in its sleep, and retired again; or woken for either.
    if (result < 0 &&
        ((revived && errno == EAGAIN) || (errno == EINTR && slot->woken.exchange(false)))) {
      return listener_is_back;
    }
  }
  return result;
}

// As accept_retired, for receives.
bool is_back_after(int fd, bool waits) noexcept {
  wait_until_settled();
  const std::uint8_t known = fd_flags(fd);
  if ((known & fd_flag::retired) == 0) {
    return true;
  }
  const int bed = bed_number();
  const bool told_readable = t_told.is_news(fd) && (known & fd_flag::polled) != 0;
  if ((known & fd_flag::blocking) == 0 || !waits || told_readable || bed < 0) {
    errno = EAGAIN;
    return false;
  }
  // What to sleep on is not the listener: who sleeps there would be woken by what
  // is not meant for it. The kernel knows the program's time-out and its handlers.
  timeval timeout{};
  socklen_t size = sizeof timeout;
  real().getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size);
  real().setsockopt(bed, SOL_SOCKET, SO_RCVTIMEO, &timeout, size);
  char nothing = 0;
  if ((fd_flags(fd) & fd_flag::retired) == 0) {
    return true;
  }
  const bool ended = real().recv(bed, &nothing, sizeof nothing, 0) >= 0;
  // The bed is not there any more either once the listener has come back.
  return ended || errno == EBADF || (fd_flags(fd) & fd_flag::retired) == 0;
}

}  // namespace continuity::shim
