// A descriptor with an owner. Descriptor 0 is a valid one, hence no operator
// bool; closing goes through Sys, so that in the preload it never re-enters a
// wrapper.
#pragma once

#include "core/sys.hpp"

#include <utility>

namespace continuity {

class OwnedFd {
 public:
  OwnedFd() = default;
  OwnedFd(const Sys& sys, int fd) : sys_(&sys), fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : sys_(other.sys_), fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    if (this != &other) {
      reset();
      sys_ = other.sys_;
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  OwnedFd(const OwnedFd&) = delete;
  OwnedFd& operator=(const OwnedFd&) = delete;
  ~OwnedFd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() {
    if (fd_ >= 0) {
      sys_->close(fd_);
      fd_ = -1;
    }
  }

 private:
  const Sys* sys_ = nullptr;
  int fd_ = -1;
};

}  // namespace continuity
