#include "core/rendezvous.hpp"

#include "core/directory.hpp"
#include "core/stand_in.hpp"

#include <cstring>
#include <fcntl.h>
#include <limits>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace continuity {
namespace {

constexpr const char* usual_base = "/run/continuity";
constexpr int backlog = 64;
constexpr std::string_view suffix = ".sock";
constexpr int squat_attempts = 10;
constexpr Nanoseconds full_queue_time = 100 * millisecond;  // of all doors together
// So many sockets of another user are looked at: a descriptor for each is open at once.
constexpr std::size_t most_of_others = 128;

std::string name_of(const std::string& identity, std::uint64_t generation) {
  return compose("{}.{:016x}{}", identity, generation, suffix);
}

std::string unpublished_name(std::uint64_t generation) {
  return compose(".{:016x}{}", generation, suffix);
}

// A relative UNIX path has room for 107 bytes; through /proc the directory
// may be as deep as it likes. Without a name: the open file itself.
sockaddr_un socket_address(const Sys& sys, int fd, const std::string& name = {}) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto path = compose("/proc/self/fd/{}{}{}", sys.number(fd), name.empty() ? "" : "/", name);
  const std::size_t room = sizeof address.sun_path - 1;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), room));
  return address;
}

constexpr const char* set_other = "set CONTINUITY_DIR to a directory of your own";

OwnedFd open_directory(const Sys& sys, int at, const char* path, int access = O_RDONLY) {
  return {sys, sys.openat(at, path, access | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0)};
}

std::string why_not_a_directory(const std::string& path, int code) {
  switch (code) {
    case ENOENT:
      return compose("rendezvous directory {} does not exist: create it, or {}", path, set_other);
    case ELOOP:
      return compose("rendezvous directory {} is a symbolic link: {}", path, set_other);
    case ENOTDIR:
      return compose("rendezvous directory {} is not a directory: {}", path, set_other);
    default:
      return compose("rendezvous directory {} cannot be opened ({}): {}", path, error_text(code),
                     set_other);
  }
}

// Opens a base directory: anybody's who may not harm us by renaming what is
// ours inside it.
OwnedFd open_base(const Sys& sys, const std::string& path, std::string& problem) {
  OwnedFd base = open_directory(sys, AT_FDCWD, path.c_str(), O_PATH);
  if (!base.is_open()) {
    // O_DIRECTORY | O_NOFOLLOW on a link says ENOTDIR; tell it apart.
    const int code = errno;
    struct stat status {};
    const bool link = sys.fstatat(AT_FDCWD, path.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                      S_ISLNK(status.st_mode);
    problem = why_not_a_directory(path, link ? ELOOP : code);
    return base;
  }
  struct stat status {};
  if (sys.fstat(base.get(), &status) != 0) {
    problem = why_not_a_directory(path, errno);
    base.reset();
    return base;
  }
  const bool open_to_all = (status.st_mode & S_IWOTH) != 0 && (status.st_mode & S_ISVTX) == 0;
  const uid_t me = sys.geteuid();
  if (open_to_all) {
    problem = compose("rendezvous directory {} may be written by everybody: chmod o-w it, or {}",
                      path, set_other);
    base.reset();
  } else if (status.st_uid != me && status.st_uid != 0 && me != 0) {
    problem =
        compose("rendezvous directory {} belongs to user {}: {}", path, status.st_uid, set_other);
    base.reset();
  }
  return base;
}

// A user's directory that nobody else can enter.
bool is_private_to(const struct stat& status, uid_t user) {
  return S_ISDIR(status.st_mode) && status.st_uid == user &&
         (status.st_mode & ~static_cast<mode_t>(S_IFMT)) == S_IRWXU;
}

// Whether it has been made, as that user's, empty and closed to all others, where
// nothing was. Two processes that root is to leave may make it at once: it is there
// only when it is the user's.
bool make_for_other(const Sys& sys, int base, const std::string& name, uid_t user) {
  struct stat status {};
  if (sys.fstatat(base, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    return false;
  }
  const std::string temporary = "." + name + "." + std::to_string(sys.getpid());
  if (sys.mkdirat(base, temporary.c_str(), S_IRWXU) != 0) {
    return false;
  }
  sys.fchmodat(base, temporary.c_str(), S_IRWXU);
  OwnedFd own = open_directory(sys, base, temporary.c_str());
  if (own.is_open() && sys.fchown(own.get(), user, static_cast<gid_t>(-1)) == 0 &&
      sys.renameat2(base, temporary.c_str(), base, name.c_str(), RENAME_NOREPLACE) == 0) {
    return true;
  }
  const int code = errno;
  sys.unlinkat(base, temporary.c_str(), AT_REMOVEDIR);
  errno = code;
  return false;
}

// False: it is not there, and cannot be made.
bool make_own(const Sys& sys, int base, const std::string& name, uid_t user,
              const std::string& path, std::string& problem) {
  const bool for_other = user != sys.geteuid();
  const bool made = for_other ? make_for_other(sys, base, name, user)
                              : sys.mkdirat(base, name.c_str(), S_IRWXU) == 0;
  if (!made && errno != EEXIST) {
    problem = compose("rendezvous directory {} cannot be made ({}): {}", path, error_text(errno),
                      set_other);
    return false;
  }
  if (made && !for_other) {
    sys.fchmodat(base, name.c_str(), S_IRWXU);  // whatever the umask was, and the parent's bits
  }
  return true;
}

// Opens a user's own directory, if it is there.
OwnedFd open_own(const Sys& sys, int base, const std::string& name, uid_t user,
                 const std::string& path, std::string& problem) {
  OwnedFd own = open_directory(sys, base, name.c_str());
  struct stat status {};
  if (!own.is_open() || sys.fstat(own.get(), &status) != 0) {
    problem = why_not_a_directory(path, errno);
    return {};
  }
  if (status.st_uid != user) {
    problem = compose("rendezvous directory {} belongs to user {}, not to user {}: {}", path,
                      status.st_uid, user, set_other);
    return {};
  }
  if (!is_private_to(status, user)) {
    problem = compose("rendezvous directory {} has mode {:o}, must be 700: chmod it, or {}", path,
                      status.st_mode & ~static_cast<mode_t>(S_IFMT), set_other);
    return {};
  }
  return own;
}

}  // namespace

std::optional<Rendezvous> Rendezvous::open(const Sys& sys, const std::string& base, uid_t user,
                                           std::string& problem) {
  const std::string name = std::to_string(user);
  const std::string chosen = base.empty() ? usual_base : base;
  if (base.empty() && sys.geteuid() == 0 && sys.mkdirat(AT_FDCWD, usual_base, 0711) == 0) {
    sys.fchmodat(AT_FDCWD, usual_base, 0711);
  }
  OwnedFd parent = open_base(sys, chosen, problem);
  if (parent.is_open()) {
    const std::string path = chosen + "/" + name;
    OwnedFd own = make_own(sys, parent.get(), name, user, path, problem)
                      ? open_own(sys, parent.get(), name, user, path, problem)
                      : OwnedFd();
    if (own.is_open()) {
      return Rendezvous(sys, std::move(parent), std::move(own), chosen, name);
    }
  }
  if (!base.empty()) {
    return std::nullopt;
  }
  return open_below_tmp(sys, user, problem);
}

// Anybody may have taken our name in /tmp first. Predecessor and successor go through
// the names in one order, so they end in one place: also when whoever had taken an
// earlier one has let go of it meanwhile, since one that is there comes before one that
// could be made.
std::optional<Rendezvous> Rendezvous::open_below_tmp(const Sys& sys, uid_t user,
                                                     std::string& problem) {
  const std::string parent_path = "/tmp";
  OwnedFd parent = open_directory(sys, AT_FDCWD, parent_path.c_str(), O_PATH);
  for (const bool may_make : {false, true}) {
    for (int attempt = 0; parent.is_open() && attempt < squat_attempts; ++attempt) {
      const std::string name = "continuity-" + std::to_string(user) +
                               (attempt == 0 ? "" : "." + std::to_string(attempt));
      const std::string path = parent_path + "/" + name;
      if (may_make && !make_own(sys, parent.get(), name, user, path, problem)) {
        continue;
      }
      OwnedFd own = open_own(sys, parent.get(), name, user, path, problem);
      if (own.is_open()) {
        return Rendezvous(sys, std::move(parent), std::move(own), parent_path, name);
      }
    }
  }
  return std::nullopt;
}

Result<OwnedFd> Rendezvous::listen_at(const std::string& name) {
  OwnedFd fd(*sys_, sys_->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.is_open()) {
    return last_error("make the rendezvous socket");
  }
  const sockaddr_un address = socket_address(*sys_, directory_.get(), name);
  if (sys_->bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return last_error("bind the rendezvous socket");
  }
  if (sys_->listen(fd.get(), backlog) != 0) {
    const Error error = last_error("listen on the rendezvous socket");
    sys_->unlinkat(directory_.get(), name.c_str(), 0);
    return error;
  }
  return fd;
}

Result<OwnedFd> Rendezvous::make_door(std::uint64_t generation) {
  const std::string name = unpublished_name(generation);
  sys_->unlinkat(directory_.get(), name.c_str(), 0);
  return listen_at(name);
}

Result<OwnedFd> Rendezvous::publish(const std::string& identity, std::uint64_t generation) {
  auto door = make_door(generation);
  if (door) {
    if (auto announced = announce(identity, generation); !announced) {
      return announced.error();
    }
  }
  return door;
}

Status Rendezvous::announce(const std::string& identity, std::uint64_t generation) {
  const std::string temporary = unpublished_name(generation);
  if (sys_->renameat(directory_.get(), temporary.c_str(), directory_.get(),
                     name_of(identity, generation).c_str()) != 0) {
    const Error error = last_error("publish the rendezvous socket");
    struct stat status {};
    if (error.code == ENOENT &&
        sys_->fstatat(directory_.get(), name_of(identity, generation).c_str(), &status,
                      AT_SYMLINK_NOFOLLOW) == 0) {
      return Done{};  // by one that ended before it could say so
    }
    sys_->unlinkat(directory_.get(), temporary.c_str(), 0);
    return error;
  }
  return Done{};
}

void Rendezvous::withdraw(const std::string& identity, std::uint64_t generation) {
  sys_->unlinkat(directory_.get(), name_of(identity, generation).c_str(), 0);
}

// What a link leads to is none of the directory's: whoever may write there could make us
// talk to anybody.
Result<OwnedFd> Rendezvous::connect(int directory, const std::string& name, Nanoseconds deadline) {
  const OwnedFd file(*sys_,
                     sys_->openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0));
  struct stat status {};
  if (!file.is_open() || sys_->fstat(file.get(), &status) != 0) {
    return last_error("open a rendezvous socket");
  }
  if (S_ISLNK(status.st_mode)) {
    return Error{"open a rendezvous socket", ELOOP};
  }
  OwnedFd fd(*sys_, sys_->socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.is_open()) {
    return last_error("make a socket");
  }
  const sockaddr_un address = socket_address(*sys_, file.get());
  while (sys_->connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
         0) {
    if (errno != EAGAIN || now(*sys_) >= deadline) {
      return last_error("connect");
    }
    // Its queue is full, of whoever knocks at the same moment: they are soon let in, or
    // turned away.
    pause_for(*sys_, millisecond);
  }
  return fd;
}

OwnedFd Rendezvous::lock() {
  OwnedFd own = open_directory(*sys_, directory_.get(), ".");
  while (own.is_open() && sys_->flock(own.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  return own;
}

Rendezvous::Door Rendezvous::knock(const std::string& name) {
  const auto slash = name.find('/');
  const OwnedFd directory =
      open_directory(*sys_, base_.get(), name.substr(0, slash).c_str(), O_PATH);
  if (!directory.is_open()) {
    return Door::missing;
  }
  const auto fd = connect(directory.get(), name.substr(slash + 1), 0);
  if (!fd && fd.error().code == ECONNREFUSED) {
    return Door::refuses;
  }
  return !fd && fd.error().code == ENOENT ? Door::missing : Door::open;
}

namespace {

// What is made here under a name for the moment is there for microseconds. Who was killed
// in them has left it; a pid in the name would not tell, as it may be of another namespace.
bool is_old(const Sys& sys, int directory, const std::string& name) {
  constexpr time_t young = 60;
  struct stat status {};
  timespec time{};
  return sys.fstatat(directory, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
         sys.clock_gettime(CLOCK_REALTIME, &time) == 0 &&
         time.tv_sec - status.st_mtim.tv_sec > young;
}

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// ".1000.4711", of make_for_other
bool is_temporary_directory(std::string_view name) {
  const auto dot = name.rfind('.');
  return name.front() == '.' && dot > 1 && is_number(name.substr(1, dot - 1)) &&
         is_number(name.substr(dot + 1));
}

}  // namespace

// Whose directories we look into: ours, and root everybody's.
std::vector<std::string> Rendezvous::directories() const {
  std::vector<std::string> names{name_};
  if (sys_->geteuid() != 0) {
    return names;
  }
  const OwnedFd listing = open_directory(*sys_, base_.get(), ".");
  std::vector<std::string> left;
  const auto visit = [&](std::string_view name) {
    if (is_number(name) && name != name_) {
      names.emplace_back(name);
    } else if (is_temporary_directory(name)) {
      left.emplace_back(name);
    }
  };
  if (!listing.is_open() || !for_each_entry(*sys_, listing.get(), visit)) {
    return {name_};
  }
  for (const std::string& name : left) {
    if (is_old(*sys_, listing.get(), name)) {
      sys_->unlinkat(listing.get(), name.c_str(), AT_REMOVEDIR);  // if it is empty
    }
  }
  return names;
}

namespace {

// What there is in a user's directory.
struct Entries {
  std::vector<std::string> sockets;  // no more than are looked at
  std::size_t count = 0;             // of them
  std::vector<std::string> stand_ins;

  void note(std::string_view name, const std::string& own, std::size_t most) {
    const auto ends_in = [&](std::string_view end) {
      return name.size() > end.size() && name.substr(name.size() - end.size()) == end;
    };
    if (name.substr(0, stand_in_prefix.size()) == stand_in_prefix &&
        stand_ins.size() < most_of_others) {
      stand_ins.emplace_back(name);
    }
    if (ends_in(suffix) && !ends_in(own) && ++count <= most) {
      sockets.emplace_back(name);
    }
  }
};

// Whoever made one removes it at once, unless it was killed.
void remove_old(const Sys& sys, int directory, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (is_old(sys, directory, name)) {
      sys.unlinkat(directory, name.c_str(), 0);
    }
  }
}

}  // namespace

bool Rendezvous::connect_below(const std::string& directory, const std::string& own,
                               bool unpublished, Nanoseconds deadline, std::vector<Peer>& peers,
                               Log& log) {
  const OwnedFd listing = open_directory(*sys_, base_.get(), directory.c_str());
  struct stat status {};
  if (!listing.is_open() || sys_->fstat(listing.get(), &status) != 0 ||
      !is_private_to(status, status.st_uid) ||
      (directory != name_ && directory != std::to_string(status.st_uid))) {
    return true;
  }
  bool complete = true;
  const std::size_t most =
      directory == name_ ? std::numeric_limits<std::size_t>::max() : most_of_others;
  Entries entries;
  const auto visit = [&](std::string_view name) { entries.note(name, own, most); };
  if (const auto read = for_each_entry(*sys_, listing.get(), visit); !read) {
    log.warn("rendezvous directory {}: {}; nobody is found there", path_,
             error_text(read.error().code));
  }
  if (entries.count > entries.sockets.size()) {
    log.warn("user {} has {} sockets at the rendezvous; only {} are looked at", status.st_uid,
             entries.count, entries.sockets.size());
  }
  remove_old(*sys_, listing.get(), entries.stand_ins);
  for (const std::string& name : entries.sockets) {
    const std::string relative = directory + "/" + name;
    auto fd = connect(listing.get(), name, deadline);
    if (name.front() == '.') {
      // Only its own generation is answered there. Who was killed before it could be announced
      // leaves one that refuses; so does, for a moment, one that is being made.
      if (!fd && fd.error().code == ECONNREFUSED && is_old(*sys_, listing.get(), name)) {
        sys_->unlinkat(listing.get(), name.c_str(), 0);
      }
      if (!fd || !unpublished) {
        complete = complete && (fd || fd.error().code != ENOENT);
        continue;
      }
    }
    if (fd) {
      peers.push_back(
          {.name = relative, .owner = status.st_uid, .channel = Channel(*sys_, std::move(*fd))});
    } else if (fd.error().code == ECONNREFUSED) {
      log.info("{}: nobody listens there any more; removed", relative);
      sys_->unlinkat(listing.get(), name.c_str(), 0);
    } else if (fd.error().code != ENOENT) {
      log.warn("{}: {}; ignored", relative, error_text(fd.error().code));
    }
  }
  return complete;
}

std::vector<Rendezvous::Peer> Rendezvous::connect_all(std::uint64_t generation, Log& log,
                                                      bool unpublished) {
  constexpr int attempts = 3;
  const std::string own = compose(".{:016x}{}", generation, suffix);
  const Nanoseconds deadline = after(*sys_, full_queue_time);
  for (int attempt = 1;; ++attempt) {
    std::vector<Peer> peers;
    bool complete = true;
    for (const std::string& directory : directories()) {
      complete = connect_below(directory, own, unpublished, deadline, peers, log) && complete;
    }
    if (complete || !unpublished || attempt == attempts) {
      return peers;
    }
  }
}

}  // namespace continuity
