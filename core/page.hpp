// The page of memory that the processes of a generation share: who they are,
// how far the generation has come, and what it is to be deaf to.
//
// It says what *is*, not what is to be done: a process that comes late, or
// wakes up late, reads the page and does what brings it there.
//
// Rules:
// - A process registers first and reads the state second; who changes the state
//   does so first and looks who is registered second. One of the two sees the
//   other. Everything is sequentially consistent.
// - `sequence` is odd while the leader writes. Only the leader writes what it
//   covers.
// - A member is alive as long as its agent is: a program that executes another
//   keeps its pid, and loses its agent.
#pragma once

#include "core/journal.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <sys/types.h>

namespace continuity {

// How far a generation has come.
enum class GenerationPhase : std::uint32_t {
  starting,  // nobody has waited for work yet
  asking,    // one process is becoming the owner, for all
  active,    // owns its listeners, or did until it handed them over
  ended,     // was not allowed to become the owner: whoever belongs to it ends
};

// What every process that waits on a listener is to be.
enum class Stage : std::uint32_t {
  serving,    // accepts
  prepared,   // accepts; has looked up what going deaf will need
  retired,    // deaf to what is claimed; can take it back
  forgotten,  // deaf to it for good
  finishing,  // and what does nothing is told to end
};

// A process, and the thread that is its agent. Both change in one step: who reads
// the one with the other of somebody else takes the living for dead. Aligned so
// that clang, too, takes it in one piece.
struct alignas(8) AgentId {
  pid_t process = 0;  // 0: nobody
  pid_t thread = 0;
  bool operator==(const AgentId&) const = default;
};
static_assert(std::atomic<AgentId>::is_always_lock_free);

// Whose it is stands beside it: a place is taken first and cleared afterwards.
struct alignas(8) Failure {
  pid_t thread = 0;
  std::int32_t code = 0;  // errno
};
static_assert(std::atomic<Failure>::is_always_lock_free);

// A process with an agent.
struct Member {
  std::atomic<AgentId> agent;              // nobody: a free place
  std::atomic<std::uint32_t> done;         // the sequence it has followed last
  std::atomic<Failure> failed;             // what it could not do then
  std::atomic<std::uint32_t> connections;  // live ones, when it looked last
  std::atomic<std::int64_t> looked_at;     // when that was; 0: not since it was forgotten
};

// A listener of the inventory, by what all processes know it by.
struct PageListener {
  std::atomic<std::uint64_t> inode;
  std::atomic<std::uint32_t> id;
  std::atomic<std::uint32_t> claimed;
  std::atomic<std::uint32_t> shut_out;  // nobody new comes there, by our doing
  // What a revival puts back: Retirement::SharedState.
  std::atomic<std::int32_t> status_flags;
  std::atomic<std::int32_t> backlog;
  std::atomic<std::int32_t> reuse_port;
};

// A process of another generation; the time it was started tells it from others
// of its number.
struct Outlived {
  std::atomic<pid_t> process;
  std::atomic<std::uint64_t> started;
};

constexpr std::size_t max_newcomers = 64;
constexpr std::uint32_t max_outlived = 8;
constexpr std::uint32_t max_noted_claims = 256;
constexpr std::size_t max_members = 4096;
constexpr std::size_t max_page_listeners = 16'384;

// All zeros at first. Sparse: what is not used costs no memory.
struct Page {
  std::atomic<std::uint32_t> phase;   // a futex
  std::atomic<AgentId> asker;         // who is becoming the owner
  std::atomic<std::uint32_t> claims;  // of listeners, to be asked for
  // Of these, what was claimed before a fork: who still has all of it can ask for
  // all, whatever it has claimed for itself.
  std::atomic<std::uint32_t> shared_claims;
  // A process that has claimed nothing itself waits for work on what was claimed:
  // it has executed another program, or was given the listener.
  std::atomic<std::uint32_t> ready_requested;
  // Counts what has been set on sockets that stand for listeners claimed.
  std::atomic<std::uint32_t> model_changes;
  std::atomic<std::uint32_t> ready_said;  // a process has sent READY=1
  std::array<std::atomic<std::uint64_t>, max_noted_claims> claimed_inodes;
  std::atomic<std::uint32_t> claimed_count;  // may be more than there is room for
  std::atomic<std::int64_t> probation_ends;
  std::atomic<std::int64_t> watch_ends;  // until then it can come back; 0: it is not deaf
  std::atomic<std::int64_t> drain_ends;  // 0: it has not begun
  // Who has looked for connections before that is to look again; 0: nobody is asked.
  std::atomic<std::int64_t> look_asked;
  std::atomic<std::uint64_t> generation;

  std::atomic<std::uint32_t> announced;  // it can be found at the rendezvous
  std::atomic<AgentId> announcer;        // who is seeing to that
  std::atomic<pid_t> main;               // the process that leads if it can
  std::atomic<AgentId> leader;

  std::atomic<std::uint32_t> sequence;
  std::atomic<std::uint32_t> done;  // a futex: some member has followed
  // A futex: the sequence at which all have been deaf in time, or have not.
  std::atomic<std::uint32_t> all_deaf;
  std::atomic<std::uint32_t> stage;
  std::atomic<std::uint32_t> offer_round;  // odd while the leader asks for an inventory
  std::atomic<std::uint32_t> attempt;      // counts inventories
  std::atomic<std::uint32_t> listener_count;
  std::atomic<pid_t> successor_pid;   // what it was forked from; 0: there is none
  std::atomic<pid_t> successor_self;  // who of it spoke last

  // Who led the generations we took over from: if it executes itself and binds
  // again, it is not our successor.
  std::array<Outlived, max_outlived> outlived;
  std::atomic<std::uint32_t> outlived_count;

  // Processes that have been told where the generation is, and have no agent yet:
  // what they listen on belongs to an inventory. 0: a free place.
  std::array<std::atomic<pid_t>, max_newcomers> newcomers;
  std::atomic<std::uint32_t> private_listeners;  // made by members after they were forked
  // Counts what has been made, or has come with who joined: while a restart is under way
  // the leader looks whether it belongs to that.
  std::atomic<std::uint32_t> listeners_made;
  std::atomic<std::uint32_t> member_limit;  // slots at and above it have never been used
  std::array<Member, max_members> members;
  std::array<PageListener, max_page_listeners> listeners;

  // What has been, for those who ask: written by who is becoming the owner, then by who
  // leads.
  Journal journal;

  void note_claim(std::uint64_t inode) {
    const std::uint32_t at = claimed_count.fetch_add(1);
    if (at < claimed_inodes.size()) {
      claimed_inodes.at(at).store(inode);
    }
  }
  // Whether it was claimed; true for all where there were too many to note.
  [[nodiscard]] bool was_claimed(std::uint64_t inode) const {
    const std::uint32_t count = claimed_count.load();
    for (std::uint32_t i = 0; i < count && i < claimed_inodes.size(); ++i) {
      if (claimed_inodes.at(i).load() == inode) {
        return true;
      }
    }
    return count > claimed_inodes.size();
  }

  [[nodiscard]] GenerationPhase current_phase() const {
    return static_cast<GenerationPhase>(phase.load());
  }
};

}  // namespace continuity
