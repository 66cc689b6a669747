#include "cli/command.hpp"

#include "core/options.hpp"

namespace continuity::cli {

void add_duration(CLI::App& command, const char* name, Nanoseconds& value, const char* text) {
  const auto check = [](const std::string& given) -> std::string {
    Nanoseconds duration = 0;
    return parse_duration(given, duration) ? "" : "a duration reads 500ms, 5s, 2m or 1h";
  };
  command
      .add_option_function<std::string>(
          name, [&value](const std::string& given) { parse_duration(given, value); }, text)
      ->type_name("TIME")
      ->check(CLI::Validator(check, ""));
}

}  // namespace continuity::cli
