# The library exports the calls of shim/calls.def, and the one by which the library for
# programs that ask makes it stand aside. Not one symbol more: any
# other would interpose something in every server. Without a version, too: with
# one the loader binds a server's calls straight to libc.
execute_process(COMMAND ${NM} --dynamic --defined-only --with-symbol-versions --format=posix
    ${LIBRARY}
  OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "(^|\n)[^ \n]+" names "${output}")
list(TRANSFORM names STRIP)
list(SORT names)
string(REPLACE "|" ";" calls "${CALLS}")
list(SORT calls)
if(NOT names STREQUAL calls)
  set(missing ${calls})
  list(REMOVE_ITEM missing ${names})
  list(REMOVE_ITEM names ${calls})
  message(FATAL_ERROR "missing: ${missing}\ntoo many: ${names}")
endif()
