# What is called for each request, and what is looked at there, is in one page each
# (shim/busy.hpp).
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND ${READELF} --section-headers --wide ${LIBRARY}
  OUTPUT_VARIABLE sections COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${NM} --defined-only --print-size --demangle ${LIBRARY}
  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
set(page 0x1000)

# What begins at this address, of this size, is in the page of the section's beginning.
function(require_one_page section address size)
  math(EXPR begin "0x${address} / ${page}")
  math(EXPR end "(0x${address} + 0x${size} - 1) / ${page}")
  if(NOT begin EQUAL end)
    message(FATAL_ERROR "${section}: 0x${size} bytes at 0x${address} are in more than one page")
  endif()
endfunction()

if(NOT sections MATCHES " \\.text\\.busy +PROGBITS +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+)")
  message(FATAL_ERROR "There is no section .text.busy")
endif()
require_one_page(.text.busy ${CMAKE_MATCH_1} ${CMAKE_MATCH_2})
if(NOT sections MATCHES " \\.bss\\.busy +NOBITS +([0-9a-f]+)")
  message(FATAL_ERROR "There is no section .bss.busy")
endif()
set(begin ${CMAKE_MATCH_1})
# The flags of the first descriptors are in that page with what is before them.
if(NOT symbols MATCHES "([0-9a-f]+) [0-9a-f]+ b continuity::shim::g_fd_table")
  message(FATAL_ERROR "There is no table of descriptors")
endif()
math(EXPR before "0x${CMAKE_MATCH_1} - 0x${begin}" OUTPUT_FORMAT HEXADECIMAL)
if(before GREATER 0x800)
  message(FATAL_ERROR ".bss.busy: ${before} bytes leave no room for flags in the first page")
endif()
foreach(name g_real_calls g_gate g_notifier)
  if(NOT symbols MATCHES "([0-9a-f]+) ([0-9a-f]+) b continuity::shim::${name}")
    message(FATAL_ERROR "There is no ${name}")
  endif()
  math(EXPR after "0x${CMAKE_MATCH_1} - 0x${begin}")
  if(after LESS 0 OR after GREATER 0xfff)
    message(FATAL_ERROR "${name} is not in the busy page")
  endif()
endforeach()
