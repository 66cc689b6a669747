# The shared library offers what the committed description says, and the types in it are what
# they were: a program that was built with an earlier one goes on working. With UPDATE the
# description is written anew (cmake --build build/release --target abi-update). With
# TRY_CHANGE it is compared with one that says something else of a structure.
cmake_minimum_required(VERSION 3.25)
set(current ${WORK}/current.abi)
if(TRY_CHANGE)
  set(current ${WORK}/changed.abi)
  file(READ ${DESCRIPTION} text)
  string(REGEX REPLACE "(name='continuity_outcome' size-in-bits=')[0-9]+" "\\164" changed "${text}")
  if(changed STREQUAL text)
    message(FATAL_ERROR "${DESCRIPTION} does not describe continuity_outcome")
  endif()
  file(WRITE ${current} "${changed}")
else()
  # What the headers do not declare is nobody's business.
  execute_process(COMMAND ${ABIDW} --headers-dir ${HEADERS} --drop-private-types --no-corpus-path
      --no-comp-dir-path --no-show-locs --exported-interfaces-only --drop-undefined-syms
      --type-id-style hash --out-file ${current} ${LIBRARY}
    COMMAND_ERROR_IS_FATAL ANY)
endif()
if(UPDATE)
  file(COPY_FILE ${current} ${DESCRIPTION})
endif()
execute_process(COMMAND ${ABIDIFF} ${DESCRIPTION} ${current}
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the binary interface has changed (${result}):\n${output}")
endif()
