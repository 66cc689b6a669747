// Every example, built from an installed copy as a user builds it, is restarted under load.
#include "installed.hpp"
#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <unistd.h>

namespace continuity::test {
namespace {

void is_restarted(const std::string& program, Leaving leaving) {
  INFO(program);
  REQUIRE(::access(program.c_str(), X_OK) == 0);
  Place place;
  place.program = program;
  place.environment = {"LD_PRELOAD="};
  restarts_without_loss({}, place, leaving);
}

}  // namespace

TEST_CASE("the examples, built with find_package(continuity), are restarted under load",
          "[packages]") {
  const Prefix prefix;
  const TempDir build;
  const std::string sources = SOURCE_TREE "/examples";
  run_to_end({CMAKE_PROGRAM, "-S", sources, "-B", build.path(), "-G", "Ninja",
              "-DCMAKE_PREFIX_PATH=" + prefix.directory.path(),
              std::string("-DCMAKE_C_COMPILER=") + C_COMPILER,
              std::string("-DCMAKE_CXX_COMPILER=") + CXX_COMPILER});
  run_to_end({CMAKE_PROGRAM, "--build", build.path(), "-j2"});
  for (const char* example : {"accept_loop", "thread_pool", "epoll_server", "c_server",
                              "static_thread_pool", "asio_server", "libevent_server"}) {
    is_restarted(build / example, left_by_return);
  }
  is_restarted(build / "wrapped_server", left_by_itself);
}

TEST_CASE("the examples, built with pkg-config and make, are restarted under load", "[packages]") {
  const Prefix prefix;
  prefix.run_shell("mkdir $PREFIX/examples; make -C " SOURCE_TREE
                   "/examples -j2 BUILD=$PREFIX/examples CC=$CC CXX=$CXX");
  for (const char* example : {"accept_loop", "thread_pool", "epoll_server", "c_server"}) {
    is_restarted(prefix / (std::string("examples/") + example), left_by_return);
  }
  is_restarted(prefix / "examples/wrapped_server", left_by_itself);
}

}  // namespace continuity::test
