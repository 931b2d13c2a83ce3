#pragma once
// The little of the CUDA runtime that kernels/*.cu use, over the emulator.
#include "emulator.h"

typedef struct CUstream_st* cudaStream_t;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

template <typename T>
T __ldcg(const T* address) {
  return *address;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid configuration argument";
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  emulator::run_grid(config->gridDim, config->blockDim, [&] { kernel(arguments...); });
  return cudaSuccess;
}
