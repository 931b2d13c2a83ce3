#pragma once
// Kernels compute in float whatever their arrays hold.
#include <cuda_fp16.h>

#include "half.h"

namespace rbc {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }

__device__ __forceinline__ void store(float* address, float value) { *address = value; }
__device__ __forceinline__ void store(Half* address, float value) {
  address->bits = __half_as_ushort(__float2half_rn(value));
}

}  // namespace rbc
