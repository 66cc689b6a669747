// What every command has in common: how it says what came of it, and how main.cpp
// finds it.
#pragma once

#include "core/clock.hpp"
#include "core/sys.hpp"

#include <CLI/CLI.hpp>

namespace continuity::cli {

// The exit status of every command; libcontinuity(7) and continuity(1) have the table.
enum class Exit : int {
  done = 0,
  failed = 1,       // refused, or failed: why is on standard error
  usage = 2,        // one line on standard error
  unknown = 3,      // nobody of that name
  rolled_back = 4,  // the predecessor serves again
  timed_out = 5,
  system = 111,  // the system failed us
};

// Each adds itself to the application; what it is asked to do is done while the
// arguments are parsed, and how it ended is left in `exit`, which outlives it.
using AddCommand = void (*)(CLI::App& application, Exit& exit);
void add_doctor(CLI::App& application, Exit& exit);
void add_list(CLI::App& application, Exit& exit);
void add_reload(CLI::App& application, Exit& exit);
void add_supervise(CLI::App& application, Exit& exit);
void add_status(CLI::App& application, Exit& exit);
void add_upgrade(CLI::App& application, Exit& exit);
void add_stop(CLI::App& application, Exit& exit);
void add_trace(CLI::App& application, Exit& exit);
void add_check(CLI::App& application, Exit& exit);

// An option that reads 500ms, 5s, 2m or 1h, and else is wrong usage. `value` is its default,
// and outlives the command.
void add_duration(CLI::App& command, const char* name, Nanoseconds& value, const char* text);

}  // namespace continuity::cli
