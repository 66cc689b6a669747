# What begins with zeros has no mapping of its own (shim/layout.ld).
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND ${READELF} --section-headers --wide ${LIBRARY}
  OUTPUT_VARIABLE sections COMMAND_ERROR_IS_FATAL ANY)
if(NOT sections MATCHES " \\.data\\.rel\\.ro " OR NOT sections MATCHES " \\.bss ")
  message(FATAL_ERROR "${READELF} tells of no sections that a library has:\n${sections}")
endif()
if(sections MATCHES " \\.data +[A-Z]+ +[0-9a-f]+ +[0-9a-f]+ +([0-9a-f]+)")
  execute_process(COMMAND ${NM} --demangle --print-size ${LIBRARY} OUTPUT_VARIABLE symbols)
  string(REGEX MATCHALL "[^\n]* d [^\n]*" symbols "${symbols}")
  list(JOIN symbols "\n" symbols)
  message(FATAL_ERROR "0x${CMAKE_MATCH_1} bytes are in .data; some of these:\n${symbols}")
endif()
