#include "fake_program.hpp"

#include "fake_sys.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace continuity::test {
namespace {

std::set<int>& aside() {
  static std::set<int> numbers;
  return numbers;
}

}  // namespace

void FakeProgram::lock_descriptors() {
  ++locked;
  if (on_lock) {
    on_lock();
  }
}

void FakeProgram::note_retired(int fd, const Listener&, bool blocking, bool polled) {
  notes.push_back({"retired", fd, blocking, polled, locked > 0});
  events.emplace_back("retired");
}

void FakeProgram::note_reviving(int fd) {
  notes.push_back({"reviving", fd, false, false, locked > 0});
  events.emplace_back("reviving");
}

void FakeProgram::note_revived(int fd) {
  notes.push_back({"revived", fd, false, false, locked > 0});
  events.emplace_back("revived");
}

bool FakeProgram::clear_accepts(std::span<const int> fds, Nanoseconds) {
  events.push_back("clear " + std::to_string(fds.size()));
  if (on_clear) {
    on_clear();
  }
  return accepts_clear;
}

bool is_ours(int fd) {
  return FakeSys<0>::has_opened(fd) || FakeSys<10>::has_opened(fd) || FakeSys<11>::has_opened(fd) ||
         aside().contains(fd);
}

Aside::Aside(int fd) : fd_(copy_of(fd)) {
  aside().insert(fd_.get());
}

Aside::~Aside() {
  aside().erase(fd_.get());
}

namespace {

std::vector<Owner::Item> items_of(const std::vector<int>& fds) {
  std::vector<Owner::Item> items;
  for (const int fd : fds) {
    auto listener = describe_socket(libc_sys(), fd);
    if (!listener || !is_listening(libc_sys(), fd)) {
      continue;
    }
    listener->file =
        find_socket_file(libc_sys(), listener->address.unix_path()).value_or(SocketFile{});
    items.push_back({.listener = *listener, .fd = fd, .inode = socket_inode(libc_sys(), fd)});
  }
  return items;
}

}  // namespace

std::vector<Owner::Item> FakeOwner::inventory() {
  return items_of(fds);
}

std::vector<Owner::Item> FakeOwner::late_listeners(bool& all) {
  calls.emplace_back("ask");
  all = all_answer;
  return items_of(std::exchange(late, {}));
}

Status FakeOwner::prepare_late(std::vector<Item> items) {
  if (!items.empty()) {
    calls.emplace_back("prepare late");
  }
  return LocalOwner::prepare_late(std::move(items));
}

void FakeOwner::note(const char* what, std::span<const std::uint32_t> ids) {
  std::string text = what;
  for (const std::uint32_t id : ids) {
    text += " " + std::to_string(id);
  }
  calls.push_back(text);
}

Status FakeOwner::prepare(std::vector<Item> items) {
  note("prepare", {});
  return LocalOwner::prepare(std::move(items));
}

void FakeOwner::abandon() {
  note("abandon", {});
  LocalOwner::abandon();
}

bool FakeOwner::retire(std::span<const std::uint32_t> ids, Nanoseconds deadline) {
  note("retire", ids);
  if (on_retire) {
    on_retire();
  }
  return LocalOwner::retire(ids, deadline);
}

void FakeOwner::sweep() {
  note("sweep", {});
  LocalOwner::sweep();
}

void FakeOwner::revive() {
  note("revive", {});
  LocalOwner::revive();
}

void FakeOwner::forget_listeners() {
  note("forget", {});
  LocalOwner::forget_listeners();
}

void FakeOwner::close_listeners(std::span<const std::uint32_t> ids) {
  note("close", ids);
  LocalOwner::close_listeners(ids);
}

int FakeOwner::count(std::string_view what) const {
  return static_cast<int>(std::count_if(calls.begin(), calls.end(), [&](const std::string& call) {
    return call.substr(0, what.size()) == what;
  }));
}

}  // namespace continuity::test
