#include "command.hpp"

#include "support/temp_dir.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace continuity::test {
namespace {

using nlohmann::json;

Environment surroundings(const Place& place, const Environment& more) {
  Environment result{"CONTINUITY_DIR=" + place.rendezvous(), "TMPDIR=" + place.rendezvous()};
  result.insert(result.end(), more.begin(), more.end());
  return result;
}

bool is_of_type(const json& value, const json& type) {
  if (type.is_array()) {
    return std::any_of(type.begin(), type.end(),
                       [&](const json& one) { return is_of_type(value, one); });
  }
  const std::string name = type;
  return name == "object"    ? value.is_object()
         : name == "array"   ? value.is_array()
         : name == "string"  ? value.is_string()
         : name == "integer" ? value.is_number_integer()
         : name == "boolean" ? value.is_boolean()
         : name == "null"    ? value.is_null()
                             : false;
}

const json& our_schema() {
  static const json schema = json::parse(read_file(SOURCE_TREE "/docs/continuity.schema.json"));
  return schema;
}

// As much of JSON Schema as ours uses.
std::string check(const json& value, const json& schema, const std::string& where) {
  if (schema.contains("$ref")) {
    const std::string name = schema["$ref"];  // "#/$defs/NAME"
    return check(value, our_schema().at("$defs").at(name.substr(name.rfind('/') + 1)), where);
  }
  if (schema.contains("type") && !is_of_type(value, schema["type"])) {
    return where + ": " + value.dump() + " is no " + schema["type"].dump();
  }
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
    return where + ": " + value.dump() + " is none of " + schema["enum"].dump();
  }
  if (value.is_object() && schema.contains("properties")) {
    for (const auto& [name, part] : value.items()) {
      if (!schema["properties"].contains(name)) {
        return where + ": " + name + " is not in the schema";
      }
      if (auto wrong = check(part, schema["properties"][name], where + "." + name);
          !wrong.empty()) {
        return wrong;
      }
    }
    for (const json& name : schema.value("required", json::array())) {
      if (!value.contains(name)) {
        return where + ": " + name.get<std::string>() + " is missing";
      }
    }
  }
  if (value.is_array() && schema.contains("items")) {
    for (const json& one : value) {
      if (auto wrong = check(one, schema["items"], where + "[]"); !wrong.empty()) {
        return wrong;
      }
    }
  }
  return {};
}

}  // namespace

Said run_command(const Place& place, const std::vector<std::string>& arguments,
                 const Environment& environment) {
  const TempDir directory;
  std::vector<std::string> command{"/bin/sh", "-c",
                                   "exec \"$@\" >" + directory / "out" + " 2>" + directory / "err",
                                   "sh", CONTINUITY_COMMAND};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Process process = Process::start(command, surroundings(place, environment));
  Said said;
  said.status = process.wait_exit();
  said.output = read_file(directory / "out");
  said.errors = read_file(directory / "err");
  return said;
}

Process start_command(const Place& place, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{CONTINUITY_COMMAND};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Process::start(command, surroundings(place, {}));
}

Place place_with_probation(const std::string& duration) {
  return {.environment = {"CONTINUITY_PROBATION=" + duration}};
}

json server_of(const json& told, pid_t pid) {
  for (const json& server : told.at("servers")) {
    if (server.at("pid") == pid) {
      return server;
    }
  }
  FAIL("there is no pid " << pid << " in " << told.dump(2));
  return {};
}

std::string what_is_wrong(const json& told, const std::string& name) {
  const json& schema = our_schema();
  return check(told, name.empty() ? schema : schema.at("$defs").at(name), "it");
}

pid_t who_answers(const Place& place) {
  return static_cast<pid_t>(number_in(answer_from(place.address()), "pid"));
}

}  // namespace continuity::test
