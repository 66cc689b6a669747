// Going deaf in place, and coming back: what one process does when its
// listeners have been handed over.
//
// Rules:
// - EPOLL_CTL_DEL comes before the number is replaced. Afterwards the epoll
//   could not be told any more: it knows a registration by file *and* number.
// - First every number is replaced, then threads inside accept are woken, then
//   we wait until none is inside: only then is the process deaf.
// - While numbers are replaced every stand-in is non-blocking, so that a thread
//   woken out of a blocking accept comes back to its wrapper; it goes to sleep
//   when the blocking stand-in is in place.
// - Program and library race for epoll_ctl and dup: look again afterwards,
//   until a look finds nothing.
// - A revival is the same steps backwards.
// - A ring (io_uring) holds the file, not the number: when the numbers, and its table of
//   fixed files, have what stands in, what it waits for on the listener is cancelled, and
//   the program asks anew.
// - A datagram socket keeps its place where receives can be held off, since what is
//   still to be answered must be
//   sent from it: it is marked, and the program's receives find nothing; epolls
//   ask no more whether it is readable. Only while threads asleep in a receive
//   are woken a stand-in is there, and who sends is waited for, and waits. Once
//   nobody can take it back any more the stand-in is there for good.
// - Receives that a ring makes cannot be held off: there the number is left to another
//   socket, which hears nothing and answers from the same address, and is let go of then.
#pragma once

#include "core/clock.hpp"
#include "core/descriptors.hpp"
#include "core/listener.hpp"
#include "core/rings.hpp"
#include "core/stand_in.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace continuity {

// The program around us, as the face of the library that runs in it knows it.
class Program : public RingIssuer {
 public:
  // Keeps the program from closing or replacing listeners while numbers move.
  virtual void lock_descriptors() = 0;
  virtual void unlock_descriptors() = 0;

  // Before the number is replaced: an accept on it finds nothing from now on.
  // `polled`: an epoll watches it, and may have said that it is readable.
  virtual void note_retired(int fd, const Listener& listener, bool blocking, bool polled) = 0;
  // Before the number is given back, and after.
  virtual void note_reviving(int fd) = 0;
  virtual void note_revived(int fd) = 0;
  // The last stand-in is in place, or the listener is back: threads that found nothing may go to
  // sleep, or accept.
  virtual void note_settled() = 0;

  // Whether the program has ever been seen to wait for what comes to this number by a call
  // that says so: an accept, a receive, a poll.
  [[nodiscard]] virtual bool is_waited_for(int /*fd*/) const { return false; }
  // Waits until no thread is sending from this number; who begins to waits for
  // note_settled.
  virtual bool clear_sends(int /*fd*/, Nanoseconds /*deadline*/) { return true; }
  // Whether receives on a retired datagram socket can be held off. If not, another socket
  // takes its number, from which can still be answered.
  [[nodiscard]] virtual bool gates_receives() const { return true; }
  // Wakes threads inside accept, or a receive, on these numbers; true when none is
  // inside.
  virtual bool clear_accepts(std::span<const int> fds, Nanoseconds deadline) = 0;
};

class Retirement {
 public:
  // What belongs to a listener itself, so that a successor may change it and a revival
  // puts it back.
  struct SharedState {
    int status_flags = 0;
    int backlog = -1;     // -1: not to be known
    int reuse_port = -1;  // likewise: a successor may set it to listen beside it
  };
  struct Item {
    Listener listener{};
    int fd = -1;  // one number that holds it
    std::uint64_t inode = 0;
    // As it was before there was a successor; empty: as it is now.
    std::optional<SharedState> before{};
  };

  Retirement(const Sys& sys, int proc, int directory, Program& program, bool (*ours)(int fd));

  // Looks up where `items` are and makes what retiring them will need. Nothing
  // of the program's is touched. Replaces an earlier preparation.
  Status prepare(std::vector<Item> items);

  // Prepares these besides, whatever has been retired of the others by now.
  Status prepare_late(std::vector<Item> items);

  // Why prepare has failed, where the program is the reason; empty: it is not.
  [[nodiscard]] const std::string& obstacle() const { return obstacle_; }

  // Lets go of what prepare made; nothing has been retired.
  void abandon();

  // Retires the prepared listeners named by `ids`. What can fail has been done
  // by prepare. False: a thread was still inside accept at the deadline.
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline);

  // The rest, outside the time in which nobody accepts: puts the last stand-ins
  // in place, then finds what a race left behind and retires that too.
  void sweep();

  // Takes everything retired back.
  void revive();

  // Probation is over: lets go of the listeners that have been retired.
  void forget_listeners();
  // The same for the datagram sockets among these, which nobody takes back.
  void forget_datagrams(std::span<const std::uint32_t> ids);
  // After it, for a program that nothing else holds off: accept and receive on what has
  // been retired end with an error, or with nothing.
  void end_stand_ins();

  // The program's rings, as of the last look.
  [[nodiscard]] const std::vector<int>& rings() const { return rings_; }
  // Whether it is one of ours that has a listener's place.
  [[nodiscard]] bool is_stand_in(std::uint64_t inode) const;

  [[nodiscard]] bool any() const { return !seats_.empty(); }
  // Whether there are prepared listeners that the program still accepts from.
  [[nodiscard]] bool serves() const;
  [[nodiscard]] std::vector<Address> addresses() const;
  // What has been prepared, with the state that a revival will put back; in no order.
  [[nodiscard]] std::vector<Item> items() const;
  // The kept copy of a prepared listener, -1 if there is none.
  [[nodiscard]] int copy_of(std::uint32_t id) const;
  [[nodiscard]] bool is_retired(std::uint32_t id) const;
  // Whether the program made it one of several on its address.
  [[nodiscard]] bool is_grouped(std::uint32_t id) const;

 private:
  // A number that holds, or before it was retired held, a listener.
  struct Seat {
    int fd;
    std::size_t item;
    bool blocking;
    int fd_flags;
    bool retired;
    bool settled;  // the last stand-in is there, and watched
  };
  struct Kept {
    Item item;
    OwnedFd copy;
    int stand_in = -1;  // non-blocking
    std::uint64_t stand_in_inode = 0;
    int last_stand_in = -1;  // as the program left the listener
    OwnedFd answering{};     // which both are, if there is one
    SharedState before{};
    bool by_ring = false;  // a datagram socket, from which a ring receives
    bool retired = false;
  };

  // Where a ring has, or before it was retired had, a listener among its fixed files.
  struct FixedSeat {
    int ring;
    unsigned slot;
    std::size_t item;
  };

  Result<SharedState> read_state(int fd) const;
  Status prepare_item(Item item);
  void leave_out_from(std::size_t first);
  Status prepare_rings(const Holdings& holdings);
  bool prepare_ring_receives(const Holdings& holdings, std::size_t first);
  [[nodiscard]] bool is_called_for(std::uint64_t inode, const Holdings& holdings) const;
  bool deafen_rings(bool& any);
  void revive_rings();
  void adopt(const Holdings& holdings);
  void refresh();
  [[nodiscard]] std::unordered_set<int> retired_numbers() const;
  template <typename Visit>
  void for_each_watch(const Seat& seat, Visit visit);
  [[nodiscard]] bool keeps_place(const Kept& kept) const;
  [[nodiscard]] bool keeps_place(std::uint64_t inode) const;
  [[nodiscard]] const Kept* find_kept(std::uint32_t id) const;
  void leave_out_kept(Holdings& holdings) const;
  void leave_to_itself(Holdings& holdings) const;
  void replace_answering(Kept& kept, std::size_t item);
  void let_go_of_datagrams(std::span<const std::uint32_t> ids);
  void let_go(std::span<const std::uint32_t> ids);
  void restore_membership(const Kept& kept);
  void restore_shared_state(const Kept& kept);
  void swap(Seat& seat, Nanoseconds deadline);
  void replace(Seat& seat, int by);
  void watch_again(const Seat& seat);
  void watch(const Registration& registration, bool readable = true);
  void settle();
  void repair(const Registration& registration);
  [[nodiscard]] std::vector<std::uint64_t> inodes(bool retired_only) const;

  const Sys* sys_;
  Descriptors descriptors_;
  Rings ring_control_;
  Program* program_;
  bool (*ours_)(int fd);
  StandIns stand_ins_;
  std::vector<Kept> kept_;
  std::vector<Seat> seats_;
  std::multimap<int, Registration> registrations_;  // by number
  std::unordered_map<std::uint64_t, std::size_t> kept_by_inode_;
  std::unordered_map<std::uint32_t, std::size_t> kept_by_id_;
  std::vector<int> small_epolls_;
  std::vector<int> rings_;
  std::vector<FixedSeat> fixed_seats_;  // what has been replaced
  std::string obstacle_;
};

}  // namespace continuity
