# Run by cpack between installing and packing: what Debian wants in every package, and the
# manual compressed; the archives without what only debuggers read, which is most of them.
set(names_runtime continuity)
set(names_upgrader ${CPACK_DEBIAN_UPGRADER_PACKAGE_NAME})
set(names_development libcontinuity-dev)
file(READ ${CPACK_CONTINUITY_SOURCE}/LICENSE license)
string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)

function(compress file)
  execute_process(COMMAND gzip -9nf ${file} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

foreach(component runtime upgrader development)
  set(root ${CPACK_TEMPORARY_DIRECTORY}/${component}/usr)
  set(name ${names_${component}})
  set(documents ${root}/share/doc/${name})
  file(WRITE ${documents}/copyright "${license}")
  file(COPY_FILE ${CPACK_CONTINUITY_SOURCE}/CHANGELOG.md ${documents}/changelog)
  file(WRITE ${documents}/changelog.Debian
    "continuity (${CPACK_PACKAGE_VERSION}-1) unstable; urgency=medium\n\n"
    "  * See changelog.gz.\n\n -- ${CPACK_PACKAGE_CONTACT}  ${now}\n")
  compress(${documents}/changelog)
  compress(${documents}/changelog.Debian)
endforeach()
file(GLOB archives ${CPACK_TEMPORARY_DIRECTORY}/development/usr/lib/*.a)
foreach(archive IN LISTS archives)
  execute_process(COMMAND objcopy --strip-debug ${archive} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
file(GLOB manuals ${CPACK_TEMPORARY_DIRECTORY}/runtime/usr/share/man/man*/*[0-9])
foreach(manual IN LISTS manuals)
  compress(${manual})
endforeach()
file(GLOB_RECURSE all LIST_DIRECTORIES true ${CPACK_TEMPORARY_DIRECTORY}/*)
foreach(one IN LISTS all)
  if(IS_DIRECTORY ${one})
    file(CHMOD ${one} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE
      GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
  endif()
endforeach()
