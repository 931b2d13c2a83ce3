#pragma once
// RBC_HD marks per-element maths that the CPU and the CUDA side share: written once, compiled by both.
#ifdef __CUDACC__
#define RBC_HD __host__ __device__ __forceinline__
#else
#define RBC_HD inline
#endif
