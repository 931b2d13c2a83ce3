#pragma once
// RBC_HD marks per-element maths that the CPU and the CUDA side share: written once, compiled by both. Static,
// because the linker would else keep one of the two compilers' code for both sides.
#ifdef __CUDACC__
#define RBC_HD static __host__ __device__ __forceinline__
#else
#define RBC_HD static inline
#endif
