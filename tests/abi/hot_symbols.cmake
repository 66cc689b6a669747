# The code on the path of a wrapped call may reach nothing but our own functions
# that are made for it, and clock_gettime, which is safe in signal handlers: any
# other undefined symbol is an allocation, a lock or stdio. (An allocation that the
# optimiser removed is not seen.)
execute_process(COMMAND ${NM} --undefined-only --demangle --format=posix ${OBJECTS}
  OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+ U[^\n]*" symbols "${output}")
if(NOT symbols)
  message(FATAL_ERROR "no symbols found in: ${OBJECTS}")
endif()
foreach(symbol IN LISTS symbols)
  if(NOT symbol MATCHES "^(continuity::shim::|__errno_location |clock_gettime |_GLOBAL_OFFSET_TABLE_ )")
    list(APPEND forbidden "${symbol}")
  endif()
endforeach()
if(forbidden)
  list(JOIN forbidden "\n  " forbidden)
  message(FATAL_ERROR "not async-signal-safe, or not known to be:\n  ${forbidden}")
endif()
