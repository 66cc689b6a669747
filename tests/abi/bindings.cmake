# Whether the loader really gives a server our functions, by its own account:
# once a tiny server (which binds, listens, tries to accept and ends), and
# redis-server where it is installed.
function(expect_bindings program calls)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env LD_DEBUG=bindings LD_BIND_NOW=1
      LD_PRELOAD=${LIBRARY} CONTINUITY_DISABLE=1 ${program} ${ARGN}
    OUTPUT_QUIET ERROR_VARIABLE log TIMEOUT 20)
  get_filename_component(name ${program} NAME)
  foreach(call IN LISTS calls)
    string(REGEX MATCH "binding file [^\n]*${name} [^\n]* to [^\n]*: normal symbol `${call}'"
      binding "${log}")
    if(NOT binding MATCHES "to [^\n]*libcontinuity\\.so ")
      message(FATAL_ERROR "${name}: ${call}: ${binding}")
    endif()
  endforeach()
endfunction()

expect_bindings(${SERVER} "accept;bind;close;listen;poll;select;epoll_wait;epoll_ctl;shutdown;dup"
  --nonblocking --end exit0 loop 127.0.0.1:0)
find_program(redis redis-server PATHS /usr/bin)
if(redis)
  expect_bindings(${redis} "accept4;bind;close;listen;epoll_wait;epoll_ctl" --version)
endif()
