# cpack: three Debian packages. "continuity" is what runs, "libcontinuity-upgrader0" the library
# of programs that ask, named after its soname, and "libcontinuity-dev" what is needed to build
# with it.
set(CPACK_GENERATOR DEB)
# Whoever builds packages answers for them, and is named as for every tool of Debian's, or as git
# knows him, or by cmake -D CPACK_PACKAGE_CONTACT=...
function(continuity_find_builder result)
  set(name "$ENV{DEBFULLNAME}")
  set(mail "$ENV{DEBEMAIL}")
  foreach(field name mail)
    if(NOT ${field})
      string(REPLACE mail email key ${field})
      execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} config user.${key}
        OUTPUT_VARIABLE ${field} OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
  endforeach()
  if(name AND mail)
    set(${result} "${name} <${mail}>" PARENT_SCOPE)
  else()
    set(${result} "The Continuity authors <continuity@invalid>" PARENT_SCOPE)
  endif()
endfunction()
if(NOT CPACK_PACKAGE_CONTACT)
  continuity_find_builder(CPACK_PACKAGE_CONTACT)
endif()
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "restarts servers without losing a connection")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime upgrader development)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/debian_documents.cmake)
set(CPACK_CONTINUITY_SOURCE ${PROJECT_SOURCE_DIR})

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME continuity)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION net)
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION
"A server that is started under this library is restarted by starting it
again: the new process receives the listening sockets of the running one,
which finishes the connections that it has and leaves. The server need not
know about it.")
# The loader finds LD_PRELOAD=libcontinuity.so by name.
file(CONFIGURE OUTPUT triggers CONTENT "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA "${PROJECT_BINARY_DIR}/triggers")

set(continuity_upgrader_package libcontinuity-upgrader${PROJECT_VERSION_MAJOR})
set(CPACK_DEBIAN_UPGRADER_PACKAGE_NAME ${continuity_upgrader_package})
set(CPACK_DEBIAN_UPGRADER_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_UPGRADER_DESCRIPTION
"For programs that ask for the listening sockets of the run before them, to be
restarted without losing a connection, from C++, C, or whatever can call C.")
file(CONFIGURE OUTPUT shlibs CONTENT
  "libcontinuity-upgrader ${PROJECT_VERSION_MAJOR} ${continuity_upgrader_package} (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_UPGRADER_PACKAGE_CONTROL_EXTRA
  "${PROJECT_BINARY_DIR}/triggers;${PROJECT_BINARY_DIR}/shlibs")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libcontinuity-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
  "continuity (= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}), ${continuity_upgrader_package} (= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}), libc6-dev")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
"Headers, archives, and what CMake and pkg-config have to know: for programs
that ask for the sockets of their predecessor, and for static servers that
are linked with the wrapped calls.")
include(CPack)
