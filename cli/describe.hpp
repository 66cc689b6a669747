// A server in words and as JSON: what list, status and trace have in common.
#pragma once

#include "cli/connections.hpp"
#include "cli/output.hpp"
#include "cli/servers.hpp"

#include <nlohmann/json.hpp>
#include <string>

namespace continuity::cli {

using Json = nlohmann::ordered_json;

// docs/continuity.schema.json has what is in it. `in_depth`: what holds it, and what has been.
Json to_json(const Server& server, const Connections& connections, bool in_depth);

// "3 s", "5 min", "2 h", "4 d".
std::string in_words(std::int64_t nanoseconds);
// Nanoseconds since the process was started; nothing: there is none, or it may not be seen.
std::optional<std::int64_t> age_of(pid_t process);

const char* name_of(RestartStep step);
const char* name_of(RestartOutcome outcome);
const char* name_of(Evidence evidence);
Colour colour_of(const Server& server);

// Writes it, with a line end, to standard output.
void print(const std::string& text);
void print_json(const Json& json);

}  // namespace continuity::cli
