#pragma once
// Used by every launcher. Launchers put work on a stream and return: they neither allocate nor
// wait, so a CUDA graph can record them. Pointers are to device memory unless a comment says
// otherwise, and what they point to is trusted: only sizes are checked (std::invalid_argument). A
// launch that CUDA refuses is std::runtime_error.
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "cuda_stream.h"

namespace rbc {

inline void require(bool holds, const char* rule, int64_t got) {
  if (!holds) throw std::invalid_argument(std::string(rule) + " (got " + std::to_string(got) + ")");
}

inline unsigned blocks_for(int64_t items, int64_t a_block) {
  return static_cast<unsigned>((items + a_block - 1) / a_block);
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA launch: ") + cudaGetErrorString(error));
}

}  // namespace rbc
