# The CUDA kernels as a part of the target _kernels, or a line that says why they are left out.
include(CheckLanguage)

set(RBC_OLDEST_CUDA 12.8)  # the first that knows every architecture below

function(rbc_without_cuda reason)
  if(RBC_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA kernels: left out, ${reason}")
  else()
    message(FATAL_ERROR "RBC_CUDA=ON, but ${reason}. Put nvcc ${RBC_OLDEST_CUDA} or later on PATH, or set RBC_CUDA=OFF.")
  endif()
endfunction()

if(NOT RBC_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "RBC_CUDA must be AUTO, ON or OFF (got ${RBC_CUDA})")
endif()
if(RBC_CUDA STREQUAL "OFF")
  message(STATUS "CUDA kernels: left out, RBC_CUDA=OFF")
  return()
endif()

# From Turing on; the last one also as PTX, for what comes after it.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100-real 120)
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  rbc_without_cuda("no working CUDA compiler was found")
  return()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS RBC_OLDEST_CUDA)
  rbc_without_cuda("${CMAKE_CUDA_COMPILER} is version ${CMAKE_CUDA_COMPILER_VERSION}, before ${RBC_OLDEST_CUDA}")
  return()
endif()
find_package(CUDAToolkit REQUIRED)
message(STATUS "CUDA kernels: ${CMAKE_CUDA_COMPILER_VERSION}, for ${CMAKE_CUDA_ARCHITECTURES}")

file(GLOB RBC_CU CONFIGURE_DEPENDS ${RBC_KERNELS}/*.cu)
add_library(rbc_cuda OBJECT ${RBC_CU})
set_target_properties(rbc_cuda PROPERTIES
  CUDA_STANDARD 17
  CUDA_STANDARD_REQUIRED ON
  CUDA_EXTENSIONS OFF
  CUDA_VISIBILITY_PRESET hidden
  CUDA_RUNTIME_LIBRARY Static
  POSITION_INDEPENDENT_CODE ON)
target_include_directories(rbc_cuda PRIVATE ${RBC_KERNELS})
# No contraction, as on the CPU. The host's side of a launcher is compiled by the C++ compiler: its warnings count, too.
target_compile_options(rbc_cuda PRIVATE
  --fmad=false "SHELL:-Werror all-warnings" -Xcompiler=-Wall,-Wextra,-Werror,-ffp-contract=off)

target_sources(_kernels PRIVATE ${RBC_KERNELS}/bindings_cuda.cpp $<TARGET_OBJECTS:rbc_cuda>)
set_source_files_properties(kernels/bindings.cpp PROPERTIES COMPILE_DEFINITIONS RBC_CUDA)
# Static, so that the module needs no CUDA library to be imported, and no driver before the first launch.
target_link_libraries(_kernels PRIVATE CUDA::cudart_static)
set_target_properties(_kernels PROPERTIES LINKER_LANGUAGE CXX)
