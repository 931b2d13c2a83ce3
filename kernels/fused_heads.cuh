#pragma once
#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>
#include <mma.h>

#include "fused_heads.h"
#include "half.cuh"
#include "hd.h"

namespace rbc {

// A block of heads_kernel makes the hidden values of 64 patches and of 64 units of one type.
// Features come in steps of 32, each into one of four stages: three steps are on their way while
// the fourth is multiplied.
constexpr int32_t kHeadTile = 64;
constexpr int32_t kHeadDepth = 32;
constexpr int32_t kHeadStages = 4;
constexpr int32_t kHeadThreads = 256;             // 8 warps, each 16 patches by 32 units
// of rows in shared memory: eight of them begin in different banks
constexpr int32_t kHeadStride = kHeadDepth + 8;
constexpr int32_t kHiddenStride = kHeadTile + 4;  // likewise
constexpr int32_t kLoad = 8;                      // halves that a thread fetches at once, 16 bytes
constexpr int32_t kPoolThreads = 256;
static_assert(kHeadThreads * kLoad == kHeadTile * kHeadDepth);

// Between the two kernels, and between the blocks of the second.
struct HeadScratch {
  Half* pooled;       // [patches rounded up to whole tiles, features], zero after the last patch
  float* partial;     // [types, slices, patches], each slice the sum over 64 units
  uint32_t* arrived;  // [tiles of patches, types], how many slices are in `partial`
};

RBC_HD int64_t patch_tiles(int64_t patches) { return (patches + kHeadTile - 1) / kHeadTile; }

// One thread per patch and feature.
__global__ void pool_features_kernel(const Half* feature_map, FeatureLayout layout, int64_t patches, int32_t pixels,
                                     HeadShape shape, HeadScratch scratch) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPoolThreads + threadIdx.x;
  const int64_t tiles = patch_tiles(patches);
  // there are more threads than counters: features >= 64
  static_assert(kMostTypes <= kHeadTile * kHeadTile);
  if (i < tiles * shape.types) scratch.arrived[i] = 0;
  if (i >= tiles * kHeadTile * shape.features) return;
  const int64_t n = i / shape.features, c = i % shape.features;
  float sum = 0.0f;
  if (n < patches) {
    const bool planar = layout == FeatureLayout::kNchw;
    const Half* first = feature_map + (planar ? i * pixels : n * pixels * shape.features + c);
    const int64_t step = planar ? 1 : shape.features;
    for (int32_t p = 0; p < pixels; ++p) sum += to_float(first[p * step]);
  }
  store(scratch.pooled + i, sum / static_cast<float>(pixels));
}

struct HeadStage {
  half patches[kHeadTile][kHeadStride];
  half units[kHeadTile][kHeadStride];
};

union HeadSpace {
  HeadStage stages[kHeadStages];
  float hidden[kHeadTile][kHiddenStride];  // patches x units
};

// The last of a type's slices to arrive adds them up, in the order of the slices.
//   grid  types * slices x tiles of 64 patches
__global__ __launch_bounds__(kHeadThreads) void heads_kernel(int64_t patches, HeadShape shape, HeadWeights weights,
                                                             HeadScratch scratch, float* probabilities) {
  using namespace nvcuda;
  alignas(32) __shared__ HeadSpace space;
  __shared__ bool is_last;
  const int32_t slices = shape.hidden / kHeadTile, type = blockIdx.x / slices, steps = shape.features / kHeadDepth;
  const int64_t first_patch = static_cast<int64_t>(blockIdx.y) * kHeadTile;
  const int64_t first_unit = static_cast<int64_t>(blockIdx.x) * kHeadTile;

  const auto fetch = [&](int32_t step) {
    if (step < steps) {
      const int32_t row = threadIdx.x / (kHeadDepth / kLoad), column = threadIdx.x % (kHeadDepth / kLoad) * kLoad;
      const int32_t feature = step * kHeadDepth + column;
      HeadStage& stage = space.stages[step % kHeadStages];
      __pipeline_memcpy_async(&stage.patches[row][column],
                              scratch.pooled + (first_patch + row) * shape.features + feature, kLoad * sizeof(half));
      __pipeline_memcpy_async(&stage.units[row][column],
                              weights.first_weight + (first_unit + row) * shape.features + feature,
                              kLoad * sizeof(half));
    }
    __pipeline_commit();  // of nothing, too, so that every step is one to be waited for
  };
  for (int32_t step = 0; step < kHeadStages - 1; ++step) fetch(step);

  const int32_t warp = threadIdx.x / 32, warp_patch = warp % 4 * 16, warp_unit = warp / 4 * 32;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[2];
  for (auto& sum : sums) wmma::fill_fragment(sum, 0.0f);
  for (int32_t step = 0; step < steps; ++step) {
    __pipeline_wait_prior(kHeadStages - 2);  // what this thread fetched for this step is there,
    __syncthreads();  // what the others fetched, too, and the last step's stage is free
    fetch(step + kHeadStages - 1);
    const HeadStage& stage = space.stages[step % kHeadStages];
    for (int32_t k = 0; k < kHeadDepth; k += 16) {
      wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> a;
      wmma::load_matrix_sync(a, &stage.patches[warp_patch][k], kHeadStride);
      for (int32_t j = 0; j < 2; ++j) {
        wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> b;
        wmma::load_matrix_sync(b, &stage.units[warp_unit + 16 * j][k], kHeadStride);
        wmma::mma_sync(sums[j], a, b, sums[j]);
      }
    }
  }
  __syncthreads();  // `hidden` lies where the stages were
  for (int32_t j = 0; j < 2; ++j) {
    wmma::store_matrix_sync(&space.hidden[warp_patch][warp_unit + 16 * j], sums[j], kHiddenStride, wmma::mem_row_major);
  }
  __syncthreads();

  const int32_t row = threadIdx.x / 4;  // four threads per patch, each a quarter of the units
  float sum = 0.0f;
  for (int32_t unit = threadIdx.x % 4; unit < kHeadTile; unit += 4) {
    const float value = space.hidden[row][unit] + to_float(weights.first_bias[first_unit + unit]);
    sum += (value < 0.0f ? 0.0f : value) * to_float(weights.second_weight[first_unit + unit]);
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (threadIdx.x % 4 == 0 && first_patch + row < patches) {
    scratch.partial[blockIdx.x * patches + first_patch + row] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // the block's sums are seen before it is counted,
    is_last = atomicAdd(&scratch.arrived[blockIdx.y * shape.types + type], 1u) == static_cast<uint32_t>(slices) - 1;
    __threadfence();  // and the others' after they were
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
