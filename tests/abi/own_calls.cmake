# What the library calls itself are the real functions: by the name of a wrapped
# call it would come to its own wrapper, which may wait for what the caller holds.
# (syscall is what the real functions are found by.)
cmake_minimum_required(VERSION 3.25)
string(REPLACE "|" ";" calls "${CALLS}")
list(REMOVE_ITEM calls syscall)
execute_process(COMMAND ${NM} --undefined-only --format=posix ${OBJECTS}
  OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+ U[^\n]*" symbols "${output}")
if(NOT symbols)
  message(FATAL_ERROR "no symbols found in: ${OBJECTS}")
endif()
list(TRANSFORM symbols REPLACE "[ @].*$" "")
foreach(name IN LISTS calls)
  if(name IN_LIST symbols)
    message(SEND_ERROR "the library calls its own ${name}")
  endif()
endforeach()
