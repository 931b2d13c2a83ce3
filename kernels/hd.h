#pragma once
// RBC_HD marks per-element maths that the CPU and the CUDA side share: written once, compiled by both. Static,
// because the linker would else keep one of the two compilers' code for both sides.
// RBC_HD_CALL stays a call on the GPU: for what takes many registers and is seldom done.
// RBC_ROLLED keeps the loop behind it from being unrolled on the GPU: for few turns, where copies would cost registers.
#ifdef __CUDACC__
#define RBC_HD static __host__ __device__ __forceinline__
#define RBC_HD_CALL static inline __host__ __device__ __noinline__
#else
#define RBC_HD static inline
#define RBC_HD_CALL static inline
#endif
#ifdef __CUDA_ARCH__  // the compiler of the host's side does not know the pragma
#define RBC_ROLLED _Pragma("unroll 1")
#else
#define RBC_ROLLED
#endif
