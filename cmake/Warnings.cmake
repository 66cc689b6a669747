# One target that everything of ours links: warnings, and sanitizers where a
# preset asks for them.
add_library(continuity_warnings INTERFACE)
target_compile_options(continuity_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-align
  -Wundef -Wformat=2
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast -Wnon-virtual-dtor -Woverloaded-virtual -Wextra-semi>)
if(CONTINUITY_SANITIZE)
  target_compile_options(continuity_warnings INTERFACE
    -fsanitize=${CONTINUITY_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(continuity_warnings INTERFACE -fsanitize=${CONTINUITY_SANITIZE})
endif()

# What is not called on every accept is built small: it lives in every server.
add_library(continuity_small INTERFACE)
target_compile_options(continuity_small INTERFACE -ffunction-sections -fdata-sections
  $<$<CONFIG:RelWithDebInfo,Release>:-Os>)
# Together, when the preload library is linked, it becomes smaller by an eighth.
# "Fat": there is code in the objects, too, and that alone comes into the archives,
# since another version of the compiler cannot read the rest.
set(continuity_together $<$<AND:$<CXX_COMPILER_ID:GNU>,$<CONFIG:RelWithDebInfo,Release>>:-flto=auto>)
add_library(continuity_mergeable INTERFACE)
target_link_libraries(continuity_mergeable INTERFACE continuity_small)
target_compile_options(continuity_mergeable INTERFACE
  ${continuity_together} $<$<CXX_COMPILER_ID:GNU>:-ffat-lto-objects>)
# Outside the libraries a stack with lines has to do: what a debugger could want beside
# is half of the compiler's time.
set(continuity_lines_only $<$<CONFIG:RelWithDebInfo>:-g1>)
# What is not delivered as one takes the code: half a minute less for each.
set(continuity_one_by_one $<$<CXX_COMPILER_ID:GNU>:-fno-lto>)

function(continuity_leave_only_code archive)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    add_custom_command(TARGET ${archive} POST_BUILD VERBATIM
      COMMAND ${CMAKE_OBJCOPY} --wildcard --remove-section=.gnu.lto_* --remove-section=.gnu.debuglto_*
              $<TARGET_FILE:${archive}>)
  endif()
endfunction()
