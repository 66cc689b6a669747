// The servers that are at the rendezvous, and what each says of itself.
#pragma once

#include "cli/command.hpp"
#include "core/channel.hpp"
#include "core/log.hpp"
#include "core/options.hpp"
#include "core/rendezvous.hpp"
#include "core/start.hpp"

#include <optional>
#include <string>
#include <vector>

namespace continuity::cli {

// A generation of a server.
struct Server {
  std::string name{};
  std::uint64_t generation = 0;
  uid_t user = 0;
  pid_t pid = 0;  // its main process
  // What it answers with; of an earlier release, or one that is stopped, only its name is
  // known and who has made its socket.
  enum class Answer { report, none, silent, earlier };
  Answer answer = Answer::none;
  Message report{};
  // Who has sent it, as the kernel says: of a server that root has started, a process that
  // has become somebody else may answer as well.
  Credentials sender{};
  Channel channel{};

  // A word of libcontinuity(7): "active", "draining" ...
  [[nodiscard]] std::string state() const;
  // Whether it has what a successor would claim; of who cannot say it, it is taken to.
  [[nodiscard]] bool serves() const;
  // Asks again; false: it does not answer any more.
  bool refresh();
  // Whether what it says can be acted upon: a process of ours, or of root's, has said it.
  [[nodiscard]] bool is_trusted() const;
  // How it was started, as it says itself or, of one that cannot, as /proc has it.
  // Nothing: it may not be known.
  std::optional<Start> start();
};

// "1000/nginx.00000000000000ff.sock", or without the directory: the name and the generation.
// False: it is no name of a socket at the rendezvous.
bool read_door(std::string_view door, Server& server);

// Who does not answer within this is stopped.
constexpr Nanoseconds answer_time = second;

// Everybody there is: of this user, or, for root, of all.
std::vector<Server> find_servers(Rendezvous& rendezvous, Nanoseconds patience = answer_time);
// The same. Nothing, and said: the rendezvous cannot be opened.
std::optional<std::vector<Server>> find_servers();

// Those of a name, or the one of a pid, those that serve first; if there are none it is said
// who is there.
Exit find_named(const std::string& name, std::vector<Server>& servers);
// The one of these that can be restarted; otherwise it is said why not.
Exit find_active(const std::string& name, Server& server);

// What the library would read of this environment, or of our own; no complaints.
Options options_of(const std::vector<std::string>& environment);
Options own_options();

}  // namespace continuity::cli
