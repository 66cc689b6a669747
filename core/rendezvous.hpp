// Where generations find each other: one directory per user, one listening
// socket per generation in it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/channel.hpp"
#include "core/log.hpp"
#include "core/owned_fd.hpp"
#include "core/result.hpp"

namespace continuity {

class Rendezvous {
 public:
  // Opens the directory of the effective user below `base`, or below the usual
  // place if that is empty, and makes it if it is missing. What it finds must
  // be a real directory, this user's and closed to all others; if it is not,
  // the answer is nothing and `problem` a sentence.
  static std::optional<Rendezvous> open(const Sys& sys, const std::string& base,
                                        std::string& problem);

  // A listening socket that others find under identity and generation. Bound
  // under another name first: between bind and listen, connect is refused.
  Result<OwnedFd> publish(const std::string& identity, std::uint64_t generation);
  void withdraw(const std::string& identity, std::uint64_t generation);

  struct Peer {
    std::string name;
    Channel channel;
  };
  // Connections to everybody who is there, our own `generation` excepted.
  // Sockets nobody listens on any more are removed.
  std::vector<Peer> connect_all(std::uint64_t generation, Log& log);

  // Whether anybody still listens at `name`: the only proof of death there is
  // for a generation of many processes.
  bool is_served(const std::string& name);

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Rendezvous(const Sys& sys, OwnedFd directory, std::string path)
      : sys_(&sys), directory_(std::move(directory)), path_(std::move(path)) {}

  Result<OwnedFd> connect(const std::string& name);
  Result<OwnedFd> listen_at(const std::string& name);

  const Sys* sys_;
  OwnedFd directory_;
  std::string path_;
};

}  // namespace continuity
