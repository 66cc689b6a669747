// continuity doctor: what it finds in this machine, in a command and in a process.
#include "cli/doctor.hpp"

#include "command.hpp"
#include "support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

using cli::Finding;

constexpr uid_t nobody = 65'534;

// A file that is a program as far as its header tells.
struct Program {
  std::string loader{};  // empty: it is static
  bool is_go = false;
  bool other_machine = false;
  std::string obstacle{};  // that is to be found; empty: none
  std::string remedy{};
};

void write_program(const std::string& path, const Program& program) {
  Elf64_Ehdr header{};
  std::memcpy(&header, read_file("/proc/self/exe").data(), sizeof header);
  header.e_machine = program.other_machine ? EM_S390 : header.e_machine;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  struct {
    Elf64_Nhdr header{.n_namesz = 4, .n_descsz = 0, .n_type = 4};
    std::array<char, 4> name{'G', 'o'};
  } note;
  const std::size_t behind = sizeof header + 2 * sizeof(Elf64_Phdr);
  Elf64_Phdr first{};
  first.p_type = program.is_go ? PT_NOTE : PT_NULL;
  first.p_offset = behind;
  first.p_filesz = sizeof note;
  Elf64_Phdr second{};
  second.p_type = program.loader.empty() ? PT_NULL : PT_INTERP;
  second.p_offset = behind + sizeof note;
  second.p_filesz = program.loader.size() + 1;
  std::string bytes;
  const auto append = [&](const auto& part) {
    bytes.append(reinterpret_cast<const char*>(&part), sizeof part);
  };
  append(header);
  append(first);
  append(second);
  append(note);
  write_file(path, bytes + program.loader + '\0');
  REQUIRE(::chmod(path.c_str(), 0755) == 0);
}

// A process without the library that has done this, and stays until the test ends. What it says
// of itself is its next line.
Process python(const std::string& text) {
  return Process::start({"python3", "-c", text + "import signal\nsignal.pause()\n"});
}

// What it has found is in its texts and remedies.
bool tells(const Said& said, const std::string& part) {
  const nlohmann::json told = said.json();
  REQUIRE(what_is_wrong(told, "doctor").empty());
  CHECK(told.at("will_work") == (said.status == 0));
  const auto& findings = told.at("findings");
  return std::any_of(findings.begin(), findings.end(), [&](const nlohmann::json& one) {
    const std::string text = one.at("text");
    const std::string remedy = one.at("remedy");
    return (text + "; " + remedy).find(part) != std::string::npos;
  });
}

Said look_at(const Place& place, const Process& process) {
  return run_command(place, {"doctor", std::to_string(process.pid())});
}

}  // namespace

TEST_CASE("doctor finds this machine fit, and a rendezvous directory that cannot be used") {
  const Place place;
  const Said fit = run_command(place, {"doctor"});
  CHECK(fit.status == 0);
  CHECK(tells(fit, "pidfd_open works"));
  CHECK(tells(fit, place.rendezvous()));
  const Said unfit = run_command(place, {"doctor"}, {"CONTINUITY_DIR=/nonexistent"});
  CHECK(unfit.status == 1);
  CHECK(tells(unfit, "/nonexistent"));
}

TEST_CASE("doctor tells of a command whether the library reaches it") {
  const Place place;
  const Said good = run_command(place, {"doctor", "--", TINY_SERVER, "--json", "poll"});
  CHECK(good.status == 0);
  CHECK(tells(good, "the library reaches it"));
  const Said bad = run_command(place, {"doctor", "--command", UNLINKED_SERVER});
  CHECK(bad.status == 1);
  CHECK(tells(bad, "static"));
  CHECK(tells(bad, "libcontinuity-wrap.a"));
  write_file(place.directory / "script", "#!" UNLINKED_SERVER "\n");
  CHECK(run_command(place, {"doctor", "--", "sh"}).status == 0);
  CHECK(tells(run_command(place, {"doctor", "--", place.directory / "script"}), "not executable"));
}

TEST_CASE("doctor tells of a program what keeps the library out of it") {
  const Place place;
  const std::string program = place.directory / "program";
  const auto find = [&](const Program& kind) {
    write_program(program, kind);
    const Said said = run_command(place, {"doctor", "--", program});
    CHECK(said.status == (kind.obstacle.empty() ? 0 : 1));
    CAPTURE(said.output);
    CHECK((kind.obstacle.empty() || tells(said, kind.obstacle)));
    CHECK((kind.remedy.empty() || tells(said, kind.remedy)));
  };
  const std::string loader = "/lib64/ld-linux-x86-64.so.2";
  find({.loader = loader});
  find({.loader = loader, .is_go = true, .obstacle = "a Go program", .remedy = "continuity.h"});
  find({.loader = "/lib/ld-musl-x86_64.so.1", .obstacle = "for musl", .remedy = "glibc"});
  find({.loader = loader,
        .other_machine = true,
        .obstacle = "another processor",
        .remedy = "build the library"});
  find({.obstacle = "static", .remedy = "libcontinuity-wrap.a"});
}

TEST_CASE("doctor tells of a program that gains privileges by being executed") {
  const Place place;
  std::string program = "/usr/bin/su";  // root's
  if (::geteuid() == 0) {
    program = place.directory / "program";
    write_program(program, {.loader = "/lib64/ld-linux-x86-64.so.2"});
    REQUIRE(::chown(program.c_str(), nobody, static_cast<gid_t>(-1)) == 0);
    REQUIRE(::chmod(program.c_str(), 04755) == 0);
  }
  const Said said = run_command(place, {"doctor", "--", program});
  CHECK(said.status == 1);
  CHECK(tells(said, "setuid: the loader preloads nothing into it"));
  CHECK(tells(said, "start it as its user"));
}

TEST_CASE("doctor tells of a rendezvous directory that anybody may write to") {
  const Place place;
  REQUIRE(::chmod(place.rendezvous().c_str(), 0777) == 0);
  const Said said = run_command(place, {"doctor"});
  CHECK(said.status == 1);
  CHECK(tells(said, "may be written by everybody"));
  CHECK(tells(said, "chmod o-w"));
}

TEST_CASE("doctor tells of limits that leave no room for copies of listeners") {
  const Place place;
  const TempDir directory;
  Process limited = Process::start(
      {"/bin/sh", "-c", "ulimit -n 100; exec " CONTINUITY_COMMAND " doctor >" + directory / "out"},
      {"CONTINUITY_DIR=" + place.rendezvous()});
  CHECK(limited.wait_exit() == 0);  // it may do
  const Said said{.status = 0, .output = read_file(directory / "out"), .errors = {}};
  CHECK(tells(said, "only 100 descriptors"));
  CHECK(tells(said, "raise LimitNOFILE="));

  Process full = python(
      "import resource\n"
      "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))\n"
      "kept = [open('/dev/null') for _ in range(30)]\n"
      "print('full', flush=True)\n");
  REQUIRE(full.next_line() == "full");
  CHECK(tells(look_at(place, full), "of 50 descriptors are open: there may be no room for copies"));
}

TEST_CASE("doctor tells of a process that is confined by a filter of system calls") {
  const Place place;
  Process confined = python(
      "import ctypes, struct\n"
      "code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0x7fff0000))\n"  // allow
      "program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 1, ctypes.addressof(code)))\n"
      "prctl = ctypes.CDLL(None).prctl\n"
      "assert prctl(38, 1, 0, 0, 0) == 0\n"  // PR_SET_NO_NEW_PRIVS
      "assert prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program))) == 0\n"  // PR_SET_SECCOMP
      "print('confined', flush=True)\n");
  REQUIRE(confined.next_line() == "confined");
  CHECK(tells(look_at(place, confined), "a filter applies to the library's thread, too"));
  CHECK(tells(look_at(place, confined), "@system-service"));
}

TEST_CASE("doctor tells of a ring that a thread of the kernel's serves, and one that it does not") {
  const Place place;
  const std::string ring =
      "import ctypes\n"
      "setup = (ctypes.c_uint * 30)()\n"
      "setup[2] = FLAGS\n"
      "print('ring' if ctypes.CDLL(None).syscall(425, 8, setup) >= 0 else 'none', flush=True)\n";
  const auto with_flags = [&](const std::string& flags) {
    std::string text = ring;
    text.replace(text.find("FLAGS"), 5, flags);
    return python(text);
  };
  Process served = with_flags("2");  // IORING_SETUP_SQPOLL
  Process obedient = with_flags("0");
  if (served.next_line() != "ring" || obedient.next_line() != "ring") {
    WARN("skipped: no io_uring");
    return;
  }
  CHECK(tells(look_at(place, served), "is served by a thread of the kernel's (SQPOLL)"));
  CHECK(tells(look_at(place, served), "switch that off"));
  CHECK(tells(look_at(place, obedient), "can be made to let go"));
}

TEST_CASE("doctor names who else has a copy of a listener") {
  const Place place;
  Process holder = python(
      "import socket, subprocess\n"
      "s = socket.create_server(('127.0.0.1', 0))\n"
      "child = subprocess.Popen(['/bin/sleep', '100'], pass_fds=[s.fileno()])\n"
      "print('pid=%d port=%d' % (child.pid, s.getsockname()[1]), flush=True)\n");
  const std::string line = holder.next_line();
  const std::string child = std::to_string(number_in(line, "pid"));
  const Said said = run_command(place, {"doctor", child});
  ::kill(static_cast<pid_t>(number_in(line, "pid")), SIGKILL);
  CHECK(tells(said, "pid " + std::to_string(holder.pid()) + " (python3"));
  CHECK(tells(said, "has a copy of the one at port " + std::to_string(number_in(line, "port"))));
  CHECK(tells(said, "anything else keeps the address open"));
}

TEST_CASE("doctor tells what the settings of a unit mean for a restart") {
  struct Setting {
    const char* shown;
    const char* text;
    Finding::Verdict verdict;
  };
  using Verdict = Finding::Verdict;
  const std::string fit =
      "Type=notify\nNotifyAccess=main\nKillMode=mixed\nSystemCallFilter=~\nRuntimeDirectory=\n"
      "RestrictAddressFamilies=~\nPrivateTmp=no\nNoExecPaths=\n"
      "ExecReload={ path=/usr/bin/continuity ; argv[]=continuity reload ; }\n";
  // "~": it is not set.
  const auto all_well = cli::look_at_unit_settings(fit, false);
  CHECK(all_well.size() == 3);
  for (const auto& one : all_well) {
    CAPTURE(one.text);
    CHECK(one.verdict == Verdict::good);
  }
  const auto setting = GENERATE(values<Setting>({
      {"ExecReload=", "systemctl reload does not restart the server", Verdict::doubtful},
      {"Type=notify\nNotifyAccess=none", "nobody may say READY=1", Verdict::doubtful},
      {"KillMode=process", "processes are left behind", Verdict::doubtful},
      {"KillMode=none", "processes are left behind", Verdict::doubtful},
      {"PrivateTmp=yes", "does not find it in /tmp", Verdict::doubtful},
      {"PrivateTmp=yes\nRuntimeDirectory=x", "PrivateTmp= does not part", Verdict::good},
      {"ProtectSystem=strict", "/run/continuity cannot be made", Verdict::doubtful},
      {"ProtectSystem=strict\nRuntimeDirectory=x", "there is a directory", Verdict::good},
      {"NoNewPrivileges=yes", "NoNewPrivileges=yes is no obstacle", Verdict::good},
      {"MemoryDenyWriteExecute=yes", "MemoryDenyWriteExecute=yes is no obstacle", Verdict::good},
      {"RestrictAddressFamilies=AF_INET AF_INET6", "is without AF_UNIX", Verdict::bad},
      {"RestrictAddressFamilies=~AF_UNIX", "is without AF_UNIX", Verdict::bad},
      {"RestrictAddressFamilies=~AF_PACKET", "lets runs meet", Verdict::good},
      {"RestrictAddressFamilies=AF_INET AF_UNIX", "lets runs meet", Verdict::good},
      {"NoExecPaths=/\nExecPaths=/usr/bin/x", "ExecPaths= must name", Verdict::bad},
      {"NoExecPaths=/\nExecPaths=/usr/bin/continuity", "ExecPaths= has", Verdict::good},
      {"SystemCallFilter=~@mount", "must allow @system-service", Verdict::doubtful},
  }));
  CAPTURE(setting.shown);
  const auto findings = cli::look_at_unit_settings(std::string(setting.shown) + "\n", false);
  CHECK(std::any_of(findings.begin(), findings.end(), [&](const Finding& one) {
    return (one.text + "; " + one.remedy).find(setting.text) != std::string::npos &&
           one.verdict == setting.verdict;
  }));
}

TEST_CASE("doctor looks at a process, by pid and by name, and names who else has its listener") {
  const Place place;
  const Process server = place.start({"poll"});
  const Said by_pid = run_command(place, {"doctor", std::to_string(server.pid())});
  CHECK(by_pid.status == 0);
  CHECK(tells(by_pid, "has the library"));
  CHECK(tells(by_pid, "1 TCP listeners"));
  CHECK_FALSE(tells(by_pid, "has a copy"));
  CHECK(tells(run_command(place, {"doctor", "tiny-server"}), "has the library"));

  const Said unknown = run_command(place, {"doctor", "other"});
  CHECK(unknown.status == 3);
  CHECK_THAT(unknown.errors, Catch::Contains("there is tiny-server"));
}

}  // namespace continuity::test
