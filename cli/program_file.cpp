#include "cli/program_file.hpp"

#include "core/log.hpp"
#include "core/proc_text.hpp"

#include <array>
#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace continuity::cli {
namespace {

constexpr int most_interpreters = 5;  // as many as the kernel follows

// What executes a script; empty: it is none.
std::string interpreter_of(const std::string& bytes) {
  if (bytes.compare(0, 2, "#!") != 0) {
    return {};
  }
  std::string_view line(bytes);
  line = line.substr(2, line.find('\n') - 2);
  std::string interpreter(take_word(line));
  if (interpreter.ends_with("/env")) {
    for (std::string_view word = take_word(line); !word.empty(); word = take_word(line)) {
      if (word.front() != '-' && word.find('=') == std::string_view::npos) {
        return std::string(word);
      }
    }
  }
  return interpreter;
}

template <typename Value>
bool read_at(const std::string& bytes, std::size_t offset, Value& value) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof value) {
    return false;
  }
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return true;
}

bool has_go_note(const std::string& bytes, const Elf64_Phdr& segment) {
  Elf64_Nhdr note{};
  std::size_t at = segment.p_offset;
  while (at + sizeof note <= segment.p_offset + segment.p_filesz && read_at(bytes, at, note)) {
    std::array<char, 4> name{};
    if (note.n_namesz == name.size() && read_at(bytes, at + sizeof note, name) &&
        std::memcmp(name.data(), "Go\0\0", name.size()) == 0) {
      return true;
    }
    constexpr std::size_t word = 4;  // what both are padded to
    at += sizeof note + (note.n_namesz + word - 1) / word * word +
          (note.n_descsz + word - 1) / word * word;
  }
  return false;
}

Obstacle obstacle_in_header(const std::string& file, const std::string& bytes) {
  Elf64_Ehdr header{};
  Elf64_Ehdr ours{};
  if (!read_at(bytes, 0, header) || !read_at(read_file("/proc/self/exe"), 0, ours)) {
    return {file + ": an ELF header without its end", ""};
  }
  if (header.e_machine != ours.e_machine || header.e_ident[EI_CLASS] != ours.e_ident[EI_CLASS]) {
    return {file + ": for another processor than the library", "build the library for that one"};
  }
  std::string loader;
  bool is_go = false;
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    if (!read_at(bytes, header.e_phoff + i * header.e_phentsize, segment)) {
      return {file + ": an ELF file without its end", ""};
    }
    if (segment.p_type == PT_INTERP && segment.p_offset < bytes.size()) {
      loader = bytes.c_str() + segment.p_offset;
    }
    is_go = is_go || (segment.p_type == PT_NOTE && has_go_note(bytes, segment));
  }
  if (is_go) {
    return {file +
                ": a Go program calls the kernel without libc, so that a preloaded library "
                "sees nothing",
            "it can ask by continuity.h (cgo)"};
  }
  if (loader.empty()) {
    // One that is linked with the wrapped calls needs no preload.
    return bytes.find("CONTINUITY_READY_TIMEOUT") != std::string::npos
               ? Obstacle{}
               : Obstacle{file + ": static: nothing can be preloaded",
                          "link it with libcontinuity-wrap.a"};
  }
  if (loader.find("/ld-musl-") != std::string::npos) {
    return {file + ": for musl", "the library needs glibc"};
  }
  return {};
}

Obstacle obstacle_in_privileges(const std::string& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) {
    return {};
  }
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != ::geteuid()) {
    return {file + ": setuid: the loader preloads nothing into it",
            compose("start it as its user ({})", status.st_uid)};
  }
  if ((status.st_mode & S_ISGID) != 0 && status.st_gid != ::getegid()) {
    return {file + ": setgid: the loader preloads nothing into it",
            compose("start it in its group ({})", status.st_gid)};
  }
  if (::geteuid() != 0 && ::getxattr(file.c_str(), "security.capability", nullptr, 0) > 0) {
    return {file + ": file capabilities: the loader preloads nothing into it",
            "have root start it, or give it AmbientCapabilities= instead"};
  }
  return {};
}

}  // namespace

std::string find_in_path(const std::string& command) {
  if (command.find('/') != std::string::npos) {
    return command;
  }
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): there is one thread
  std::string rest = path != nullptr ? path : "/usr/bin:/bin";
  while (!rest.empty()) {
    const std::string directory = rest.substr(0, rest.find(':'));
    rest.erase(0, std::min(rest.size(), directory.size() + 1));
    if (std::string file = (directory.empty() ? "." : directory) + "/" + command;
        ::access(file.c_str(), X_OK) == 0) {
      return file;
    }
  }
  return {};
}

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Obstacle obstacle_in(const std::string& command) {
  std::string file = find_in_path(command);
  for (int turn = 0; turn <= most_interpreters; ++turn) {
    if (file.empty() || ::access(file.c_str(), F_OK) != 0) {
      return {(file.empty() ? command : file) + ": not found", ""};
    }
    if (std::filesystem::is_directory(file) || ::access(file.c_str(), X_OK) != 0) {
      return {file + ": not executable", "chmod +x"};
    }
    const std::string bytes = read_file(file);
    if (const std::string interpreter = interpreter_of(bytes); !interpreter.empty()) {
      file = find_in_path(interpreter);
      continue;
    }
    if (auto obstacle = obstacle_in_privileges(file); !obstacle.what.empty()) {
      return obstacle;
    }
    return bytes.compare(0, SELFMAG, ELFMAG) == 0 ? obstacle_in_header(file, bytes) : Obstacle{};
  }
  return {command + ": interpreters without end", ""};
}

}  // namespace continuity::cli
