#pragma once
#include <cuda_runtime.h>
#include <mma.h>

#include "fused_heads.h"
#include "half.cuh"

namespace rbc {

// A block of heads_kernel makes the hidden values of 64 patches and of 64 units of one type, 64 features at a time.
constexpr int32_t kHeadTile = 64;
constexpr int32_t kHeadStride = kHeadTile + 8;  // of rows in shared memory: neighbours begin in different banks
constexpr int32_t kHeadThreads = 256;           // 8 warps, each 16 patches by 32 units
constexpr int32_t kLoads = kHeadTile * kHeadTile / 8 / kHeadThreads;  // of 16 bytes, for a thread and a tile
constexpr int32_t kPoolThreads = 256;

// Between the two kernels, and between the blocks of the second.
struct HeadScratch {
  Half* pooled;       // [patches, features]
  float* partial;     // [types, slices, patches], each slice the sum over 64 units
  uint32_t* arrived;  // [tiles of patches, types], how many slices are in `partial`
};

// A thread a patch and feature.
__global__ void pool_features_kernel(const Half* feature_map, FeatureLayout layout, int64_t patches, int32_t pixels,
                                     HeadShape shape, HeadScratch scratch) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x;
  const int64_t counters = (patches + kHeadTile - 1) / kHeadTile * shape.types;
  for (int64_t k = i; k < counters; k += static_cast<int64_t>(gridDim.x) * kPoolThreads) scratch.arrived[k] = 0;
  if (i >= patches * shape.features) return;
  const bool planar = layout == FeatureLayout::kNchw;
  const int64_t n = i / shape.features, c = i % shape.features;
  const Half* first = feature_map + (planar ? i * pixels : n * pixels * shape.features + c);
  const int64_t step = planar ? 1 : shape.features;
  float sum = 0.0f;
  for (int32_t p = 0; p < pixels; ++p) sum += to_float(first[p * step]);
  store(scratch.pooled + i, sum / static_cast<float>(pixels));
}

// A thread's part of a tile of 64 rows by 64 features, on its way to shared memory; rows from `rows` on are zero.
struct HeadTilePart {
  uint4 parts[kLoads];

  __device__ __forceinline__ void load(const Half* from, int64_t rows, int32_t features) {
    for (int32_t k = 0; k < kLoads; ++k) {
      const int32_t place = k * kHeadThreads + threadIdx.x, row = place / 8, column = place % 8 * 8;
      const Half* address = from + static_cast<int64_t>(row) * features + column;
      parts[k] = row < rows ? *reinterpret_cast<const uint4*>(address) : uint4{};
    }
  }

  __device__ __forceinline__ void keep(half (*tile)[kHeadStride]) const {
    for (int32_t k = 0; k < kLoads; ++k) {
      const int32_t place = k * kHeadThreads + threadIdx.x;
      *reinterpret_cast<uint4*>(&tile[place / 8][place % 8 * 8]) = parts[k];
    }
  }
};

// The last of a type's slices to arrive adds them up, in the order of the slices.
//   grid  types * slices x tiles of 64 patches
__global__ __launch_bounds__(kHeadThreads) void heads_kernel(int64_t patches, HeadShape shape, HeadWeights weights,
                                                             HeadScratch scratch, float* probabilities) {
  using namespace nvcuda;
  union Tiles {
    struct {
      half patches[kHeadTile][kHeadStride];
      half units[kHeadTile][kHeadStride];
    } in;
    float out[kHeadTile][kHeadStride];  // patches x units
  };
  alignas(32) __shared__ unsigned char memory[sizeof(Tiles)];
  __shared__ bool is_last;
  Tiles& tiles = *reinterpret_cast<Tiles*>(memory);
  const int32_t slices = shape.hidden / kHeadTile, type = blockIdx.x / slices;
  const int64_t first_patch = static_cast<int64_t>(blockIdx.y) * kHeadTile, first_unit = blockIdx.x * kHeadTile;
  const Half* patch_rows = scratch.pooled + first_patch * shape.features;
  const Half* unit_rows = weights.first_weight + first_unit * shape.features;
  const int32_t warp = threadIdx.x / 32, warp_patch = warp % 4 * 16, warp_unit = warp / 4 * 32;

  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[2];
  for (auto& sum : sums) wmma::fill_fragment(sum, 0.0f);
  HeadTilePart patch_part, unit_part;
  patch_part.load(patch_rows, patches - first_patch, shape.features);
  unit_part.load(unit_rows, kHeadTile, shape.features);
  for (int32_t feature = 0; feature < shape.features; feature += kHeadTile) {
    patch_part.keep(tiles.in.patches);
    unit_part.keep(tiles.in.units);
    __syncthreads();
    const int32_t next = feature + kHeadTile;
    if (next < shape.features) {  // on its way while this tile is multiplied
      patch_part.load(patch_rows + next, patches - first_patch, shape.features);
      unit_part.load(unit_rows + next, kHeadTile, shape.features);
    }
    for (int32_t k = 0; k < kHeadTile; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
      wmma::load_matrix_sync(a, &tiles.in.patches[warp_patch][k], kHeadStride);
      for (int32_t j = 0; j < 2; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b;
        wmma::load_matrix_sync(b, &tiles.in.units[warp_unit + 16 * j][k], kHeadStride);
        wmma::mma_sync(sums[j], a, b, sums[j]);
      }
    }
    __syncthreads();
  }
  for (int32_t j = 0; j < 2; ++j) {
    wmma::store_matrix_sync(&tiles.out[warp_patch][warp_unit + 16 * j], sums[j], kHeadStride, wmma::mem_row_major);
  }
  __syncthreads();

  const int32_t row = threadIdx.x / 4;  // four threads a patch, each a quarter of the units
  float sum = 0.0f;
  for (int32_t unit = threadIdx.x % 4; unit < kHeadTile; unit += 4) {
    const float value = tiles.out[row][unit] + to_float(weights.first_bias[first_unit + unit]);
    sum += (value > 0.0f ? value : 0.0f) * to_float(weights.second_weight[first_unit + unit]);
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (threadIdx.x % 4 == 0 && first_patch + row < patches) {
    scratch.partial[blockIdx.x * patches + first_patch + row] = sum;
    __threadfence();  // before this block is counted
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(&scratch.arrived[blockIdx.y * shape.types + type], 1u) == static_cast<uint32_t>(slices) - 1;
    __threadfence();
  }
  __syncthreads();
  const int64_t patch = first_patch + threadIdx.x;
  if (!is_last || threadIdx.x >= kHeadTile || patch >= patches) return;
  float logit = to_float(weights.second_bias[type]);
  for (int32_t slice = 0; slice < slices; ++slice) {
    logit += __ldcg(&scratch.partial[(static_cast<int64_t>(type) * slices + slice) * patches + patch]);
  }
  probabilities[patch * shape.types + type] = 1.0f / (1.0f + expf(-logit));
}

}  // namespace rbc
