// What `cmake --install` puts into a prefix is complete, and works from there
// with nothing of the build tree.
#include "installed.hpp"

#include "restarts.hpp"

#include <catch2/catch.hpp>

#include <exception>
#include <unistd.h>

namespace continuity::test {

TEST_CASE("what is installed is complete, and nothing else") {
  const Prefix prefix;
  const std::string library = "lib/libcontinuity-upgrader";

  CHECK(files_below(prefix.directory.path()) ==
        std::vector<std::string>{
            prefix / "bin/continuity",
            prefix / "bin/continuity-run",
            prefix / "include/continuity.h",
            prefix / "include/continuity/upgrader.h",
            prefix / "lib/cmake/continuity/continuityConfig.cmake",
            prefix / "lib/cmake/continuity/continuityConfigVersion.cmake",
            prefix / "lib/cmake/continuity/continuityTargets-" BUILD_TYPE ".cmake",
            prefix / "lib/cmake/continuity/continuityTargets.cmake",
            prefix / (library + ".a"),
            prefix / (library + ".so"),
            prefix / (library + ".so.0"),
            prefix / (library + ".so." VERSION),
            prefix / "lib/libcontinuity-wrap.a",
            prefix / "lib/libcontinuity.so",
            prefix / "lib/pkgconfig/continuity-wrap.pc",
            prefix / "lib/pkgconfig/continuity.pc",
            prefix / "lib/systemd/system/continuity@.service",
            prefix / "share/bash-completion/completions/continuity",
            prefix / "share/continuity/continuity.schema.json",
            prefix / "share/doc/continuity/systemd/nginx.conf",
            prefix / "share/doc/continuity/systemd/redis-server.conf",
            prefix / "share/man/man1/continuity-run.1",
            prefix / "share/man/man1/continuity-supervise.1",
            prefix / "share/man/man1/continuity.1",
            prefix / "share/man/man7/libcontinuity.7",
            prefix / "share/zsh/vendor-completions/_continuity"});
  CHECK(::access((prefix / "bin/continuity-run").c_str(), X_OK) == 0);
}

TEST_CASE("restarted under load, nothing is lost: started by the installed continuity-run") {
  const Prefix prefix;
  Place place;
  place.program = prefix / "bin/continuity-run";
  place.environment = {"LD_PRELOAD="};
  restarts_without_loss({"--", TINY_SERVER, "poll"}, place);
}

// What users compile with, and no more than that.
TEST_CASE("the installed headers compile without a warning, as C and C++, by gcc and clang",
          "[packages]") {
  const Prefix prefix;
  const std::string warnings =
      " -fsyntax-only -Werror -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow "
      "-I$PREFIX/include ";
  prefix.run_shell("echo '#include \"continuity.h\"' >$PREFIX/one.c");
  prefix.run_shell("echo '#include \"continuity/upgrader.h\"' >$PREFIX/one.cpp");
  for (const std::string c : {C_COMPILER, "clang-14"}) {
    for (const char* standard : {"c90", "c99", "c17"}) {
      CAPTURE(c, standard);
      CHECK_NOTHROW(prefix.run_shell(c + " -std=" + standard + " -Wstrict-prototypes" + warnings +
                                     "$PREFIX/one.c"));
    }
  }
  for (const std::string cxx : {CXX_COMPILER, "clang++-14"}) {
    for (const char* choice :
         {"c++17", "c++20 -Wold-style-cast", "gnu++2b", "c++17 -fno-exceptions -fno-rtti"}) {
      CAPTURE(cxx, choice);
      CHECK_NOTHROW(prefix.run_shell(cxx + " -std=" + choice + warnings + "$PREFIX/one.cpp"));
    }
  }
}

TEST_CASE("restarted under load, nothing is lost: a C++17 program built with what is installed") {
  const std::string compile =
      GENERATE("$CXX", "$CXX -fno-exceptions -fno-rtti", "clang++-14 -fno-exceptions -fno-rtti");
  CAPTURE(compile);
  const Prefix prefix;
  Place place;
  place.program = prefix / "server";
  place.environment = {"LD_PRELOAD="};
  prefix.run_shell(compile + " -std=c++17 " SOURCE_TREE
                             "/tests/process/servers/asking_server.cpp -o $PREFIX/server -pthread "
                             "$(pkg-config --cflags --libs continuity) -Wl,-rpath,$PREFIX/lib");
  restarts_without_loss({}, place, left_by_return);
}

// The archive is compiled for glibc, and calls what only glibc has; so does the C++ library that
// it needs, of which Debian has none for musl. The preload library is no better off.
TEST_CASE("musl: the wrappers are not linked, and the preload library is not loaded") {
  if (::access("/usr/bin/musl-gcc", X_OK) != 0) {
    WARN("skipped: no musl-gcc");
    return;
  }
  const Prefix prefix;
  const std::string compile =
      "musl-gcc -std=gnu11 " SOURCE_TREE "/examples/wrapped/server.c -o $PREFIX/server ";
  REQUIRE_NOTHROW(prefix.run_shell(compile + "-static"));
  std::string problem;
  try {
    prefix.run_shell(compile +
                     "-static $(pkg-config --libs continuity-wrap) "
                     "-L$(dirname $($CXX -print-file-name=libstdc++.a))");
  } catch (const std::exception& error) {
    problem = error.what();
  }
  CHECK(problem.find("undefined reference to `__libc_single_threaded'") != std::string::npos);

  prefix.run_shell(compile);
  Place place;
  place.program = prefix / "server";
  Process server = place.spawn({});
  CHECK(server.wait_exit() == 127);
  CHECK(server.logged("symbol not found") > 0);
}

TEST_CASE("restarted under load, nothing is lost: a static program linked with what is installed") {
  const std::string how = GENERATE("-static", "-static-pie -fPIE");
  CAPTURE(how);
  const Prefix prefix;
  Place place;
  place.program = prefix / "server";
  place.environment = {"LD_PRELOAD="};
  prefix.run_shell("cd " SOURCE_TREE "/tests/process; $CC -D_GNU_SOURCE " + how +
                   " -o $PREFIX/server " TINY_SERVER_SOURCES
                   " $(pkg-config --libs continuity-wrap)");
  restarts_without_loss({"threads"}, place);
}

}  // namespace continuity::test
