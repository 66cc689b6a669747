#include "core/notice.hpp"

#include <catch2/catch.hpp>

namespace continuity {
namespace {

TEST_CASE("READY=1 is a line of its own, wherever it stands") {
  for (const char* text : {"READY=1", "READY=1\n", "STATUS=up\nREADY=1", "READY=1\nMAINPID=7"}) {
    CAPTURE(text);
    CHECK(read_notice(text).is_ready);
    CHECK(read_notice(text).of_service);
  }
  for (const char* text :
       {"", "\n", "READY=0", "READY=12", "NOTREADY=1", "STATUS=READY=1", "READY=1 ", "ready=1"}) {
    CAPTURE(text);
    CHECK_FALSE(read_notice(text).is_ready);
    CHECK_FALSE(read_notice(text).of_service);
  }
}

TEST_CASE("what is said of the whole service is told from what a process says of itself") {
  for (const char* text :
       {"STOPPING=1", "RELOADING=1\nMONOTONIC_USEC=5", "WATCHDOG=1\nMAINPID=7"}) {
    CAPTURE(text);
    CHECK(read_notice(text).of_service);
    CHECK_FALSE(read_notice(text).is_ready);
  }
  for (const char* text : {"WATCHDOG=1", "STATUS=STOPPING=1", "BARRIER=1", "FDSTORE=1"}) {
    CAPTURE(text);
    CHECK_FALSE(read_notice(text).of_service);
  }
}

}  // namespace
}  // namespace continuity
