#include "cli/command.hpp"

#include "core/options.hpp"

#include <CLI/CLI.hpp>
#include <utility>

namespace continuity::cli {

Command::Command(CLI::App& application, const char* name, const char* about)
    : command_(application.add_subcommand(name, about)) {}

void Command::add_flag(const char* name, bool& value, const char* about, bool given) {
  command_->add_flag_callback(
      name, [&value, given] { value = given; }, about);
}

void Command::add_text(const char* name, std::string& value, const char* about, Need need) {
  command_->add_option(name, value, about)->required(need == Need::yes);
}

void Command::add_texts(const char* name, std::vector<std::string>& values, const char* about,
                        Need need) {
  CLI::Option* option = command_->add_option(name, values, about);
  option->required(need == Need::yes);
  if (!option->get_positional()) {
    option->allow_extra_args(false);
  }
}

void Command::add_number(const char* name, unsigned& value, const char* about) {
  command_->add_option(name, value, about);
}

void Command::add_pid(const char* name, pid_t& value, const char* about, Need need) {
  command_->add_option(name, value, about)->required(need == Need::yes)->check(CLI::PositiveNumber);
}

void Command::add_duration(const char* name, Nanoseconds& value, const char* about) {
  const auto check = [](const std::string& given) -> std::string {
    Nanoseconds duration = 0;
    return parse_duration(given, duration) ? "" : "a duration reads 500ms, 5s, 2m or 1h";
  };
  command_
      ->add_option_function<std::string>(
          name, [&value](const std::string& given) { parse_duration(given, value); }, about)
      ->type_name("TIME")
      ->check(CLI::Validator(check, ""));
}

void Command::end_with_arguments() {
  command_->positionals_at_end();
}

void Command::on_call(std::function<void()> run) {
  command_->callback(std::move(run));
}

}  // namespace continuity::cli
