// Files that keep a server from running twice: what CONTINUITY_HIDE names.
//
// A server that finds its own pid file, or a socket at its path, refuses to
// start. So a successor does not see these files until the take-over: what it
// does to one it does to another beside it, PATH.continuity-GENERATION. At the
// take-over the two change places; then the predecessor's is the one beside,
// until its probation is over and it is removed, or it comes back and the two
// change places again.
//
// A file is known by its directory, as the kernel sees it, and its last name:
// relative paths, links to directories and chroot lead to the same.
#pragma once

#include "core/owned_fd.hpp"
#include "core/result.hpp"
#include "core/sys.hpp"

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace continuity {

// Whether these are paths as CONTINUITY_HIDE wants them: absolute, and of files.
bool are_hidable(std::string_view paths);

// The last name of a path: "x.pid" of "/run/x.pid".
std::string_view last_name(std::string_view path);

// Whether one of `paths` has this last name.
bool is_last_name_among(std::string_view paths, std::string_view name);

class HiddenFiles {
 public:
  // `paths` are separated by ':'. Their directories are opened now, before
  // anybody can chroot; those which are missing when they are first asked for.
  HiddenFiles(const Sys& sys, std::string_view paths);
  ~HiddenFiles();
  HiddenFiles(const HiddenFiles&) = delete;
  HiddenFiles& operator=(const HiddenFiles&) = delete;

  static constexpr std::size_t most = 64;
  [[nodiscard]] std::size_t size() const { return files_.size(); }
  [[nodiscard]] const std::string& path(std::size_t index) const { return files_[index].path; }
  // What is put behind the path.
  static std::string suffix(std::uint64_t generation);
  // A path of the file beside that is short enough for a UNIX address.
  [[nodiscard]] std::string short_path_beside(std::size_t index, std::uint64_t generation) const;

  // Which of them the program means.
  std::optional<std::size_t> find(int directory, std::string_view path);

  // ---- The successor -------------------------------------------------------------

  // From now on what this generation has beside is in use, as long as one of
  // its processes lives. `place` is the directory of the rendezvous.
  Status hold(int place, std::uint64_t generation);
  [[nodiscard]] bool is_held() const { return lock_.is_open(); }
  // What it has beside takes its place; what was there is beside now.
  Status take_place(std::size_t index, std::uint64_t generation);
  // Removes what generations that are no more have left beside.
  void sweep(int place);

  // ---- Both ----------------------------------------------------------------------

  // Removes what is beside.
  void remove(std::uint64_t generation);
  // The same, and nothing of this generation is in use any more.
  void let_go(std::uint64_t generation);

  // ---- The predecessor -----------------------------------------------------------

  // The directory of the rendezvous in which successors are expected.
  void expect_at(int place) { successors_place_ = place; }
  // What is there now is this generation's own.
  void note_own();
  // Something else is there by now than what has been noted.
  [[nodiscard]] bool is_replaced(std::size_t index) const;
  // A successor has ended: what it has replaced comes back, what it has made goes.
  void put_back(std::uint64_t generation);
  // A successor has succeeded: what it has replaced goes. What it has not come to put in its
  // place yet is its own.
  void remove_replaced(std::uint64_t generation);

  // Descriptors of ours in here, appended to `fds`.
  void append_descriptors(std::vector<int>& fds) const;

 private:
  struct File {
    std::string path;
    std::string name;  // the last one
    // Atomic, since the agent uses them too.
    std::atomic<int> directory{-1};
    // The file that is this generation's own. Kept open: the number of one that
    // is gone is soon another's.
    std::atomic<int> own{-1};
  };
  bool open_directory(File& file);
  [[nodiscard]] bool is_own(const File& file, const std::string& name) const;
  void sweep_beside(int place, const File& file);

  const Sys* sys_;
  std::deque<File> files_;
  OwnedFd lock_;
  int place_ = -1;  // where it is
  int successors_place_ = -1;
};

}  // namespace continuity
