#include "support/temp_dir.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>

namespace continuity::test {

namespace fs = std::filesystem;

TempDir::TempDir() {
  // Short, and not below $TMPDIR: a UNIX path has room for 107 bytes.
  path_ = "/tmp/continuity-test-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) {
    throw std::runtime_error("mkdtemp " + path_);
  }
}

TempDir::~TempDir() {
  if (std::uncaught_exceptions() > 0) {
    std::cerr << "kept: " << path_ << '\n';
    return;
  }
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::vector<std::string> files_below(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (!entry.is_directory()) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

}  // namespace continuity::test
