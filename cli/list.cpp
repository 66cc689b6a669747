// continuity list: who is at the rendezvous.
#include "cli/command.hpp"
#include "cli/output.hpp"

namespace continuity::cli {

void add_list(CLI::App& application, Exit& exit) {
  CLI::App* command = application.add_subcommand("list", "who can be restarted here");
  command->callback([&exit] { exit = complain(Exit::failed, "list: not there yet"); });
}

}  // namespace continuity::cli
