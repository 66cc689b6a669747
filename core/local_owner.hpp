// A generation of one process as an owner of listeners: what every face of
// the library does alike.
#pragma once

#include "core/holder.hpp"
#include "core/processes.hpp"
#include "core/retirement.hpp"

namespace continuity {

class LocalOwner : public Owner {
 public:
  // `proc` is an open /proc, `directory` the open rendezvous directory.
  LocalOwner(const Sys& sys, Log& log, int proc, int directory, Program& program,
             bool (*ours)(int fd));

  Status prepare(std::vector<Item> items) override;
  Status prepare_late(std::vector<Item> items) override;
  void abandon() override;
  int descriptor(std::uint32_t id) override;
  bool retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) override;
  void sweep() override;
  void revive() override;
  void forget_listeners() override;
  unsigned connections() override;
  bool holds(std::span<const std::uint64_t> inodes) override;
  void finish_idle() override;
  Holding holding() override;
  void close_listeners(std::span<const std::uint32_t> ids) override;
  void send_signal(int signal) override;
  void meet(pid_t successor) override;
  ProcessWatch* successor_watch() override { return &successor_watch_; }

  // To whoever manages this program as a service.
  virtual void name_main_process(pid_t /*main*/) {}

  void shut_out(std::span<const std::uint32_t> ids) override;
  // Closing them, before and after they are retired: no newcomer is let in, and their
  // queues are empty; then they end, whoever has a copy. Until they are forgotten, too, a
  // revival makes them listen again.
  void serve_dry(std::span<const std::uint32_t> ids);
  void end_listeners(std::span<const std::uint32_t> ids);
  // These had been shut out by the process that led before.
  void note_shut_out(std::vector<std::uint32_t> ids) { shut_out_ = std::move(ids); }
  // See Retirement.
  [[nodiscard]] std::vector<Item> prepared_items() const { return retirement_.items(); }
  void end_stand_ins() { retirement_.end_stand_ins(); }
  [[nodiscard]] bool serves() const { return retirement_.serves(); }
  [[nodiscard]] std::vector<Address> retired_addresses() const { return retirement_.addresses(); }

 protected:
  [[nodiscard]] const Sys& sys() const { return *sys_; }

 private:
  [[nodiscard]] unsigned fixed_connections() const;
  void let_newcomers_in();
  void wait_until_dry(std::span<const std::uint32_t> ids);
  void stop_listening(std::span<const std::uint32_t> ids);

  const Sys* sys_;
  Log* log_;
  bool (*ours_)(int fd);
  Processes processes_;
  ProcessWatch successor_watch_;
  Descriptors descriptors_;
  Rings rings_;
  Retirement retirement_;
  Descriptors::Connections last_seen_;
  std::vector<std::uint32_t> shut_out_;  // nobody new is served there, by us
};

}  // namespace continuity
