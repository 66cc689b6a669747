#include "cells.hpp"

#include <algorithm>

namespace continuity::test {
namespace {

struct Sent {
  MessageType type;
  const char* name;
  Side sender;
};

const std::vector<Sent>& conversation() {
  static const std::vector<Sent> messages{
      {MessageType::hello, "HELLO", Side::successor},
      {MessageType::inventory, "INVENTORY", Side::predecessor},
      {MessageType::claim, "CLAIM", Side::successor},
      {MessageType::grant, "GRANT", Side::predecessor},
      {MessageType::got, "GOT", Side::successor},
      {MessageType::ready, "READY", Side::successor},
      {MessageType::retired, "RETIRED", Side::predecessor},
      {MessageType::healthy, "HEALTHY", Side::predecessor},
  };
  return messages;
}

Side other(Side side) {
  return side == Side::predecessor ? Side::successor : Side::predecessor;
}

const std::vector<std::string>& sudden_ends() {
  static const std::vector<std::string> actions{"kill", "segv", "exit0", "exit1"};
  return actions;
}

const std::vector<std::string>& of_messages() {
  static const std::vector<std::string> actions{"garbage", "truncate", "more", "fewer", "others"};
  return actions;
}

// Of a server of several processes. A predecessor's main process leads; a successor has its
// workers when it has been granted everything, and one of them says READY.
void add_families(std::vector<Cell>& cells) {
  const auto add = [&](Side victim, const char* when, MessageType message) {
    const bool is_predecessor = victim == Side::predecessor;
    std::vector<std::string> processes{"leader", "other"};
    if (!is_predecessor) {
      processes.emplace_back("main");
    }
    for (const std::string& who : processes) {
      for (const char* action : {"kill", "stop"}) {
        cells.push_back({victim, when, message, action, who});
      }
      if (is_predecessor && who == "leader" && message >= MessageType::ready &&
          message != MessageType::healthy) {
        cells.push_back({victim, when, message, "twice", who});
      }
    }
  };
  for (const Sent& sent : conversation()) {
    const Side receiver = other(sent.sender);
    for (const char* when : {"before", "after"}) {
      if (sent.sender == Side::predecessor || sent.type >= MessageType::ready) {
        add(sent.sender, when, sent.type);
      }
    }
    if (receiver == Side::predecessor || sent.type >= MessageType::ready) {
      add(receiver, "got", sent.type);
    }
    if (sent.type == MessageType::ready) {
      add(Side::predecessor, "swap", sent.type);
    }
    if (sent.type == MessageType::retired) {
      add(Side::predecessor, "later", sent.type);
      add(Side::successor, "later", sent.type);
    }
  }
}

}  // namespace

const std::vector<std::string>& all_actions() {
  static const std::vector<std::string> actions{"kill",     "segv",   "exit0",  "exit1",  "stop",
                                                "hang",     "emfile", "enomem", "enospc", "garbage",
                                                "truncate", "more",   "fewer",  "others", "twice"};
  return actions;
}

std::string Cell::row() const {
  const auto& messages = conversation();
  const auto sent = std::find_if(messages.begin(), messages.end(),
                                 [&](const Sent& one) { return one.type == message; });
  return std::string(victim == Side::predecessor ? "predecessor" : "successor") +
         (who.empty() ? "" : "/" + who) + ":" + when + ":" + sent->name;
}

std::vector<Cell> all_cells() {
  std::vector<Cell> cells;
  const auto add = [&](Side victim, const char* when, MessageType message,
                       const std::vector<std::string>& actions) {
    for (const std::string& action : actions) {
      cells.push_back({victim, when, message, action});
    }
  };
  const std::vector<std::string> of_calls{"stop", "hang", "emfile", "enomem", "enospc"};
  const auto add_moment = [&](Side victim, const char* when, MessageType message) {
    add(victim, when, message, sudden_ends());
    add(victim, when, message, of_calls);
  };
  for (const Sent& sent : conversation()) {
    add_moment(sent.sender, "before", sent.type);
    for (const std::string& action : of_messages()) {
      const bool carries_descriptors = sent.type == MessageType::grant;
      if (carries_descriptors || (action != "fewer" && action != "others")) {
        cells.push_back({sent.sender, "before", sent.type, action});
      }
    }
    add_moment(sent.sender, "after", sent.type);
    add_moment(other(sent.sender), "got", sent.type);
    if (sent.type == MessageType::ready) {
      add_moment(Side::predecessor, "swap", sent.type);
    }
    if (sent.type == MessageType::retired) {
      for (const Side victim : {Side::predecessor, Side::successor}) {
        add(victim, "later", sent.type, {"kill", "segv", "stop"});
      }
    }
  }
  add_families(cells);
  return cells;
}

}  // namespace continuity::test
