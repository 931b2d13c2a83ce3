#include "fused_heads.cuh"

#include "cuda_launch.h"

namespace rbc {

size_t fused_heads_workspace_bytes(int64_t patches, const HeadShape& shape) {
  const size_t slices = static_cast<size_t>(shape.types) * (shape.hidden / kHeadTile);
  const size_t tiles = static_cast<size_t>(patch_tiles(patches));
  return tiles * kHeadTile * shape.features * sizeof(Half) + slices * patches * sizeof(float) +
         tiles * shape.types * sizeof(uint32_t);
}

// 64 patches, 12 types, 2048 -> 512: the weights are 25 MB and the product 1.6 GFLOP, 64 operations
// a byte. An H100's tensor cores could do 295 (990 TFLOP/s over 3.35 TB/s), a T4's 200: bound by
// reading the weights, 7.5 us and 79 us, which is why a block of 64 patches reads them once. 96
// blocks have three steps of 4 kB each under way, 1.2 MB in all: at 0.6 us of latency that keeps up
// with a T4's or an A100's memory and with six tenths of an H100's, 13 us there. Next is shared
// memory, from which the warps of a block load 1.5 MB: 7 us at an H100's 128 bytes a clock, within
// the former. 256 patches are four times as many blocks: where L2 holds the weights they are read
// from memory once, and the bound is shared memory, 20 us for the three blocks of an H100's
// multiprocessor. The feature map, 2 x 2 pixels, is 1 MB: pooled by a launch of its own, for each
// of the 96 blocks would else read all of it.
void launch_fused_heads(const Half* feature_map, FeatureLayout layout, int64_t patches, int32_t pixels,
                        const HeadShape& shape, const HeadWeights& weights, void* workspace, float* probabilities,
                        cudaStream_t stream) {
  if (patches == 0) return;
  require(shape.features % kHeadTile == 0, "fused_heads: features must be a multiple of 64", shape.features);
  require(shape.hidden % kHeadTile == 0, "fused_heads: hidden must be a multiple of 64", shape.hidden);
  require(shape.types <= kMostTypes, "fused_heads: types must be at most 4096", shape.types);
  require(patch_tiles(patches) <= 65535, "fused_heads: a launch takes at most 4194240 patches", patches);
  const int64_t tiles = patch_tiles(patches), slices = int64_t{shape.types} * (shape.hidden / kHeadTile);
  HeadScratch scratch{};
  scratch.pooled = static_cast<Half*>(workspace);
  scratch.partial = reinterpret_cast<float*>(scratch.pooled + tiles * kHeadTile * shape.features);
  scratch.arrived = reinterpret_cast<uint32_t*>(scratch.partial + slices * patches);
  const int64_t pooled = tiles * kHeadTile * shape.features;
  launch(pool_features_kernel, dim3(blocks_for(pooled, kPoolThreads)), dim3(kPoolThreads), stream, feature_map, layout,
         patches, pixels, shape, scratch);
  const dim3 grid(static_cast<unsigned>(slices), static_cast<unsigned>(tiles));
  launch(heads_kernel, grid, dim3(kHeadThreads), stream, patches, shape, weights, scratch, probabilities);
}

}  // namespace rbc
