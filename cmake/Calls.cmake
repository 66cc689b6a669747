# Reads shim/calls.def once and derives the linker inputs from it:
#   libcontinuity.map      export map of the preload library
#   CONTINUITY_WRAP_FLAGS  -Wl,--wrap=... for users of the static archive
set(continuity_calls_file ${CMAKE_CURRENT_SOURCE_DIR}/shim/calls.def)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${continuity_calls_file})
file(STRINGS ${continuity_calls_file} continuity_call_lines REGEX "^CALL\\([a-z0-9_]+\\)$")
string(REGEX REPLACE "CALL\\(([a-z0-9_]+)\\)" "\\1" CONTINUITY_CALLS "${continuity_call_lines}")

# The version node must stay anonymous: with a named node ld.so would no longer
# match our bind against a server's reference to bind@GLIBC_2.2.5.
# And what the library for programs that ask calls, if both are in one process.
set(CONTINUITY_EXPORTS ${CONTINUITY_CALLS} continuity_stand_aside)
list(JOIN CONTINUITY_EXPORTS "; " continuity_exports)
set(CONTINUITY_EXPORT_MAP ${CMAKE_CURRENT_BINARY_DIR}/libcontinuity.map)
file(CONFIGURE OUTPUT ${CONTINUITY_EXPORT_MAP}
  CONTENT "{ global: @continuity_exports@; local: *; };\n" @ONLY)

list(TRANSFORM CONTINUITY_CALLS PREPEND "-Wl,--wrap=" OUTPUT_VARIABLE CONTINUITY_WRAP_FLAGS)
