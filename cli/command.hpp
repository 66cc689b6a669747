// What every command has in common: what may be said after its name, how it says what came of
// it, and how main.cpp finds it.
#pragma once

#include "core/clock.hpp"
#include "core/sys.hpp"

#include <functional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace CLI {
class App;
}

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

// Its options ("--json") and arguments ("NAME"). What a value was before is its default, and it
// outlives the application. CLI11 is command.cpp's and main.cpp's alone: it takes twenty seconds
// to compile in each source that includes it.
class Command {
 public:
  enum class Need : bool { no, yes };

  Command(CLI::App& application, const char* name, const char* about);

  // `given`: what the value is with it.
  void add_flag(const char* name, bool& value, const char* about, bool given = true);
  void add_text(const char* name, std::string& value, const char* about, Need need = Need::no);
  // All that follow; an option is given with each of them.
  void add_texts(const char* name, std::vector<std::string>& values, const char* about,
                 Need need = Need::no);
  void add_number(const char* name, unsigned& value, const char* about);
  void add_pid(const char* name, pid_t& value, const char* about, Need need);
  // 500ms, 5s, 2m or 1h; all else is wrong usage.
  void add_duration(const char* name, Nanoseconds& value, const char* about);
  // Of its arguments; what looks like an option behind the first is an argument, too.
  void end_with_arguments();
  void on_call(std::function<void()> run);

 private:
  CLI::App* command_;
};

}  // namespace continuity::cli
