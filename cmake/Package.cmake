# What find_package(continuity) and pkg-config find after an installation.
include(CMakePackageConfigHelpers)
set(continuity_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/continuity)
configure_package_config_file(cmake/continuityConfig.cmake.in continuityConfig.cmake
  INSTALL_DESTINATION ${continuity_package_dir})
# Before 1.0 a minor version may change what it likes.
write_basic_package_version_file(continuityConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/continuityConfig.cmake
  ${PROJECT_BINARY_DIR}/continuityConfigVersion.cmake DESTINATION ${continuity_package_dir}
  COMPONENT development)
install(EXPORT continuityTargets NAMESPACE continuity:: DESTINATION ${continuity_package_dir}
  COMPONENT development)

list(JOIN CONTINUITY_WRAP_FLAGS " " continuity_wrap_flags)
foreach(name continuity continuity-wrap)
  configure_file(cmake/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
    COMPONENT development)
endforeach()
