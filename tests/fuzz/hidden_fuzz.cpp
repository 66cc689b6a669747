// The list of CONTINUITY_HIDE, and the names found beside its files: whatever is there,
// nothing is removed or put in a place that is not ours.
#include "core/hidden_files.hpp"
#include "core/proc_text.hpp"
#include "fuzz.hpp"
#include "unit/fake_sys.hpp"

#include <algorithm>
#include <sys/un.h>
#include <vector>

namespace continuity::fuzz {
namespace {

bool is_hexadecimal(std::string_view text) {
  return text.size() == 16 &&
         text.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
}

// "x.pid.continuity-0123456789abcdef", or ".0123456789abcdef.hide".
bool is_ours(std::string_view name) {
  constexpr std::string_view mark = ".continuity-";
  constexpr std::string_view lock = ".hide";
  const std::size_t at = name.rfind(mark);
  if (at != std::string_view::npos && is_hexadecimal(name.substr(at + mark.size()))) {
    return at > 0;
  }
  return name.starts_with('.') && name.ends_with(lock) &&
         is_hexadecimal(name.substr(1, name.size() - 1 - lock.size()));
}

// A kernel whose directories have these entries, and in which every lock is free.
class Kernel : public test::FakeSys<1> {
 public:
  explicit Kernel(std::vector<std::string> entries) : entries_(std::move(entries)) {
    hooks.openat = [this](int, const char*, int, mode_t) {
      next_ = 0;
      return 100'000;
    };
    hooks.close = [](int) { return 0; };
    hooks.flock = [](int, int) { return 0; };
    hooks.fstat = [](int, struct stat* status) {
      *status = {};
      status->st_nlink = 1;
      return 0;
    };
    hooks.fstatat = [](int, const char*, struct stat* status, int) {
      *status = {};
      return 0;
    };
    hooks.getdents = [this](int, void* buffer, std::size_t) { return list(buffer); };
    hooks.unlinkat = [](int, const char* name, int) {
      require(is_ours(name), "only what is ours is removed");
      return 0;
    };
    hooks.renameat = [](int, const char* from, int, const char*) {
      require(is_ours(from), "only what is ours is put in a place");
      return 0;
    };
    hooks.renameat2 = [](int, const char* from, int, const char*, unsigned) {
      require(is_ours(from), "only what is ours is put in a place");
      return 0;
    };
  }

 private:
  ssize_t list(void* buffer) {
    return next_ == entries_.size() ? 0 : put_entry(buffer, entries_[next_++]);
  }

  std::vector<std::string> entries_;
  std::size_t next_ = 0;
};

// What a directory may have: a name of at most 255 characters, without "/" or zero.
std::vector<std::string> names_in(std::string_view lines) {
  std::vector<std::string> names;
  for_each_line(lines, [&](std::string_view line) {
    line = line.substr(0, std::min<std::size_t>({line.find('\0'), line.find('/'), 255}));
    if (!line.empty()) {
      names.emplace_back(line);
    }
  });
  return names;
}

}  // namespace

// The first line is the list, the others are the entries.
void run(Bytes input) {
  const std::string_view text = as_text(input);
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view paths = text.substr(0, end);
  const bool hidable = are_hidable(paths) && paths.find('\0') == std::string_view::npos;
  static_cast<void>(is_last_name_among(paths, "x.pid"));
  if (!hidable) {
    return;
  }
  Kernel kernel(names_in(text.substr(end)));
  HiddenFiles files(kernel, paths);
  require(files.size() > 0 && files.size() <= HiddenFiles::most, "their number is bounded");
  constexpr std::uint64_t generation = 0x1234;
  require(files.hold(0, generation).has_value(), "a lock can be had");
  for (std::size_t i = 0; i < files.size(); ++i) {
    require(files.path(i).front() == '/', "paths are absolute");
    require(files.find(0, files.path(i)).has_value(), "a file is found by its path");
    static_cast<void>(files.take_place(i, generation));
  }
  files.sweep(0);
  files.note_own();
  files.put_back(generation);
  files.let_go(generation);
}

}  // namespace continuity::fuzz
