// Where generations find each other: one directory per user, one listening
// socket per generation in it.
#pragma once

#include "core/channel.hpp"
#include "core/log.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"

#include <optional>
#include <string>
#include <vector>

namespace continuity {

class Rendezvous {
 public:
  // Opens the directory of `user` below `base`, or below the usual place if
  // that is empty, and makes it if it is missing. What it finds must be a real
  // directory, that user's and closed to all others; if it is not, the answer
  // is nothing and `problem` a sentence. Root may open other users' directories:
  // it does so before it becomes that user.
  static std::optional<Rendezvous> open(const Sys& sys, const std::string& base, uid_t user,
                                        std::string& problem);

  // A listening socket that nobody finds yet: between bind and listen, connect
  // is refused, and a socket is not to be found before somebody answers.
  Result<OwnedFd> make_door(std::uint64_t generation);
  // From now on others find it under identity and generation.
  Status announce(const std::string& identity, std::uint64_t generation);
  // Both.
  Result<OwnedFd> publish(const std::string& identity, std::uint64_t generation);
  void withdraw(const std::string& identity, std::uint64_t generation);

  struct Peer {
    std::string name;  // below the base directory
    uid_t owner = 0;   // of its directory: who must be on the other side
    Channel channel{};
  };
  // Connections to everybody who is there, our own `generation` excepted.
  // `unpublished`: to those as well who are not to be found yet, which answer
  // those that belong to them.
  // Sockets nobody listens on any more are removed. Root looks into everybody's
  // directory: a server that was started by root is somebody else by now.
  std::vector<Peer> connect_all(std::uint64_t generation, Log& log, bool unpublished = false);

  // While the answer is open, nobody else of this user has one: for processes that
  // must not all found the same generation at once. Waits.
  OwnedFd lock();

  // Whether anybody still listens at `name`. A door that refuses is the only
  // proof of death there is for a generation of many processes; one that is
  // missing proves nothing, anybody may have removed it.
  enum class Door { open, refuses, missing };
  Door knock(const std::string& name);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int directory() const { return directory_.get(); }
  // Descriptors of ours in here, appended to `fds`.
  void append_descriptors(std::vector<int>& fds) const {
    fds.push_back(base_.get());
    fds.push_back(directory_.get());
  }

 private:
  Rendezvous(const Sys& sys, OwnedFd base, OwnedFd directory, std::string base_path,
             std::string name)
      : sys_(&sys),
        base_(std::move(base)),
        directory_(std::move(directory)),
        name_(std::move(name)),
        path_(std::move(base_path) + "/" + name_) {}

  static std::optional<Rendezvous> open_below_tmp(const Sys& sys, uid_t user, std::string& problem);
  Result<OwnedFd> connect(int directory, const std::string& name, Nanoseconds deadline);
  Result<OwnedFd> listen_at(const std::string& name);
  [[nodiscard]] std::vector<std::string> directories() const;
  // False: somebody has been published meanwhile, and is perhaps not among them.
  bool connect_below(const std::string& directory, const std::string& own, bool unpublished,
                     Nanoseconds deadline, std::vector<Peer>& peers, Log& log);

  const Sys* sys_;
  OwnedFd base_;       // O_PATH: it may be closed to reading
  OwnedFd directory_;  // below it
  std::string name_;
  std::string path_;
};

}  // namespace continuity
