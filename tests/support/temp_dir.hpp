// A fresh directory for one test. It is kept if the test has failed by an
// exception, and named then.
#pragma once

#include <string>
#include <vector>

namespace continuity::test {

class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Every name below a directory that is not itself a directory, sorted.
std::vector<std::string> files_below(const std::string& directory);

std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);

}  // namespace continuity::test
