// continuity-run: a start script without an environment gets the library from
// beside the script, and the process it has started is the server itself.
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <filesystem>

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

TEST_CASE("continuity-run says how it is called when there is nothing to run") {
  const Tree tree;
  for (const Arguments& arguments : {Arguments{}, Arguments{"--"}, Arguments{"--help"}}) {
    CAPTURE(arguments);
    Process process = tree.start(arguments);
    process.await_log("usage: continuity-run -- COMMAND");
    CHECK(process.wait_exit() == 2);
  }
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
  restarts_without_loss({"--", TINY_SERVER, "threads"}, place);
}

}  // namespace continuity::test
