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
# "Fat": the archives have objects that any linker can use.
set(continuity_together $<$<AND:$<CXX_COMPILER_ID:GNU>,$<CONFIG:RelWithDebInfo,Release>>:-flto=auto>)
target_compile_options(continuity_small INTERFACE
  ${continuity_together} $<$<CXX_COMPILER_ID:GNU>:-ffat-lto-objects>)
