// What is installed for systemd, and what the pages for operators say of the program.
#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <sstream>

namespace continuity::test {
namespace {

// All sources that print, as one text in which a string literal is in one piece.
std::string all_sources() {
  std::string text;
  for (const char* room : {"core", "shim", "cli"}) {
    for (const auto& file :
         std::filesystem::recursive_directory_iterator(std::string(SOURCE_TREE "/") + room)) {
      if (file.path().extension() == ".cpp") {
        text += read_file(file.path());
      }
    }
  }
  text = std::regex_replace(text, std::regex(R"("\s*\n\s*")"), "");
  return std::regex_replace(text, std::regex(R"(\\")"), "\"");
}

std::vector<std::string> quoted_messages() {
  std::istringstream page(read_file(SOURCE_TREE "/docs/troubleshooting.md"));
  std::vector<std::string> messages;
  for (std::string line; std::getline(page, line);) {
    if (line.rfind("### `", 0) == 0 && line.back() == '`') {
      messages.push_back(line.substr(5, line.size() - 6));
    }
  }
  return messages;
}

std::vector<std::string> parts_of(std::string message) {
  const std::string gap = "\u2026";
  std::vector<std::string> parts;
  for (std::size_t at = 0; (at = message.find(gap)) != std::string::npos;) {
    parts.push_back(message.substr(0, at));
    message.erase(0, at + gap.size());
  }
  parts.push_back(message);
  return parts;
}

std::string verify(const std::string& unit, const std::string& directory) {
  Process analyze = Process::start(
      {"sh", "-c", "systemd-analyze verify --man=no \"$1\" 2>&1; echo status=$?", "sh", unit},
      {"SYSTEMD_UNIT_PATH=" + directory + ":"});
  std::string said;
  std::string line;
  do {
    line = analyze.next_line();
    // It reads all units there are on the machine, and says what it finds wrong with those, too.
    const bool is_of_another = line.find("/systemd/system/") != std::string::npos;
    said += is_of_another ? "" : line + "\n";
  } while (line.rfind("status=", 0) != 0);
  return said;
}

// A unit as it is installed, but with the program of this build.
void copy_unit(const std::string& from, const std::string& to) {
  const std::string text = read_file(from);
  write_file(to, std::regex_replace(text, std::regex("=continuity "), "=" CONTINUITY_COMMAND " "));
}

bool has_systemd() {
  if (std::filesystem::exists("/usr/bin/systemd-analyze")) {
    return true;
  }
  WARN("skipped: no systemd-analyze");
  return false;
}

}  // namespace

TEST_CASE("every message that the troubleshooting page quotes is one that is printed") {
  const std::string sources = all_sources();
  const auto messages = quoted_messages();
  REQUIRE(messages.size() > 20);
  for (const std::string& message : messages) {
    CAPTURE(message);
    std::size_t longest = 0;
    for (const std::string& part : parts_of(message)) {
      longest = std::max(longest, part.size());
      // Of a short part anything could be the source.
      CHECK((part.size() < 12 || sources.find(part) != std::string::npos));
    }
    CHECK(longest >= 12);
  }
}

TEST_CASE("systemd finds nothing wrong with the unit that is installed") {
  if (!has_systemd()) {
    return;
  }
  const TempDir directory;
  copy_unit(SOURCE_TREE "/systemd/continuity@.service", directory / "continuity@.service");
  CHECK(verify("continuity@api.service", directory.path()) == "status=0\n");

  // It would say so.
  write_file(directory / "broken@.service", "[Service]\nType=notify\nExecStart=/nonexistent\n");
  CHECK(verify("broken@api.service", directory.path()) != "status=0\n");
}

TEST_CASE("systemd finds nothing wrong with the drop-ins for units of the distribution's") {
  if (!has_systemd()) {
    return;
  }
  const std::string name = GENERATE("nginx", "redis-server");
  const std::string unit = "/lib/systemd/system/" + name + ".service";
  if (!std::filesystem::exists(unit)) {
    WARN("skipped: " + name + " is not installed");
    return;
  }
  const TempDir directory;
  std::filesystem::create_directory(directory / (name + ".service.d"));
  std::filesystem::copy_file(unit, directory / (name + ".service"));
  copy_unit(SOURCE_TREE "/systemd/" + name + ".conf",
            directory / (name + ".service.d/continuity.conf"));
  CHECK(verify(name + ".service", directory.path()) == "status=0\n");
}

}  // namespace continuity::test
