#include "outcome.hpp"

#include <cerrno>
#include <cstring>

namespace continuity::load {
namespace {

Outcome outcome_of_errno(int error) {
  switch (error) {
    case ECONNREFUSED:
    case ENOENT:  // a UNIX path on which nobody listens yet, or any more
      return Outcome::refused;
    case ECONNRESET:
    case EPIPE:
      return Outcome::reset;
    case ETIMEDOUT:
    case EAGAIN:  // a UNIX socket whose backlog stayed full
      return Outcome::timeout;
    case EADDRNOTAVAIL:  // no local port left
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      return Outcome::client_error;
    default:
      return Outcome::other;
  }
}

}  // namespace

Verdict verdict_of_errno(int error, std::string_view step) {
  const char* description = ::strerrordesc_np(error);
  return {outcome_of_errno(error),
          std::string(step) + ": " + (description != nullptr ? description : "unknown error")};
}

}  // namespace continuity::load
