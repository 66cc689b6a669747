// What people see on a terminal: colours, and lines that fit it.
#include "cli/output.hpp"
#include "command.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <sstream>

namespace continuity::test {
namespace {

// What `continuity ARGUMENT...` says on a terminal of so many columns.
std::vector<std::string> on_terminal(const Place& place, int columns, const std::string& arguments,
                                     const Environment& more = {}) {
  const TempDir directory;
  Environment environment{"CONTINUITY_DIR=" + place.rendezvous(), "TERM=xterm", "NO_COLOR="};
  environment.insert(environment.end(), more.begin(), more.end());
  const std::string command =
      "stty cols " + std::to_string(columns) + "; exec " CONTINUITY_COMMAND " " + arguments;
  Process terminal = Process::start(
      {"script", "--quiet", "--return", "--command", command, directory / "typescript"},
      environment);
  terminal.wait_exit();
  std::istringstream text(read_file(directory / "typescript"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (line.rfind("Script ", 0) != 0) {
      line.erase(std::remove(line.begin(), line.end(), '\r'), line.end());
      lines.push_back(line);
    }
  }
  return lines;
}

// As many columns as it takes.
std::size_t width_of(const std::string& line) {
  return static_cast<std::size_t>(std::count_if(line.begin(), line.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xc0U) != 0x80U;
  }));
}

std::size_t longest(const std::vector<std::string>& lines) {
  std::size_t most = 0;
  for (const std::string& line : lines) {
    most = std::max(most, width_of(line));
  }
  return most;
}

bool has(const std::vector<std::string>& lines, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(),
                     [&](const std::string& line) { return line.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("a line that is too long goes on below what stands behind its title") {
  CHECK(cli::folded("one two three\n", 0) == "one two three\n");
  CHECK(cli::folded("one two three\n", 13) == "one two three\n");
  CHECK(cli::folded("one two three\n", 12) == "one two\n  three\n");
  CHECK(cli::folded("a\n  one two three\nb", 9) == "a\n  one two\n    three\nb");
  CHECK(cli::folded("good  one two three four", 16) == "good  one two\n      three four");
  CHECK(cli::folded("good  \x1b[31mone two\x1b[0m three", 16) ==
        "good  \x1b[31mone two\x1b[0m\n      three");
  // A path is of use in one piece only.
  CHECK(cli::folded("in /a/path/that/is/long or not\n", 12) ==
        "in /a/path/that/is/long\n  or not\n");
}

TEST_CASE("the last column of a table has a line of its own where it would be cut short") {
  cli::Table table({"NAME", "STATE", "LISTENERS"});
  table.add({{"a-server-with-a-name"}, {"active"}, {"127.0.0.1:8000, 127.0.0.1:9000"}});
  CHECK(table.to_string(0) ==
        "NAME                  STATE   LISTENERS\n"
        "a-server-with-a-name  active  127.0.0.1:8000, 127.0.0.1:9000\n");
  CHECK(table.to_string(55) ==
        "NAME                  STATE   LISTENERS\n"
        "a-server-with-a-name  active  127.0.0.1:8000, 127.0.0.\u2026\n");
  CHECK(table.to_string(40) ==
        "NAME                  STATE\n  LISTENERS\n"
        "a-server-with-a-name  active\n  127.0.0.1:8000, 127.0.0.1:9000\n");
  CHECK(table.to_string(20) ==
        "NAME          STATE\n  LISTENERS\n"
        "a-server-wi\u2026  active\n  127.0.0.1:8000, 1\u2026\n");
}

TEST_CASE("what is said on a terminal fits it") {
  Place place;
  place.environment = {"CONTINUITY_NAME=a-server-with-rather-a-long-name"};
  for (int i = 0; i < 3; ++i) {
    place.addresses.push_back("127.0.0.1:0");
  }
  const Process server = place.start({"prefork"});
  const auto columns = GENERATE(60, 80);
  CAPTURE(columns);
  const Environment plain{"NO_COLOR=1"};
  for (const std::string command :
       {"list", "status a-server-with-rather-a-long-name", "status nobody-that-has-this-name",
        "doctor", "doctor -- " UNLINKED_SERVER,
        "upgrade a-server-with-rather-a-long-name -- --nonsense",
        "trace a-server-with-rather-a-long-name"}) {
    CAPTURE(command);
    const auto lines = on_terminal(place, columns, command, plain);
    CAPTURE(lines);
    CHECK_FALSE(lines.empty());
    // But for a path, which stays whole.
    const auto count = std::count_if(lines.begin(), lines.end(), [&](const std::string& line) {
      return width_of(line) > static_cast<std::size_t>(columns) &&
             line.find('/') == std::string::npos;
    });
    CHECK(count == 0);
  }
  CHECK(longest(on_terminal(place, columns, "list", plain)) <= static_cast<std::size_t>(columns));
}

TEST_CASE("there are colours on a terminal, unless they are not wanted") {
  const Place place;
  const Process server = place.start({"loop"});
  CHECK(has(on_terminal(place, 80, "list"), "\x1b[32mactive\x1b[0m"));
  CHECK_FALSE(has(on_terminal(place, 80, "list", {"NO_COLOR=1"}), "\x1b"));
  CHECK_FALSE(has(on_terminal(place, 80, "list", {"TERM=dumb"}), "\x1b"));
  CHECK_FALSE(has(on_terminal(place, 80, "list --json"), "\x1b"));
}

}  // namespace continuity::test
