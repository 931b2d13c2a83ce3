#pragma once
// RBC_HD marks per-element maths that the CPU and the CUDA side share: written once, compiled by both. Static,
// because the linker would else keep one of the two compilers' code for both sides.
// RBC_HD_CALL stays a call on the GPU: for what takes many registers and is seldom done.
#ifdef __CUDACC__
#define RBC_HD static __host__ __device__ __forceinline__
#define RBC_HD_CALL static inline __host__ __device__ __noinline__
#else
#define RBC_HD static inline
#define RBC_HD_CALL static inline
#endif
