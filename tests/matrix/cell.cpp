#include "cell.hpp"

#include "family_tree.hpp"
#include "support/load_driver.hpp"
#include "trial.hpp"

#include <algorithm>
#include <csignal>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <unistd.h>
#include <utility>

namespace continuity::test {
namespace {

using std::chrono::milliseconds;

const Arguments server_loop{"epoll-level"};

bool is_among(const std::string& action, const std::set<std::string>& actions) {
  return actions.contains(action);
}

class Trial {
 public:
  Trial(Cell cell, Conditions conditions)
      : cell_(std::move(cell)), conditions_(std::move(conditions)) {}

  Result run() {
    start();
    happen();
    come_to_a_verdict();
    if (wake()) {
      come_to_a_verdict();
    }
    see_who_serves();
    count();
    follow();
    return result_;
  }

 private:
  [[nodiscard]] bool is_victim(Side side) const { return cell_.victim == side; }
  Process& victim() { return is_victim(Side::predecessor) ? *predecessor_ : *successor_; }
  [[nodiscard]] bool is_ended() const {
    return is_among(cell_.action, {"kill", "segv", "exit0", "exit1"});
  }
  void fail(const std::string& problem) {
    result_.problem += (result_.problem.empty() ? "" : "; ") + problem;
  }

  Environment environment_of(Side side) {
    // Who hangs is killed while the other one can still come back.
    const bool hangs_as_owner = cell_.action == "hang" && is_victim(Side::successor) &&
                                cell_.message != MessageType::healthy;
    const std::string probation =
        conditions_.probation.empty() ? (hangs_as_owner ? "20s" : "300ms") : conditions_.probation;
    Environment environment{"CONTINUITY_READY_TIMEOUT=1s", "CONTINUITY_PROBATION=" + probation};
    add_faults(environment, conditions_, is_victim(side) ? event_of(cell_, cell_.action) : "");
    return environment;
  }

  void start() {
    place_.environment = environment_of(Side::predecessor);
    predecessor_.emplace(place_.start(server_loop));
    load_.emplace(Load::silent(place_.address(), *predecessor_));
    if (!load_->await_ok(20)) {
      throw std::runtime_error("the first server does not serve");
    }
    place_.environment = environment_of(Side::successor);
    successor_.emplace(place_.spawn(server_loop));
    load_->watch(successor_->pid());
  }

  void happen() {
    if (cell_.when != "later") {
      victim().await_log(it_happens);
      return;
    }
    successor_->await_log("took over");
    if (conditions_.probation == "0s") {
      // It may still hear of a death for a moment, as long as it rests after RETIRED.
      predecessor_->wait_exit();
    }
    const std::map<std::string, int> signals{
        {"kill", SIGKILL}, {"segv", SIGSEGV}, {"stop", SIGSTOP}};
    victim().signal(signals.at(cell_.action));
  }

  // Its answer tells, too: it may have found nobody to take over from. A frozen owner
  // would not answer.
  [[nodiscard]] bool has_taken_over() {
    const bool may_ask = cell_.action != "stop" || is_awake_;
    return successor_->logged("took over") > 0 ||
           (may_ask && answer_from(place_.address()) == answer_of(*successor_));
  }

  // Until each side knows how it has ended, as far as it can.
  void come_to_a_verdict() {
    if (is_victim(Side::successor) && (cell_.action == "stop" || cell_.action == "hang") &&
        !is_awake_) {
      // It is told to end, or has taken over; or nobody knows it yet.
      wait_until(
          [&] {
            return predecessor_->logged("was not ready") + predecessor_->logged("handed") > 0;
          },
          milliseconds(2500));
      return;
    }
    if (!wait_until([&] { return !successor_->is_running() || has_taken_over(); })) {
      fail("the successor neither took over nor ended");
    }
  }

  // True: what was frozen goes on.
  bool wake() {
    is_awake_ = true;
    if (cell_.action == "stop") {
      comes_to_stop(victim().pid());  // it says so before it does
      victim().signal(SIGCONT);
      return true;
    }
    if (cell_.action != "hang") {
      return false;
    }
    // The thread that hangs is the program's own until it has taken over, and ours then.
    if (is_victim(Side::successor) && cell_.message != MessageType::healthy) {
      if (successor_->is_running()) {
        is_frozen_ = predecessor_->logged("handed") > 0;
        successor_->signal(SIGKILL);
      }
    } else if (!successor_->is_running() &&
               (cell_.when == "swap" || cell_.row() == "predecessor:before:RETIRED")) {
      // It is deaf, and what would hear again hangs.
      is_frozen_ = true;
      predecessor_->signal(SIGKILL);
      predecessor_->wait_exit();
    }
    return false;
  }

  // The same process, again and again: there are not two owners.
  std::string answer_of_one() {
    constexpr int asked = 12;
    std::string answer;
    const bool one = wait_until(
        [&] {
          answer = answer_from(place_.address());
          for (int i = 1; i < asked; ++i) {
            if (answer_from(place_.address()) != answer) {
              return false;
            }
          }
          return true;
        },
        milliseconds(8000));
    return one ? answer : "several";
  }

  // An owner that has ended, and nobody is there to come back.
  [[nodiscard]] bool is_the_end() {
    if (!is_victim(Side::successor) || !is_ended()) {
      return false;
    }
    const bool is_known_why =
        conditions_.without != "pidfd_open" &&
        // Else it depends on whether we have waited for it by then.
        (conditions_.without != "pidfd_info" || predecessor_->logged("as it was meant to") > 0);
    return cell_.message == MessageType::healthy ||
           // Who was not told that it may take over has not, whyever it ended.
           (is_known_why && cell_.action == "exit0" && cell_.message >= MessageType::ready &&
            cell_.row() != "successor:before:READY" && cell_.row() != "successor:after:READY");
  }

  void see_who_serves() {
    if (is_the_end()) {
      result_.fate = Result::Fate::ended;
      if (!wait_until([&] { return answer_from(place_.address()) == "ECONNREFUSED"; })) {
        fail("somebody serves on");
      }
      return;
    }
    if (is_frozen_ && is_victim(Side::predecessor)) {
      result_.fate = Result::Fate::frozen;
      return;
    }
    const std::string answer = answer_of_one();
    if (answer == answer_of(*predecessor_)) {
      result_.fate = is_frozen_ ? Result::Fate::frozen : Result::Fate::kept;
      // It has been told to, or has seen why itself.
      if (!wait_until([&] { return !successor_->is_running(); }, milliseconds(8000))) {
        fail("the successor is still there");
      } else if (const int status = successor_->wait_exit();
                 status == 0 && cell_.action != "exit0") {
        fail("the successor ended with status 0");
      }
    } else if (answer == answer_of(*successor_)) {
      result_.fate = Result::Fate::taken_over;
      if (cell_.action != "hang" || !is_victim(Side::predecessor)) {
        if (!wait_until([&] { return !predecessor_->is_running(); }, milliseconds(8000))) {
          fail("the predecessor is still there");
        }
      }
    } else {
      fail("answers: " + answer);
    }
  }

  void count() {
    const bool serves = result_.fate == Result::Fate::kept ||
                        result_.fate == Result::Fate::taken_over ||
                        (result_.fate == Result::Fate::frozen && is_victim(Side::successor));
    if (!serves) {
      return;  // whoever comes is refused, as by any server that is not there
    }
    if (!load_->await_ok(20)) {
      fail("nobody serves");
    }
    const std::string stats = load_->stats();
    result_.lost = std::stol(json_value(stats, "failed"));
    if (is_last_holder()) {
      result_.accepted = std::exchange(result_.lost, 0);
    } else if (is_ended() || cell_.action == "hang") {
      // Only what was accepted is closed like that: what waits in a queue of which somebody
      // has a copy stays there, and is reset where nobody has one.
      result_.accepted = resets_of(stats, victim().pid()) + std::stol(json_value(stats, "closed"));
      result_.lost -= result_.accepted;
    }
    if (result_.lost != 0) {
      fail("lost: " + stats);
    }
  }

  // The owner has ended before anybody else had its listener: until the successor listens
  // itself, whoever comes is refused.
  [[nodiscard]] bool is_last_holder() const {
    return is_victim(Side::predecessor) && is_ended() && cell_.message <= MessageType::grant &&
           !(cell_.message == MessageType::grant && cell_.when == "after");
  }

  // The next restart is like any other, unless who would hand over has no means to.
  void follow() {
    const Process& owner = result_.fate == Result::Fate::taken_over ? *successor_ : *predecessor_;
    const bool may_refuse = owner.pid() == victim().pid() && !is_ended() && cell_.action != "stop";
    load_.reset();
    place_.environment = {"CONTINUITY_BUSY=wait", "CONTINUITY_LOG=debug"};
    add_faults(place_.environment, conditions_, "");
    Process next = place_.spawn(server_loop);
    const bool served = wait_until(
        [&] { return !next.is_running() || answer_from(place_.address()) == answer_of(next); });
    if (!served || !(next.is_running() || may_refuse)) {
      std::string said;
      for (const std::string& line : next.log()) {
        said += " | " + line;
      }
      fail(std::string("the next restart ") + (next.is_running() ? "hangs" : "ends") + ":" + said);
    }
  }

  Cell cell_;
  Conditions conditions_;
  Place place_{};
  std::optional<Process> predecessor_{};
  std::optional<Process> successor_{};
  std::optional<Load> load_{};
  bool is_awake_ = false;
  bool is_frozen_ = false;
  Result result_{};

 public:
  std::string logs() { return logs_of({&predecessor_, &successor_}); }
};

}  // namespace

Result run(const Cell& cell, const Conditions& conditions) {
  if (!cell.who.empty()) {
    return run_family(cell, conditions);
  }
  return result_of(Trial(cell, conditions));
}

}  // namespace continuity::test
