#include "core/hidden_files.hpp"

#include "core/directory.hpp"
#include "core/log.hpp"

#include <algorithm>
#include <charconv>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/un.h>

namespace continuity {
namespace {

constexpr std::string_view mark = ".continuity-";
constexpr std::size_t digits = 16;

// Calls visit(path) for each of them until it answers true.
template <typename Visit>
bool any_path(std::string_view paths, Visit visit) {
  while (!paths.empty()) {
    const auto colon = std::min(paths.find(':'), paths.size());
    if (visit(paths.substr(0, colon))) {
      return true;
    }
    paths.remove_prefix(std::min(colon + 1, paths.size()));
  }
  return false;
}

// "/run" of "/run/x.pid", "/" of "/x.pid", "." of "x.pid".
std::string directory_of(std::string_view path) {
  const auto slash = path.rfind('/');
  if (slash == std::string_view::npos) {
    return ".";
  }
  return std::string(path.substr(0, std::max<std::size_t>(slash, 1)));
}

std::string lock_name(std::uint64_t generation) {
  return compose(".{:016x}.hide", generation);
}

bool is_lock_name(std::string_view entry) {
  return entry.size() == lock_name(0).size() && entry.front() == '.' && entry.ends_with(".hide") &&
         entry.substr(1, digits).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// The generation in the name of a file that is beside `name`; 0: it is none.
std::uint64_t generation_beside(std::string_view name, std::string_view entry) {
  std::uint64_t generation = 0;
  if (entry.size() != name.size() + mark.size() + digits || entry.substr(0, name.size()) != name ||
      entry.substr(name.size(), mark.size()) != mark) {
    return 0;
  }
  const char* end = entry.data() + entry.size();
  const auto [rest, error] = std::from_chars(end - digits, end, generation, 16);
  return error == std::errc{} && rest == end ? generation : 0;
}

}  // namespace

bool are_hidable(std::string_view paths) {
  std::size_t count = 0;
  return !paths.empty() && paths.back() != ':' && !any_path(paths, [&](std::string_view path) {
    return path.empty() || path.front() != '/' || path.back() == '/' || ++count > HiddenFiles::most;
  });
}

std::string_view last_name(std::string_view path) {
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool is_last_name_among(std::string_view paths, std::string_view name) {
  return !name.empty() &&
         any_path(paths, [&](std::string_view path) { return last_name(path) == name; });
}

HiddenFiles::HiddenFiles(const Sys& sys, std::string_view paths) : sys_(&sys) {
  any_path(paths, [&](std::string_view path) {
    File& file = files_.emplace_back();
    file.path = path;
    file.name = last_name(path);
    open_directory(file);
    return false;
  });
}

HiddenFiles::~HiddenFiles() {
  for (const File& file : files_) {
    for (const int fd : {file.directory.load(), file.own.load()}) {
      if (fd >= 0) {
        sys_->close(fd);
      }
    }
  }
}

bool HiddenFiles::open_directory(File& file) {
  if (file.directory.load() < 0) {
    file.directory.store(sys_->openat(AT_FDCWD, directory_of(file.path).c_str(),
                                      O_PATH | O_DIRECTORY | O_CLOEXEC, 0));
  }
  return file.directory.load() >= 0;
}

std::string HiddenFiles::suffix(std::uint64_t generation) {
  return compose("{}{:016x}", mark, generation);
}

std::string HiddenFiles::short_path_beside(std::size_t index, std::uint64_t generation) const {
  const File& file = files_[index];
  std::string path = file.path + suffix(generation);
  if (path.size() < sizeof(sockaddr_un::sun_path)) {
    return path;
  }
  return compose("/proc/self/fd/{}/{}{}", sys_->number(file.directory.load()), file.name,
                 suffix(generation));
}

std::optional<std::size_t> HiddenFiles::find(int directory, std::string_view path) {
  const std::string_view name = last_name(path);
  for (std::size_t i = 0; i < files_.size(); ++i) {
    File& file = files_[i];
    struct stat ours {};
    struct stat theirs {};
    if (file.name == name && open_directory(file) &&
        sys_->fstat(file.directory.load(), &ours) == 0 &&
        sys_->fstatat(directory, directory_of(path).c_str(), &theirs, 0) == 0 &&
        ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino) {
      return i;
    }
  }
  return std::nullopt;
}

// ---- The successor -----------------------------------------------------------------

// A lock is let go when the last process that has it ends, however it ends.
Status HiddenFiles::hold(int place, std::uint64_t generation) {
  constexpr int attempts = 100;
  constexpr int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const std::string name = lock_name(generation);
  place_ = place;
  for (int i = 0; i < attempts; ++i) {
    OwnedFd lock(*sys_, sys_->openat(place, name.c_str(), flags, S_IRUSR | S_IWUSR));
    if (!lock.is_open()) {
      return last_error("make a lock for what is hidden");
    }
    if (sys_->flock(lock.get(), LOCK_SH) != 0) {
      if (errno == EINTR) {
        continue;
      }
      return last_error("lock what is hidden");
    }
    // Who sweeps may have found it just before it was locked, and removed it.
    struct stat status {};
    if (sys_->fstat(lock.get(), &status) == 0 && status.st_nlink > 0) {
      lock_ = std::move(lock);
      return Done{};
    }
  }
  return Error{"lock what is hidden", EAGAIN};
}

Status HiddenFiles::take_place(std::size_t index, std::uint64_t generation) {
  const File& file = files_[index];
  const int directory = file.directory.load();
  const std::string beside = file.name + suffix(generation);
  struct stat status {};
  if (directory < 0 ||
      sys_->fstatat(directory, beside.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
    return Done{};
  }
  if (sys_->renameat2(directory, beside.c_str(), directory, file.name.c_str(), RENAME_EXCHANGE) ==
      0) {
    return Done{};
  }
  // Nothing to exchange it with, or a file system that cannot (then what was
  // there is lost).
  if ((errno == ENOENT || errno == EINVAL || errno == ENOSYS) &&
      sys_->renameat(directory, beside.c_str(), directory, file.name.c_str()) == 0) {
    return Done{};
  }
  return last_error("put it in its place");
}

void HiddenFiles::sweep_beside(int place, const File& file) {
  const OwnedFd listing(
      *sys_, sys_->openat(file.directory.load(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  std::vector<std::uint64_t> found;
  const auto visit = [&](std::string_view entry) {
    if (const auto generation = generation_beside(file.name, entry); generation != 0) {
      found.push_back(generation);
    }
  };
  if (!listing.is_open() || !for_each_entry(*sys_, listing.get(), visit)) {
    return;
  }
  for (const std::uint64_t generation : found) {
    const std::string name = lock_name(generation);
    const OwnedFd lock(*sys_,
                       sys_->openat(place, name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0));
    if (lock.is_open() ? sys_->flock(lock.get(), LOCK_EX | LOCK_NB) == 0 : errno == ENOENT) {
      sys_->unlinkat(file.directory.load(), (file.name + suffix(generation)).c_str(), 0);
    }
  }
}

void HiddenFiles::sweep(int place) {
  for (const File& file : files_) {
    if (file.directory.load() >= 0) {
      sweep_beside(place, file);
    }
  }
  const OwnedFd listing(*sys_, sys_->openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
  std::vector<std::string> locks;
  const auto visit = [&](std::string_view entry) {
    if (is_lock_name(entry)) {
      locks.emplace_back(entry);
    }
  };
  if (!listing.is_open() || !for_each_entry(*sys_, listing.get(), visit)) {
    return;
  }
  for (const std::string& name : locks) {
    const OwnedFd lock(*sys_,
                       sys_->openat(place, name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0));
    if (lock.is_open() && sys_->flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
      sys_->unlinkat(place, name.c_str(), 0);
    }
  }
}

// ---- Both --------------------------------------------------------------------------

void HiddenFiles::remove(std::uint64_t generation) {
  for (const File& file : files_) {
    if (file.directory.load() >= 0) {
      sys_->unlinkat(file.directory.load(), (file.name + suffix(generation)).c_str(), 0);
    }
  }
}

void HiddenFiles::let_go(std::uint64_t generation) {
  if (!lock_.is_open()) {
    return;  // nothing has been hidden
  }
  remove(generation);
  sys_->unlinkat(place_, lock_name(generation).c_str(), 0);
}

// ---- The predecessor ---------------------------------------------------------------

void HiddenFiles::note_own() {
  for (File& file : files_) {
    const int own = file.directory.load() < 0
                        ? -1
                        : sys_->openat(file.directory.load(), file.name.c_str(),
                                       O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    if (const int before = file.own.exchange(own); before >= 0) {
      sys_->close(before);
    }
  }
}

bool HiddenFiles::is_own(const File& file, const std::string& name) const {
  struct stat own {};
  struct stat status {};
  return file.own.load() >= 0 && sys_->fstat(file.own.load(), &own) == 0 &&
         sys_->fstatat(file.directory.load(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         status.st_ino == own.st_ino && status.st_dev == own.st_dev;
}

bool HiddenFiles::is_replaced(std::size_t index) const {
  return !is_own(files_[index], files_[index].name);
}

void HiddenFiles::put_back(std::uint64_t generation) {
  for (const File& file : files_) {
    const int directory = file.directory.load();
    const std::string beside = file.name + suffix(generation);
    if (directory < 0) {
      continue;
    }
    // It may have ended before its own took the place.
    if (is_own(file, beside)) {
      sys_->renameat(directory, beside.c_str(), directory, file.name.c_str());
    }
    sys_->unlinkat(directory, beside.c_str(), 0);
  }
  if (successors_place_ >= 0) {
    sys_->unlinkat(successors_place_, lock_name(generation).c_str(), 0);
  }
}

void HiddenFiles::remove_replaced(std::uint64_t generation) {
  for (const File& file : files_) {
    const int directory = file.directory.load();
    struct stat status {};
    if (directory >= 0 && !is_own(file, file.name) &&
        sys_->fstatat(directory, file.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      sys_->unlinkat(directory, (file.name + suffix(generation)).c_str(), 0);
    }
  }
}

void HiddenFiles::append_descriptors(std::vector<int>& fds) const {
  for (const File& file : files_) {
    fds.push_back(file.directory.load());
    fds.push_back(file.own.load());
  }
  fds.push_back(lock_.get());
}

}  // namespace continuity
