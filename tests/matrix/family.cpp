// One restart of a server of several processes, to one of which something happens.
//
// Both sides are a main process, which waits for no client, and two workers, which live on
// without it. So whatever happens to one process of them, the others can go on.
#include "family_tree.hpp"
#include "support/client.hpp"
#include "support/load_driver.hpp"
#include "trial.hpp"

#include <algorithm>
#include <csignal>
#include <optional>
#include <stdexcept>
#include <unistd.h>
#include <utility>

namespace continuity::test {
namespace {

using std::chrono::milliseconds;

const Arguments server_loop{"--workers", "2", "fork-and-forget"};

class FamilyTrial {
 public:
  FamilyTrial(Cell cell, Conditions conditions)
      : cell_(std::move(cell)), conditions_(std::move(conditions)) {}

  Result run() {
    start();
    happen();
    come_to_a_verdict();
    if (is_stopped()) {
      ::kill(victim_, SIGCONT);
      is_awake_ = true;
      come_to_a_verdict();
    }
    if (cell_.action == "twice") {
      lose_successor();
    }
    see_who_serves();
    count();
    follow();
    return result_;
  }

 private:
  [[nodiscard]] bool is_victim(Side side) const { return cell_.victim == side; }
  [[nodiscard]] bool is_stopped() const { return cell_.action == "stop"; }
  // To the process at which it happens; or that one waits while it happens to another.
  [[nodiscard]] bool is_acting() const { return cell_.who == "leader"; }
  void fail(const std::string& problem) {
    result_.problem += (result_.problem.empty() ? "" : "; ") + problem;
  }

  [[nodiscard]] Environment environment_of(Side side) const {
    const bool comes_back = cell_.action == "twice";
    const std::string probation =
        conditions_.probation.empty() ? (comes_back ? "20s" : "500ms") : conditions_.probation;
    Environment environment{"CONTINUITY_READY_TIMEOUT=1s", "CONTINUITY_PROBATION=" + probation};
    const std::string action = is_acting() && !is_stopped() ? "kill" : "stop";
    add_faults(environment, conditions_, is_victim(side) ? event_of(cell_, action) : "");
    return environment;
  }

  void start() {
    place_.environment = environment_of(Side::predecessor);
    predecessor_.emplace(place_.start(server_loop));
    // Until both wait for work.
    who_answers(place_.address(), 2);
    old_ones_ = family_of(predecessor_->pid());
    load_.emplace(Load::silent(place_.address(), *predecessor_));
    watch(old_ones_);
    if (old_ones_.size() != 3 || !load_->await_ok(20)) {
      throw std::runtime_error("the first server does not serve");
    }
    place_.environment = environment_of(Side::successor);
    successor_.emplace(place_.spawn(server_loop));
  }

  void watch(const std::set<pid_t>& processes) {
    for (const pid_t process : processes) {
      load_->watch(process);
    }
  }

  [[nodiscard]] std::set<pid_t> new_ones() const {
    auto processes = server_processes();
    std::erase_if(processes, [&](pid_t process) { return old_ones_.contains(process); });
    return processes;
  }

  pid_t choose(pid_t acting) {
    const bool is_predecessor = is_victim(Side::predecessor);
    const pid_t main = is_predecessor ? predecessor_->pid() : successor_->pid();
    if (cell_.who == "leader") {
      return acting;
    }
    if (cell_.who == "main") {
      return main;
    }
    // A worker that is about to be forked comes.
    pid_t chosen = 0;
    wait_until([&] {
      const auto family = is_predecessor ? old_ones_ : new_ones();
      for (const pid_t process : family) {
        chosen = process != acting && process != main ? process : chosen;
      }
      return chosen != 0;
    });
    return chosen;
  }

  void happen() {
    Process& side = is_victim(Side::predecessor) ? *predecessor_ : *successor_;
    const bool later = cell_.when == "later";
    const std::string line =
        later ? successor_->await_log("took over") : side.await_log(it_happens);
    pid_t acting = 0;
    if (!later) {
      acting = static_cast<pid_t>(number_in(line, "pid"));
    } else if (is_victim(Side::predecessor)) {
      acting = predecessor_->pid();
    } else {
      acting = static_cast<pid_t>(std::stol(line.substr(line.find('[') + 1)));
    }
    watch(new_ones());
    victim_ = choose(acting);
    ended_.insert(victim_);
    if (is_acting() && !later) {
      return;
    }
    if (!later) {
      comes_to_stop(acting);
    }
    ::kill(victim_, is_stopped() ? SIGSTOP : SIGKILL);
    if (!later && victim_ != acting) {
      ::kill(acting, SIGCONT);
    }
  }

  [[nodiscard]] bool is_of_successor(const std::string& answer) const {
    return answer.starts_with("pid=") &&
           !old_ones_.contains(static_cast<pid_t>(number_in(answer, "pid")));
  }

  // Until it is known whether the successor takes over.
  void come_to_a_verdict() {
    const bool known = wait_until([&] {
      return new_ones().empty() || successor_->logged("took over") > 0 ||
             // Who is stopped may have to be woken first.
             (is_stopped() && !is_awake_ &&
              (predecessor_->logged("was not ready") > 0 || predecessor_->logged("handed") > 0));
    });
    if (!known) {
      fail("the successor neither took over nor ended");
    }
  }

  // All of it, without a goodbye: its main process first, of which it is known how it ended.
  void lose_successor() {
    const auto processes = new_ones();
    watch(processes);
    ended_.insert(processes.begin(), processes.end());
    ::kill(successor_->pid(), SIGKILL);
    for (const pid_t process : processes) {
      ::kill(process, SIGKILL);
    }
    have_ended(processes);
  }

  // Of one side only, again and again: there are not two owners.
  std::optional<Side> side_that_answers() {
    constexpr int asked = 12;
    std::optional<Side> side;
    wait_until(
        [&] {
          side.reset();
          for (int i = 0; i < asked; ++i) {
            const std::string answer = answer_from(place_.address());
            const Side one = is_of_successor(answer) ? Side::successor : Side::predecessor;
            if (!answer.starts_with("pid=") || (side && *side != one)) {
              side.reset();
              return false;
            }
            side = one;
          }
          return true;
        },
        milliseconds(8000));
    return side;
  }

  // One that dies leaves others, which can do all that it could.
  [[nodiscard]] Side expected() const {
    return cell_.action == "twice" ? Side::predecessor : Side::successor;
  }

  void see_who_serves() {
    const auto side = side_that_answers();
    if (!side) {
      fail("nobody answers, or several");
      return;
    }
    const bool is_kept = *side == Side::predecessor;
    result_.fate = is_kept ? Result::Fate::kept : Result::Fate::taken_over;
    if (!is_stopped() && *side != expected()) {
      fail(is_kept ? "the restart did not go on" : "nobody came back");
    }
    const bool ended = is_kept ? wait_until([&] { return new_ones().empty(); }, milliseconds(8000))
                               : have_ended(old_ones_);
    if (!ended) {
      fail(is_kept ? "the successor is still there" : "the predecessor is still there");
    }
  }

  void count() {
    if (!load_->await_ok(20)) {
      fail("nobody serves");
    }
    const std::string stats = load_->stats();
    result_.lost = std::stol(json_value(stats, "failed"));
    if (!is_stopped()) {
      // What a process had accepted ends with it. The queue of the listener does not, since
      // the others have it.
      result_.accepted = std::stol(json_value(stats, "closed"));
      for (const pid_t process : ended_) {
        result_.accepted += resets_of(stats, process);
      }
      result_.lost -= result_.accepted;
    }
    if (result_.lost != 0) {
      fail("lost: " + stats);
    }
  }

  // The next restart is like any other.
  void follow() {
    load_.reset();
    place_.environment = {"CONTINUITY_BUSY=wait", "CONTINUITY_LOG=debug"};
    add_faults(place_.environment, conditions_, "");
    const auto before = server_processes();
    next_.emplace(place_.spawn(server_loop));
    const bool served = wait_until([&] {
      const std::string answer = answer_from(place_.address());
      return !next_->is_running() ||
             (answer.starts_with("pid=") &&
              !before.contains(static_cast<pid_t>(number_in(answer, "pid"))));
    });
    if (!served || !next_->is_running()) {
      fail(std::string("the next restart ") + (next_->is_running() ? "hangs" : "ends"));
    }
  }

  Cell cell_;
  Conditions conditions_;
  FamilyPlace place_{};
  std::optional<Process> predecessor_{};
  std::optional<Process> successor_{};
  std::optional<Process> next_{};
  std::optional<Load> load_{};
  std::set<pid_t> old_ones_{};
  pid_t victim_ = 0;
  std::set<pid_t> ended_{};  // by us
  bool is_awake_ = false;
  Result result_{};

 public:
  std::string logs() { return logs_of({&predecessor_, &successor_, &next_}); }
};

}  // namespace

Result run_family(const Cell& cell, const Conditions& conditions) {
  return result_of(FamilyTrial(cell, conditions));
}

}  // namespace continuity::test
