// continuity doctor: will it work here, and if not, why, and what to do.
#include "cli/doctor.hpp"

#include "cli/command.hpp"
#include "cli/describe.hpp"
#include "cli/launch.hpp"
#include "cli/output.hpp"
#include "cli/program_file.hpp"
#include "cli/servers.hpp"
#include "core/options.hpp"
#include "core/proc_text.hpp"
#include "core/processes.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <unistd.h>

namespace continuity::cli {
namespace {

using Verdict = Finding::Verdict;

class Doctor {
 public:
  void look_at_machine();
  void look_at_command(const std::string& command);
  void look_at_process(pid_t pid);

  [[nodiscard]] const std::vector<Finding>& findings() const { return findings_; }

 private:
  void find_that(bool good, const char* subject, std::string yes, std::string no,
                 std::string remedy, Verdict otherwise = Verdict::bad) {
    findings_.push_back(good ? Finding{Verdict::good, subject, std::move(yes)}
                             : Finding{otherwise, subject, std::move(no), std::move(remedy)});
  }
  void note(Verdict verdict, const char* subject, std::string text, std::string remedy = {}) {
    findings_.push_back({verdict, subject, std::move(text), std::move(remedy)});
  }
  void look_at_status(pid_t pid);
  void look_at_rings(pid_t pid);
  void look_at_listeners(pid_t pid);
  void look_at_unit(pid_t pid);

  const Sys& sys_ = libc_sys();
  Options options_ = own_options();
  std::vector<Finding> findings_{};
};

std::string proc(pid_t pid, const char* name) {
  return compose("/proc/{}/{}", pid, name);
}

// The word after "Name:" in a file of lines like that.
std::string value_in(const std::string& text, std::string_view name) {
  std::string value;
  for_each_line(text, [&](std::string_view line) {
    if (line.starts_with(name) && value.empty()) {
      line.remove_prefix(name.size());
      value = take_word(line);
    }
  });
  return value;
}

// What each descriptor of a process is, by its number.
std::map<int, std::string> descriptors_of(pid_t pid) {
  std::map<int, std::string> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(proc(pid, "fd"), none)) {
    int number = 0;
    if (read_number(entry.path().filename().string(), number, 10)) {
      found[number] = std::filesystem::read_symlink(entry.path(), none);
    }
  }
  return found;
}

std::set<std::uint64_t> sockets_of(pid_t pid) {
  std::set<std::uint64_t> inodes;
  for (const auto& [number, link] : descriptors_of(pid)) {
    if (const std::uint64_t inode = socket_in_link(link); inode != 0) {
      inodes.insert(inode);
    }
  }
  return inodes;
}

// Listening TCP sockets of the network that a process sees: its inode and its address. The kernel
// lists them before all others, of which there may be a hundred thousand (TIME_WAIT).
std::map<std::uint64_t, std::string> listening_in(pid_t pid) {
  constexpr std::string_view listen_state = "0A";
  constexpr std::size_t inode_column = 9;
  std::map<std::uint64_t, std::string> found;
  for (const char* table : {"net/tcp", "net/tcp6"}) {
    std::ifstream lines(proc(pid, table));
    std::string line;
    std::getline(lines, line);  // the head
    while (std::getline(lines, line)) {
      std::string_view rest = line;
      std::vector<std::string_view> words;
      for (auto word = take_word(rest); !word.empty(); word = take_word(rest)) {
        words.push_back(word);
      }
      if (words.size() <= inode_column || words[3] != listen_state) {
        break;
      }
      std::uint64_t inode = 0;
      unsigned port = 0;
      if (read_number(words[inode_column], inode, 10) &&
          read_number(words[1].substr(words[1].find(':') + 1), port, 16)) {
        found[inode] = compose("port {}", port);
      }
    }
  }
  return found;
}

void Doctor::look_at_machine() {
  const OwnedFd self(sys_, sys_.pidfd_open(sys_.getpid(), 0));
  find_that(self.is_open(), "kernel", "pidfd_open works",
            compose("pidfd_open fails: {}", error_text(errno)),
            "Linux 5.10 or later, and no seccomp filter against it");
  const int commands = sys_.membarrier(MEMBARRIER_CMD_QUERY);
  find_that(commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0, "kernel",
            "membarrier works", "membarrier does not work: each accept costs a little more", "",
            Verdict::doubtful);
  const bool exchanges =
      sys_.renameat2(AT_FDCWD, "/nonexistent/a", AT_FDCWD, "/nonexistent/b", 2) != 0 &&
      errno == ENOENT;
  find_that(exchanges, "kernel", "renameat2 works",
            "renameat2 does not work: CONTINUITY_HIDE cannot exchange files", "",
            Verdict::doubtful);
  const OwnedFd socket(sys_, sys_.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sock_filter nothing{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = 0};
  const sock_fprog program{.len = 1, .filter = &nothing};
  find_that(
      sys_.setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0,
      "kernel", "socket filters work", "socket filters do not work: IP_MINTTL takes their place",
      "", Verdict::doubtful);
  find_that(std::filesystem::exists("/proc/self/fd"), "/proc", "is mounted", "is not mounted",
            "mount it");
  std::string problem;
  const auto rendezvous = Rendezvous::open(sys_, options_.directory, sys_.geteuid(), problem);
  find_that(rendezvous.has_value(), "rendezvous",
            rendezvous ? compose("{} can be used", rendezvous->path()) : "", problem,
            "as it says, or set CONTINUITY_DIR");
  rlimit limit{};
  sys_.getrlimit(RLIMIT_NOFILE, &limit);
  constexpr rlim_t few = 256;
  find_that(limit.rlim_max >= few, "limits", compose("{} descriptors", limit.rlim_max),
            compose("only {} descriptors", limit.rlim_max), "raise LimitNOFILE= or ulimit -Hn",
            Verdict::doubtful);
}

void Doctor::look_at_command(const std::string& command) {
  const Obstacle obstacle = obstacle_in(command);
  find_that(obstacle.what.empty(), "program", command + ": the library reaches it", obstacle.what,
            obstacle.remedy);
}

void Doctor::look_at_process(pid_t pid) {
  std::error_code none;
  const std::string program = std::filesystem::read_symlink(proc(pid, "exe"), none);
  const bool loaded = read_file(proc(pid, "maps")).find("libcontinuity.so") != std::string::npos;
  if (loaded || program.empty()) {
    find_that(loaded, "program", compose("pid {} has the library", pid),
              compose("pid {} cannot be looked at", pid), "ask as its user, or as root");
  } else if (const Obstacle obstacle = obstacle_in(program); !obstacle.what.empty()) {
    note(Verdict::bad, "program", obstacle.what, obstacle.remedy);
  } else {
    note(Verdict::doubtful, "program",
         compose("pid {} ({}) runs without the library, or asks by itself", pid, program),
         "start it by continuity-run");
  }
  look_at_status(pid);
  look_at_rings(pid);
  look_at_listeners(pid);
  look_at_unit(pid);
}

void Doctor::look_at_status(pid_t pid) {
  const std::string seccomp = value_in(read_file(proc(pid, "status")), "Seccomp:");
  find_that(seccomp != "2" && seccomp != "1", "seccomp", "there is no filter",
            "a filter applies to the library's thread, too",
            "it must allow what @system-service allows", Verdict::doubtful);
  std::string soft;
  for_each_line(read_file(proc(pid, "limits")), [&](std::string_view line) {
    constexpr std::string_view name = "Max open files";
    if (line.starts_with(name)) {
      line.remove_prefix(name.size());
      take_word(line);
      soft = take_word(line);
    }
  });
  rlim_t hard = 0;
  const auto open = descriptors_of(pid).size();
  if (read_number(soft, hard, 10)) {
    find_that(open * 2 < hard, "limits", compose("{} of {} descriptors are open", open, hard),
              compose("{} of {} descriptors are open: there may be no room for copies", open, hard),
              "raise LimitNOFILE= or ulimit -Hn", Verdict::doubtful);
  }
}

void Doctor::look_at_rings(pid_t pid) {
  for (const auto& [number, link] : descriptors_of(pid)) {
    if (link != ring_name) {
      continue;
    }
    const std::string thread =
        value_in(read_file(compose("/proc/{}/fdinfo/{}", pid, number)), "SqThread:");
    find_that(thread.empty() || thread == "-1", "io_uring",
              compose("ring {} can be made to let go", number),
              compose("ring {} is served by a thread of the kernel's (SQPOLL)", number),
              "the restart is refused while it does: switch that off in the server");
  }
}

// Whoever else has a listener keeps its address, and clients that come there, after the
// server has closed it.
void Doctor::look_at_listeners(pid_t pid) {
  const auto listening = listening_in(pid);
  std::set<std::uint64_t> ours;
  for (const std::uint64_t inode : sockets_of(pid)) {
    if (listening.contains(inode)) {
      ours.insert(inode);
    }
  }
  find_that(!ours.empty(), "listeners", compose("{} TCP listeners", ours.size()), "no TCP listener",
            "", Verdict::doubtful);
  const OwnedFd proc_directory = open_proc(sys_);
  const Processes processes(sys_, proc_directory.get());
  const pid_t top = processes.topmost(pid);
  for (const auto& [other, parent] : processes.parents()) {
    if (other == top || ours.empty() || processes.is_below(other, {top}) ||
        other == sys_.getpid()) {
      continue;
    }
    for (const std::uint64_t inode : sockets_of(other)) {
      if (ours.contains(inode)) {
        note(Verdict::doubtful, "listeners",
             compose("pid {} ({}) has a copy of the one at {}", other,
                     value_in(read_file(proc(other, "status")), "Name:"), listening.at(inode)),
             "a supervisor or a run that drains may; anything else keeps the address open");
        break;
      }
    }
  }
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* const pipe = ::popen(command.c_str(), "re");  // NOLINT(cert-env33-c): a fixed command
  std::array<char, 4096> part{};
  while (pipe != nullptr &&
         std::fgets(part.data(), static_cast<int>(part.size()), pipe) != nullptr) {
    text += part.data();
  }
  if (pipe != nullptr) {
    ::pclose(pipe);
  }
  return text;
}

void Doctor::look_at_unit(pid_t pid) {
  const std::string unit = unit_of(read_file(proc(pid, "cgroup")));
  constexpr std::string_view harmless =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._-";
  if (unit.empty() || unit.find_first_not_of(harmless) != std::string::npos ||
      !std::filesystem::exists("/run/systemd/system")) {
    return;
  }
  const std::string shown = output_of(
      "systemctl show " + unit +
      " -p Type -p NotifyAccess -p KillMode -p PrivateTmp -p ProtectSystem -p RuntimeDirectory "
      "-p ExecReload -p NoNewPrivileges -p SystemCallFilter -p RestrictAddressFamilies "
      "-p MemoryDenyWriteExecute -p NoExecPaths -p ExecPaths 2>/dev/null");
  if (shown.empty()) {
    return;
  }
  note(Verdict::good, "unit", unit);
  for (Finding& one : look_at_unit_settings(shown, !options_.directory.empty())) {
    findings_.push_back(std::move(one));
  }
}

const char* word_for(Finding::Verdict verdict) {
  return verdict == Finding::Verdict::good  ? "good"
         : verdict == Finding::Verdict::bad ? "bad"
                                            : "doubtful";
}

Exit tell(const std::vector<Finding>& findings, bool as_json) {
  bool well = true;
  auto told = Json::array();
  for (const Finding& one : findings) {
    well = well && one.verdict != Finding::Verdict::bad;
    told.push_back({{"verdict", word_for(one.verdict)},
                    {"subject", one.subject},
                    {"text", one.text},
                    {"remedy", one.remedy}});
    if (!as_json) {
      const Colour colour = one.verdict == Finding::Verdict::good  ? Colour::green
                            : one.verdict == Finding::Verdict::bad ? Colour::red
                                                                   : Colour::yellow;
      std::string word = word_for(one.verdict);
      word.resize(10, ' ');
      print_lines(compose("{}{}: {}{}{}\n", paint(colour, word), one.subject, one.text,
                          one.remedy.empty() ? "" : "; ", one.remedy));
    }
  }
  if (as_json) {
    print_json(Json{{"will_work", well}, {"findings", std::move(told)}});
  }
  return well ? Exit::done : Exit::failed;
}

struct Question {
  std::vector<std::string> about{};
  bool is_command = false;
  bool as_json = false;
};

Exit examine(const Question& question) {
  Doctor doctor;
  doctor.look_at_machine();
  if (question.is_command) {
    doctor.look_at_command(question.about.front());
  } else if (!question.about.empty()) {
    pid_t pid = 0;
    const std::string& name = question.about.front();
    if (!read_number(name, pid, 10) || pid <= 0) {
      std::vector<Server> servers;
      if (const Exit exit = find_named(name, servers); exit != Exit::done) {
        return exit;
      }
      pid = servers.front().pid;
    } else if (!std::filesystem::exists(proc(pid, "stat"))) {
      return complain(Exit::unknown, compose("there is no pid {}", pid));
    }
    doctor.look_at_process(pid);
  }
  return tell(doctor.findings(), question.as_json || !is_for_people());
}

// What systemctl show says of a setting; empty: it is not set.
std::string value_in(const std::string& shown, const std::string& name) {
  std::string value;
  for_each_line(shown, [&](std::string_view line) {
    if (line.starts_with(name + "=")) {
      value = line.substr(name.size() + 1);
    }
  });
  return value == "~" ? "" : value;  // all but none
}

}  // namespace

std::vector<Finding> look_at_unit_settings(const std::string& shown, bool has_directory) {
  std::vector<Finding> findings;
  const auto is = [&](const std::string& line) {
    return ("\n" + shown).find("\n" + line + "\n") != std::string::npos;
  };
  const auto value_of = [&](const std::string& name) { return value_in(shown, name); };
  const auto find_that = [&](bool good, const char* yes, const char* no, const char* remedy,
                             Verdict otherwise = Verdict::doubtful) {
    findings.push_back(good ? Finding{Verdict::good, "unit", yes}
                            : Finding{otherwise, "unit", no, remedy});
  };
  find_that(value_of("ExecReload").find("continuity") != std::string::npos,
            "its ExecReload= restarts the server",
            "systemctl reload does not restart the server, and systemctl restart stops it first",
            "the drop-in of docs/guides/systemd.md");
  if (is("Type=notify")) {
    find_that(is("NotifyAccess=main") || is("NotifyAccess=all"), "NotifyAccess= fits",
              "nobody may say READY=1", "NotifyAccess=main");
  }
  const bool has_place = has_directory || !value_of("RuntimeDirectory").empty();
  if (is("PrivateTmp=yes")) {
    find_that(has_place, "PrivateTmp= does not part the runs, which are all in the unit",
              "PrivateTmp=yes: a process outside of the unit does not find it in /tmp",
              "RuntimeDirectory=NAME and CONTINUITY_DIR=/run/NAME");
  }
  if (is("ProtectSystem=strict")) {
    find_that(has_place, "there is a directory for it in spite of ProtectSystem=strict",
              "ProtectSystem=strict: /run/continuity cannot be made or written to",
              "RuntimeDirectory=NAME and CONTINUITY_DIR=/run/NAME");
  }
  find_that(is("KillMode=mixed") || is("KillMode=control-group"), "KillMode= fits",
            "processes are left behind when it stops", "KillMode=mixed");
  for (const char* setting : {"NoNewPrivileges", "MemoryDenyWriteExecute"}) {
    if (is(compose("{}=yes", setting))) {
      findings.push_back({Verdict::good, "unit", compose("{}=yes is no obstacle", setting)});
    }
  }
  const std::string families = value_of("RestrictAddressFamilies");
  if (!families.empty()) {
    const bool named = (" " + families + " ").find("AF_UNIX ") != std::string::npos;
    find_that(named != families.starts_with('~'), "RestrictAddressFamilies= lets runs meet",
              "RestrictAddressFamilies= is without AF_UNIX: the runs cannot meet", "add AF_UNIX",
              Verdict::bad);
  }
  if (!value_of("NoExecPaths").empty()) {
    find_that(value_of("ExecPaths").find("continuity") != std::string::npos,
              "ExecPaths= has continuity in it",
              "NoExecPaths= is set: continuity cannot be executed, nor the library be loaded",
              "ExecPaths= must name them, as in the drop-in for redis", Verdict::bad);
  }
  if (!value_of("SystemCallFilter").empty()) {
    findings.push_back(
        {Verdict::doubtful, "unit", "SystemCallFilter= is set", "it must allow @system-service"});
  }
  return findings;
}

void add_doctor(CLI::App& application, Exit& exit) {
  Command command(application, "doctor", "Whether it will work here, and if not, why");
  auto question = std::make_shared<Question>();
  command.add_flag("--json", question->as_json, "as JSON, on a terminal too");
  command.add_flag("--command", question->is_command, "what follows is a command, as after --");
  command.add_texts("ABOUT", question->about, "NAME, PID, or -- COMMAND");
  command.end_with_arguments();
  command.on_call([question, &exit] {
    exit =
        question->is_command && question->about.empty()
            ? complain(Exit::usage, "doctor wants a command after --; see continuity doctor --help")
            : examine(*question);
  });
}

}  // namespace continuity::cli
