// What the command says to who calls it wrongly, or asks how to.
#include "command.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <regex>
#include <sstream>

namespace continuity::test {

TEST_CASE("wrong usage is one line, and status 2") {
  const Place place;
  using Line = std::vector<std::string>;
  for (const Line& line :
       {Line{}, Line{"nonsense"}, Line{"--nonsense"}, Line{"status"}, Line{"list", "extra"},
        Line{"list", "--nonsense"}, Line{"upgrade"}, Line{"upgrade", "x", "--timeout", "soon"},
        Line{"upgrade", "x", "--env", "novalue"}, Line{"stop", "x", "--timeout", "-1"},
        Line{"stop"}, Line{"check"}, Line{"check", "--timeout", "5", "--", "x"}, Line{"reload"},
        Line{"reload", "--supervisor", "x"}, Line{"supervise"},
        Line{"supervise", "--stop-timeout", "soon", "--", "x"}, Line{"doctor", "--"}}) {
    CAPTURE(line);
    const Said said = run_command(place, line);
    CHECK(said.status == 2);
    CHECK(said.output.empty());
    CHECK(said.errors.rfind("continuity: ", 0) == 0);
    CHECK(std::count(said.errors.begin(), said.errors.end(), '\n') == 1);
    CHECK_THAT(said.errors, Catch::Contains("--help"));
  }
}

TEST_CASE("a command that there is not is told, and which there are") {
  const Place place;
  const Said said = run_command(place, {"lst", "x"});
  CHECK(said.status == 2);
  CHECK(said.errors.rfind("continuity: there is no command lst; there is list, status, ", 0) == 0);
}

TEST_CASE("help fits a terminal of 80 columns and 24 lines") {
  const Place place;
  for (const std::vector<std::string>& line : {std::vector<std::string>{"--help"},
                                               {"list", "--help"},
                                               {"status", "--help"},
                                               {"upgrade", "--help"},
                                               {"stop", "--help"},
                                               {"trace", "--help"},
                                               {"check", "--help"},
                                               {"supervise", "--help"},
                                               {"reload", "--help"},
                                               {"doctor", "--help"}}) {
    CAPTURE(line);
    const Said said = run_command(place, line);
    CHECK(said.status == 0);
    CHECK(said.errors.empty());
    std::istringstream lines(said.output);
    int count = 0;
    for (std::string one; std::getline(lines, one); ++count) {
      CAPTURE(one);
      CHECK(one.size() <= 80);
    }
    CHECK(count > 3);
    CHECK(count <= 24);
  }
}

TEST_CASE("each command and each option of it is in the manual and completed by bash and zsh") {
  const Place place;
  const std::string manual = read_file(SOURCE_TREE "/docs/continuity.1") +
                             read_file(SOURCE_TREE "/docs/continuity-supervise.1");
  const std::string zsh = read_file(SOURCE_TREE "/cli/completions/_continuity");
  const auto completed = [](const std::string& words) {
    Process bash = Process::start(
        {"bash", "-c",
         "source " SOURCE_TREE "/cli/completions/continuity.bash; COMP_WORDS=(continuity " + words +
             "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); PATH=; _continuity; "
             "echo \" ${COMPREPLY[*]} \""});
    return bash.next_line();
  };
  const auto words_of = [](const std::string& text, const std::string& expression) {
    const std::regex pattern(expression);
    std::vector<std::string> words;
    for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) {
      words.push_back((*at)[1]);
    }
    return words;
  };
  const std::string help = run_command(place, {"--help"}).output;
  const auto commands = words_of(help.substr(help.find("Subcommands:")), "\\n  ([a-z]+) ");
  CHECK(commands.size() == 9);
  for (const std::string& command : commands) {
    CAPTURE(command);
    CHECK_THAT(completed("''"), Catch::Contains(" " + command + " "));
    CHECK_THAT(zsh, Catch::Contains("'" + command + ":"));
    CHECK_THAT(manual, Catch::Contains("Cm " + command + "\n"));
    for (const std::string& option :
         words_of(run_command(place, {command, "--help"}).output, "\\n  .*--([a-z-]+)")) {
      CAPTURE(option);
      CHECK_THAT(completed(command + " --"), Catch::Contains(" --" + option + " "));
      CHECK((option == "help" || zsh.find("--" + option + "[") != std::string::npos));
      CHECK((option == "help" || manual.find("Fl -" + option) != std::string::npos));
    }
  }
}

TEST_CASE("the version is that of the library") {
  const Place place;
  CHECK(run_command(place, {"--version"}).output.rfind("continuity 0.", 0) == 0);
}

TEST_CASE("a directory that cannot be used is the system's failure") {
  const Place place;
  const Said said = run_command(place, {"list"}, {"CONTINUITY_DIR=/proc/none"});
  CHECK(said.status == 111);
  CHECK_THAT(said.errors, Catch::Contains("/proc/none"));
}

TEST_CASE("what is no terminal gets no colours") {
  const Place place;
  const Process server = place.start({"loop"});
  CHECK(run_command(place, {"list"}).output.find('\x1b') == std::string::npos);
}

}  // namespace continuity::test
