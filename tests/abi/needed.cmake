# Whatever the library needs follows it into every server.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND ${READELF} --dynamic --wide ${LIBRARY}
  OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
# Brackets would glue the elements of a list together.
string(REGEX REPLACE "[][]" "" output "${output}")
string(REGEX MATCHALL "Shared library: [^\n]+" needed "${output}")
list(TRANSFORM needed REPLACE "Shared library: " "")
set(others ${needed})
list(FILTER others EXCLUDE REGEX "^(libc\\.so\\.6|ld-linux-[a-z0-9_-]+\\.so\\.[0-9])$")
# It may allocate (docs/design.md, glibc), which the agent may not.
execute_process(COMMAND ${READELF} --dyn-syms --wide ${LIBRARY}
  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
if(symbols MATCHES "__tls_get_addr")
  message(FATAL_ERROR "a variable of each thread's own is found by __tls_get_addr")
endif()
if(others OR NOT "libc.so.6" IN_LIST needed)
  message(FATAL_ERROR "needs: ${needed}")
endif()
