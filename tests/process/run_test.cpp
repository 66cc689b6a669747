// continuity-run: a start script without an environment gets the library from
// beside the script, and the process it has started is the server itself.
#include "restarts.hpp"
#include "support/root.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <elf.h>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

namespace continuity::test {
namespace {

const std::string original = SOURCE_TREE "/scripts/continuity-run";

// A tree of its own, so that a test knows which library can be found.
struct Tree {
  explicit Tree(const std::string& script_place = "bin", const std::string& library_place = "lib",
                const std::string& name = "prefix")
      : root(directory / name),
        run(root / script_place / "continuity-run"),
        library(root / library_place / "libcontinuity.so") {
    std::filesystem::create_directories(run.parent_path());
    std::filesystem::create_directories(library.parent_path());
    std::filesystem::copy_file(original, run);
    std::filesystem::copy_file(CONTINUITY_LIBRARY, library);
  }

  // What it says instead of running anything.
  [[nodiscard]] std::string refusal(const Arguments& arguments, int status = 1) const {
    Process process = start(arguments);
    std::string line = process.await_log("continuity-run: ");
    CHECK(process.wait_exit() == status);
    return line;
  }

  [[nodiscard]] Process start(const Arguments& arguments, const Environment& variables = {}) const {
    std::vector<std::string> command{run};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return Process::start(command, variables);
  }

  TempDir directory{};
  std::filesystem::path root;
  std::filesystem::path run;
  std::filesystem::path library;
};

const Arguments tell_preload{"--", "sh", "-c", "echo \"preload=$LD_PRELOAD\""};

// The head of a program: enough for whoever only reads that.
struct Program {
  unsigned char order = ELFDATA2LSB;
  Elf64_Half machine = 0;                              // 0: x86-64
  std::string loader = "/lib64/ld-linux-x86-64.so.2";  // empty: none
  std::string note{};                                  // whose note there is

  [[nodiscard]] std::string bytes() const {
    Elf64_Ehdr header{};
    std::copy_n(ELFMAG, SELFMAG, header.e_ident);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = order;
    header.e_type = ET_DYN;
    header.e_machine = machine != 0 ? machine : EM_X86_64;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 3;

    // Two notes: that of another comes first, as in real programs.
    std::string notes = one_note("GNU");
    notes += note.empty() ? "" : one_note(note);
    const Elf64_Off interpreter_at = sizeof header + 3 * sizeof(Elf64_Phdr);
    const Elf64_Off notes_at = interpreter_at + loader.size() + 1;
    std::array<Elf64_Phdr, 3> segments{};
    segments[0].p_type = PT_LOAD;
    segments[1].p_type = loader.empty() ? PT_NULL : PT_INTERP;
    segments[1].p_offset = interpreter_at;
    segments[1].p_filesz = loader.size() + 1;
    segments[2].p_type = PT_NOTE;
    segments[2].p_offset = notes_at;
    segments[2].p_filesz = notes.size();
    return as_bytes(header) + as_bytes(segments) + loader + std::string(1, '\0') + notes;
  }

 private:
  template <typename Value>
  static std::string as_bytes(const Value& value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  static std::string one_note(const std::string& name) {
    // Go's name is said to be of four bytes, two of them zero.
    const Elf64_Nhdr note{4, 5, 4};
    std::string text = as_bytes(note) + name;
    text.resize(sizeof note + 4);
    return text + std::string("12345\0\0\0", 8);
  }
};

std::string make_program(const Tree& tree, const std::string& bytes) {
  std::string path = tree.root / "program";
  std::ofstream(path, std::ios::binary) << bytes;
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

// Of a process under the library: how many mappings come from there.
Arguments count_mappings(const std::string& library) {
  return {"--", "grep", "-c", library, "/proc/self/maps"};
}

}  // namespace

TEST_CASE("continuity-run finds the library beside itself, in its prefix, in the build tree") {
  const auto [script_place, library_place] = GENERATE(
      table<std::string, std::string>({{".", "."}, {"bin", "lib"}, {"scripts", "build/release"}}));
  const Tree tree(script_place, library_place);
  const std::string library = std::filesystem::canonical(tree.library);

  CHECK(tree.start(tell_preload).next_line() == "preload=" + library);
  CHECK(std::stol(tree.start(count_mappings(library)).next_line()) > 0);
}

TEST_CASE("continuity-run finds the library when it is called by a link") {
  const Tree tree;
  const std::filesystem::path link = tree.root / "elsewhere";
  std::filesystem::create_symlink(tree.run, link);

  std::vector<std::string> command{link};
  command.insert(command.end(), tell_preload.begin(), tell_preload.end());
  CHECK(Process::start(command).next_line() ==
        "preload=" + std::string(std::filesystem::canonical(tree.library)));
}

TEST_CASE("continuity-run leaves a library that is nowhere near to the loader") {
  const Tree tree("bin", "far/away");
  const Environment searched{"LD_LIBRARY_PATH=" + std::string(tree.library.parent_path())};

  CHECK(tree.start(tell_preload, searched).next_line() == "preload=libcontinuity.so");
  CHECK(std::stol(tree.start(count_mappings(tree.library), searched).next_line()) > 0);
}

TEST_CASE("continuity-run keeps an LD_PRELOAD there is, behind the library") {
  const Tree tree;
  const std::string other = tree.root / "libother.so";
  std::filesystem::copy_file(CONTINUITY_FAULTY_LIBRARY, other);
  const Environment variables{"LD_PRELOAD=" + other};

  CHECK(tree.start(tell_preload, variables).next_line() ==
        "preload=" + std::string(std::filesystem::canonical(tree.library)) + ":" + other);
  CHECK(std::stol(tree.start(count_mappings(other), variables).next_line()) > 0);
}

TEST_CASE("continuity-run becomes the command: same process, same arguments, its own status") {
  const Tree tree;
  const std::string script = R"(echo "pid=$$ $#"; for a; do echo "[$a]"; done; exit 7)";
  Process process = tree.start({"--", "sh", "-c", script, "sh", "two words", "", "--", "*"});

  CHECK(process.next_line() == answer_of(process) + " 4");
  CHECK(process.next_line() == "[two words]");
  CHECK(process.next_line() == "[]");
  CHECK(process.next_line() == "[--]");
  CHECK(process.next_line() == "[*]");
  CHECK(process.wait_exit() == 7);
}

TEST_CASE("continuity-run says in one line what is wrong with how it is called") {
  const Tree tree;
  for (const Arguments& arguments :
       std::initializer_list<Arguments>{{},
                                        {"--"},
                                        {"--", ""},
                                        {"-x", "true"},
                                        {"--nonsense", "true"},
                                        {"--nonsense=1", "true"},
                                        {"--new=1", "true"},
                                        {"--name", "--", "true"},
                                        {"--name", "a/b", "true"},
                                        {"--name=.a", "true"},
                                        {"--name", std::string(65, 'a'), "true"},
                                        {"--dir", "here", "true"},
                                        {"--hide=here", "true"},
                                        {"--ready", "soon", "true"},
                                        {"--busy", "no", "true"},
                                        {"--log", "loud", "true"},
                                        {"--probation", "5", "true"},
                                        {"--drain-timeout", "s", "true"},
                                        {"--ready-timeout", "5sm", "true"},
                                        {"--unclaimed", "-5s", "true"},
                                        {"--stop-timeout", "1.5s", "true"},
                                        {"--stop-signal", "auto", "true"},
                                        {"--success-signal", "term", "true"},
                                        {"--retire-signal=", "true"}}) {
    CAPTURE(arguments);
    Process process = tree.start(arguments);
    process.await_log("usage: continuity-run [OPTION...] -- COMMAND");
    CHECK(process.wait_exit() == 2);
    CHECK(process.log().size() == 1);
  }
}

// Of a kind that this variable takes; none: the option has no value.
std::string value_for(const std::string& variable) {
  if (variable == "READY" || variable == "BUSY") {
    return "wait";
  }
  if (variable == "NEW" || variable == "DISABLE") {
    return "";
  }
  if (variable == "LOG") {
    return "warn";
  }
  return variable.find("SIGNAL") != std::string::npos   ? "RTMIN+3"
         : variable == "DIR" || variable == "HIDE"      ? "/a b:/c"
         : variable == "NAME" || variable == "LOG_FILE" ? "it's"
                                                        : "20ms";
}

TEST_CASE("continuity-run has an option for every variable of the README, and hands it on") {
  const std::string readme = read_file(SOURCE_TREE "/README.md");
  const std::regex row("\n\\| `CONTINUITY_([A-Z_]+)` \\|");
  std::set<std::string> variables;
  for (auto found = std::sregex_iterator(readme.begin(), readme.end(), row);
       found != std::sregex_iterator(); ++found) {
    variables.insert((*found)[1]);
  }
  REQUIRE(variables.size() >= 17);

  // All at a time: a shell for each of them takes a minute on a slow machine.
  Arguments apart;
  Arguments together;
  Arguments tell{"--", "sh", "-c", "printf '%s\\n'"};
  for (const std::string& variable : variables) {
    std::string option = "--" + variable;
    std::transform(option.begin(), option.end(), option.begin(),
                   [](char one) { return one == '_' ? '-' : static_cast<char>(::tolower(one)); });
    const std::string value = value_for(variable);
    apart.push_back(option);
    if (!value.empty()) {
      apart.push_back(value);
    }
    together.push_back(value.empty() ? option : option + "=" + value);
    tell.back() += " \"[$CONTINUITY_" + variable + "]\"";
  }

  const Tree tree;
  for (const Arguments& options : {apart, together, Arguments{}}) {
    Arguments arguments = options;
    arguments.insert(arguments.end(), tell.begin(), tell.end());
    Process process = tree.start(arguments);
    for (const std::string& variable : variables) {
      CAPTURE(variable);
      const std::string value = value_for(variable);
      const std::string set = value.empty() ? "[1]" : "[" + value + "]";
      CHECK(process.next_line() == (options.empty() ? "[]" : set));
    }
  }
}

TEST_CASE("continuity-run takes a path after --log for the file, as nothing else has a slash") {
  const Tree tree;
  CHECK(tree.start({"--log", "./x", "--", "sh", "-c", "echo $CONTINUITY_LOG_FILE"}).next_line() ==
        "./x");
}

TEST_CASE("continuity-run's help fits a terminal") {
  const Tree tree;
  Process process = tree.start({"--help"});
  CHECK(process.next_line().rfind("usage: continuity-run [OPTION...] -- COMMAND", 0) == 0);
  CHECK(process.wait_exit() == 0);
  const char* fits = "\"$1\" --help | awk 'length > 79 { wide = 1 } END { exit wide || NR > 24 }'";
  CHECK(Process::start({"sh", "-c", fits, "sh", tree.run}).wait_exit() == 0);
}

TEST_CASE("continuity-run --print shows a line that a shell runs alike, and runs nothing") {
  const Tree tree;
  const std::string mark = tree.root / "mark";
  Arguments arguments{"--print",
                      "--name",
                      "it's me",
                      "--",
                      "sh",
                      "-c",
                      "echo \"$CONTINUITY_NAME $LD_PRELOAD $1\"; : >$2",
                      "sh",
                      "a  'b",
                      mark};
  Process shown = tree.start(arguments);
  const std::string line = shown.next_line();
  CHECK(shown.wait_exit() == 0);
  CHECK_FALSE(std::filesystem::exists(mark));

  arguments.erase(arguments.begin());
  const std::string said = tree.start(arguments).next_line();
  CHECK(said.rfind("it's me " + std::string(std::filesystem::canonical(tree.library)), 0) == 0);
  CHECK(Process::start({"sh", "-c", line}).next_line() == said);
}

TEST_CASE("continuity-run --new-session puts the server in one, and hands on its status") {
  const Tree tree;
  const std::string tell =
      "read -r stat </proc/$$/stat; set -- ${stat##*) }; echo $(($4 == $$)); exit 7";
  Process apart = tree.start({"--new-session", "--", "sh", "-c", tell});
  CHECK(apart.next_line() == "1");
  CHECK(apart.wait_exit() == 7);
  CHECK(tree.start({"--", "sh", "-c", tell}).next_line() == "0");

  // The first of a session stays what it is: same process.
  Process first = Process::start({"setsid", "sh", "-c", "echo $$; exec \"$@\"", "sh", tree.run,
                                  "--new-session", "--", "sh", "-c", "echo $$; exit 7"});
  const std::string pid = first.next_line();
  CHECK(first.next_line() == pid);
  CHECK(first.wait_exit() == 7);
}

TEST_CASE("continuity-run refuses what the library would not reach, unless forced") {
  const Tree tree;
  const auto [bytes, reason] = GENERATE(table<std::string, std::string>({
      {Program{.loader = ""}.bytes(), "static: nothing can be preloaded"},
      {Program{.note = "Go"}.bytes(), "a Go program"},
      {Program{.loader = "", .note = "Go"}.bytes(), "a Go program"},
      {Program{.loader = "/lib/ld-musl-x86_64.so.1"}.bytes(), "for musl"},
      {Program{.machine = EM_AARCH64, .loader = "/lib/ld-linux-aarch64.so.1"}.bytes(),
       "for another processor"},
      {Program{.loader = "/lib64/ld-none.so"}.bytes(), "its loader /lib64/ld-none.so is missing"},
      {Program{}.bytes().substr(0, 20), "an ELF header without its end"},
      {Program{}.bytes().substr(0, 100), "an ELF file without its end"},
      {"#!/nowhere/interpreter\n", "/nowhere/interpreter: no such file, wanted by"},
      {"#!\n", "no interpreter after #!"},
      {"#!/usr/bin/env -S A=b nowhere-at-all\n", "nowhere-at-all: not found in PATH"},
  }));
  const std::string program = make_program(tree, bytes);

  CHECK(tree.refusal({"--", program}).find(reason) != std::string::npos);
  CHECK(tree.refusal({"--print", "--", program}).find(reason) != std::string::npos);
  CHECK(tree.start({"--force", "--print", "--", program}).next_line().find(program) !=
        std::string::npos);
}

TEST_CASE("continuity-run looks at the interpreter of a script, and not at itself") {
  const Tree tree;
  const std::string script = make_program(tree, "#!" UNLINKED_SERVER " x\n");
  CHECK(tree.refusal({"--", script}).find(UNLINKED_SERVER ": static") != std::string::npos);

  make_program(tree, "#!/usr/bin/env sh\necho $0\n");
  CHECK(tree.start({"--", script}).next_line() == script);
  make_program(tree, "#!" + script + "\n");
  CHECK(tree.refusal({"--", script}).find("interpreters without end") != std::string::npos);
}

TEST_CASE("continuity-run refuses real static programs, but not those with the wrapped calls") {
  const Tree tree;
  CHECK(tree.refusal({"--", UNLINKED_SERVER}).find("static") != std::string::npos);
  CHECK(tree.start({"--print", "--", LINKED_SERVER}).next_line().find(LINKED_SERVER) !=
        std::string::npos);
  CHECK(tree.start({"--print", "--", TINY_SERVER}).next_line().find(TINY_SERVER) !=
        std::string::npos);
}

TEST_CASE("continuity-run refuses a command that is not there, or cannot be executed") {
  const Tree tree;
  const std::string file = tree.root / "file";
  write_file(file, "");
  CHECK(tree.refusal({"--", tree.root / "none"}).find("no such file") != std::string::npos);
  CHECK(tree.refusal({"--", "no-such-command"}).find("not found in PATH") != std::string::npos);
  CHECK(tree.refusal({"--", tree.root}).find("a directory") != std::string::npos);
  CHECK(tree.refusal({"--", file}).find("not executable") != std::string::npos);
}

TEST_CASE("continuity-run refuses what gains privileges, unless that gains nothing") {
  if (needs_root()) {
    return;
  }
  const Tree tree;
  std::filesystem::permissions(tree.directory.path(), std::filesystem::perms::others_exec,
                               std::filesystem::perm_options::add);
  const std::string program = tree.root / "program";
  std::filesystem::copy_file("/bin/true", program);
  const auto own = [&](uid_t user, gid_t group, mode_t mode) {
    REQUIRE(::chown(program.c_str(), user, group) == 0);
    REQUIRE(::chmod(program.c_str(), mode) == 0);
  };
  own(1, 0, 04755);
  CHECK(tree.refusal({"--", program}).find("setuid") != std::string::npos);
  own(0, 1, 02755);
  CHECK(tree.refusal({"--", program}).find("setgid") != std::string::npos);
  own(0, 0, 06755);
  CHECK(tree.start({"--", program}).wait_exit() == 0);

  own(0, 0, 0755);
  Process setcap = Process::start({"setcap", "cap_net_bind_service+ep", program});
  if (setcap.wait_exit() != 0) {
    WARN("skipped: no file capabilities here");
    return;
  }
  CHECK(tree.start({"--", program}).wait_exit() == 0);
  Process other = Process::start(
      {"setpriv", "--reuid=65534", "--clear-groups", "--regid=65534", tree.run, "--", program});
  other.await_log("file capabilities");
  CHECK(other.wait_exit() == 1);
}

TEST_CASE("continuity-run refuses a path that the loader would split") {
  const std::string name = GENERATE("a blank", "a:colon");
  const Tree tree("bin", "lib", name);
  Process process = tree.start(tell_preload);

  process.await_log("cannot preload " + std::string(std::filesystem::canonical(tree.library)));
  CHECK(process.wait_exit() == 1);
}

TEST_CASE("restarted under load, nothing is lost: started by continuity-run") {
  const Tree tree;
  Place place;
  place.program = tree.run;
  place.environment = {"LD_PRELOAD="};
  restarts_without_loss({"--drain-timeout=1h", "--new-session", "--", TINY_SERVER, "threads"},
                        place);
}

}  // namespace continuity::test
