// continuity-matrix: see `usage`.
#include "cell.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <fcntl.h>
#include <map>
#include <poll.h>
#include <random>
#include <set>
#include <stdexcept>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using namespace continuity::test;

constexpr const char* usage = R"(usage: continuity-matrix [OPTION...] [CELL...]

Restarts a small server under load again and again, and each time something happens to one
of the two sides at one moment of their conversation, or, of a server of several processes,
to one process of it. Nothing may be lost but what a process
had accepted that was ended, there must be somebody who serves, and never two.

  --sample N        so many cells, drawn at random (default: all)
  --seed N          to draw the same again
  --jobs N          so many at a time (default 4)
  --without NAME    on a kernel that does not have this system call, or pidfd_info (how a
                    process has ended), netns_cookie, socket_filter (not for everybody),
                    sock_diag
  --probation TIME  CONTINUITY_PROBATION; with 0s nobody comes back, and that shows
  --list            the names of all cells

CELLs are names, or beginnings of names, such as "successor:before:READY".

Exit status: 0 all is as it should be, 1 not; 2 wrong usage.
)";

struct Wanted {
  std::size_t sample = 0;
  unsigned seed = std::random_device{}();
  std::size_t jobs = 4;
  bool lists = false;
  Conditions conditions{};
  std::vector<std::string> names{};
};

struct Job {
  std::size_t cell;
  pid_t pid;
  int fd;
  std::string text{};
};

bool read_number(std::string_view text, auto& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size();
}

bool read_arguments(const std::vector<std::string>& arguments, Wanted& wanted) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const std::string value = i + 1 < arguments.size() ? arguments[i + 1] : "";
    if (argument == "--list") {
      wanted.lists = true;
    } else if (argument == "--sample" || argument == "--jobs") {
      std::size_t& number = argument == "--sample" ? wanted.sample : wanted.jobs;
      if (!read_number(value, number) || number == 0) {
        return false;
      }
      ++i;
    } else if (argument == "--without" || argument == "--probation") {
      (argument == "--without" ? wanted.conditions.without : wanted.conditions.probation) = value;
      ++i;
    } else if (argument == "--seed") {
      if (!read_number(value, wanted.seed)) {
        return false;
      }
      ++i;
    } else if (argument.starts_with("-")) {
      return false;
    } else {
      wanted.names.push_back(argument);
    }
  }
  return true;
}

std::vector<Cell> choose(const Wanted& wanted) {
  auto cells = all_cells();
  if (!wanted.names.empty()) {
    std::erase_if(cells, [&](const Cell& cell) {
      return std::none_of(wanted.names.begin(), wanted.names.end(),
                          [&](const std::string& name) { return cell.name().starts_with(name); });
    });
  }
  if (wanted.sample != 0 && wanted.sample < cells.size()) {
    std::vector<Cell> some;
    std::sample(cells.begin(), cells.end(), std::back_inserter(some), wanted.sample,
                std::mt19937(wanted.seed));
    return some;
  }
  return cells;
}

// In a process of its own: what it starts ends with it.
Job begin(std::size_t index, const Cell& cell, const Conditions& conditions) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
    throw std::runtime_error("no pipe");
  }
  const pid_t pid = ::fork();
  if (pid == 0) {
    const Result result = run(cell, conditions);
    const std::string text = fmt::format("{}{} {} {}", static_cast<char>(result.fate), result.lost,
                                         result.accepted, result.problem);
    static_cast<void>(::write(pipe[1], text.data(), text.size()));
    ::_exit(0);
  }
  ::close(pipe[1]);
  return {index, pid, pipe[0]};
}

// True once it has ended.
bool collect(Job& job) {
  std::array<char, 4096> room{};
  const ssize_t size = ::read(job.fd, room.data(), room.size());
  if (size > 0) {
    job.text.append(room.data(), static_cast<std::size_t>(size));
    return false;
  }
  ::close(job.fd);
  ::waitpid(job.pid, nullptr, 0);
  return true;
}

class Table {
 public:
  explicit Table(const std::vector<Cell>& cells) : cells_(cells) {}

  void add(const Job& job) {
    const Cell& cell = cells_[job.cell];
    const std::string& text = job.text;
    const auto problem = text.find(' ', text.find(' ') + 1);
    const bool is_well = problem != std::string::npos && problem + 1 == text.size();
    marks_[cell.row()][cell.action] = is_well ? text.substr(0, 1) : "!";
    if (is_well) {
      accepted_ += std::stol(text.substr(text.find(' ')));
    } else {
      ++wrong_;
      fmt::print("WRONG {}: {}\n", cell.name(),
                 text.empty() ? "it has ended" : text.substr(std::min(problem + 1, text.size())));
    }
  }

  void print() const {
    std::vector<std::string> rows;
    for (const Cell& cell : cells_) {
      if (rows.empty() || rows.back() != cell.row()) {
        rows.push_back(cell.row());
      }
    }
    fmt::print("\n{:32}", "");
    for (const std::string& action : all_actions()) {
      fmt::print(" {:>8}", action);
    }
    for (const std::string& row : rows) {
      fmt::print("\n{:32}", row);
      for (const std::string& action : all_actions()) {
        const auto& marks = marks_.at(row);
        const auto mark = marks.find(action);
        fmt::print(" {:>8}", mark == marks.end() ? "" : mark->second);
      }
    }
    fmt::print(
        "\n\nC the successor serves, P the predecessor; D nobody: the successor has ended on "
        "purpose, or after\nits probation; F the owner was frozen, as any stopped server; ! "
        "wrong\n\n"
        "{} cells, {} wrong; {} requests ended with the process that had accepted them, no other "
        "was lost{}\n",
        cells_.size(), wrong_, accepted_, wrong_ == 0 ? "" : " elsewhere");
  }
  [[nodiscard]] bool is_well() const { return wrong_ == 0; }

 private:
  const std::vector<Cell>& cells_;
  std::map<std::string, std::map<std::string, std::string>> marks_{};
  long accepted_ = 0;
  int wrong_ = 0;
};

bool run_all(const std::vector<Cell>& cells, const Wanted& wanted) {
  Table table(cells);
  std::vector<Job> jobs;
  for (std::size_t next = 0; next < cells.size() || !jobs.empty();) {
    if (next < cells.size() && jobs.size() < wanted.jobs) {
      jobs.push_back(begin(next, cells[next], wanted.conditions));
      ++next;
      continue;
    }
    std::vector<pollfd> fds;
    for (const Job& job : jobs) {
      fds.push_back({.fd = job.fd, .events = POLLIN, .revents = 0});
    }
    ::poll(fds.data(), fds.size(), -1);
    for (std::size_t i = jobs.size(); i-- > 0;) {
      if (fds[i].revents != 0 && collect(jobs[i])) {
        table.add(jobs[i]);
        jobs.erase(jobs.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    static_cast<void>(std::fflush(stdout));
  }
  table.print();
  return table.is_well();
}

int run_main(const std::vector<std::string>& arguments) {
  Wanted wanted;
  if (!read_arguments(arguments, wanted)) {
    fmt::print(stderr, "{}", usage);
    return 2;
  }
  const auto cells = choose(wanted);
  if (wanted.lists) {
    for (const Cell& cell : cells) {
      fmt::print("{}\n", cell.name());
    }
    return 0;
  }
  if (cells.empty()) {
    fmt::print(stderr, "continuity-matrix: there is no such cell\n");
    return 2;
  }
  if (wanted.sample != 0) {
    fmt::print("{} cells, --seed {}\n", cells.size(), wanted.seed);
  }
  return run_all(cells, wanted) ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run_main({arguments + 1, arguments + count});
  } catch (const std::exception& problem) {
    static_cast<void>(std::fprintf(stderr, "continuity-matrix: %s\n", problem.what()));
    return 111;
  }
}
