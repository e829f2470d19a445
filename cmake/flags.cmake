# Warnings, hardening and sanitizers for every target of the project.
add_compile_options(-Wall -Wextra -Werror -Wnon-virtual-dtor -Woverloaded-virtual)
# GCC 12 and 14 report false positives of these in std::string and std::regex at -O2.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options(-Wno-restrict -Wno-maybe-uninitialized)
endif()
include_directories(${CMAKE_SOURCE_DIR})

if(BOTTLE_SANITIZE)
  add_compile_options(-fsanitize=${BOTTLE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${BOTTLE_SANITIZE})
else()
  # -fcf-protection and stack-clash are x86-64 and GCC/clang on Linux, as Debian's own hardening sets them.
  add_compile_options(-fstack-protector-strong -fstack-clash-protection -D_GLIBCXX_ASSERTIONS)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    add_compile_options(-fcf-protection)
  endif()
  if(CMAKE_BUILD_TYPE MATCHES "Rel")
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  endif()
  add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack)
endif()
