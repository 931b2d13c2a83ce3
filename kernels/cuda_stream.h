#pragma once
// The type of a CUDA stream, the same as cuda_runtime.h has it, so that signatures need no CUDA
// header.
typedef struct CUstream_st* cudaStream_t;
