#pragma once
#include <cstdint>

#include "box.h"
#include "cuda_stream.h"
#include "half.h"

namespace rbc {

// One level of the feature pyramid: T [images, channels, height, width].
template <typename T>
struct FeatureLevelOf {
  const T* features;
  int32_t height;
  int32_t width;
};

using FeatureLevel = FeatureLevelOf<float>;

struct RoiAlignSettings {
  int32_t output_size;
  int32_t sampling_ratio;   // samples a bin and axis
  int32_t finest_level;  // log2 of the stride of the first level; strides double by level
  // a box of canonical_px is read from the level with stride 2^canonical_level
  int32_t canonical_level;
  float canonical_px;
};

// Pools each box from the level that fits its size: torchvision's MultiScaleRoIAlign
// (aligned=False).
//   boxes   float32 [images, slots, 4] canvas px, of which the first counts[n] are read
//   counts  int32 [images]
//   pooled  float32 [images * slots, channels, output_size, output_size]; rows without a box are
//           zero
void roi_align_cpu(const FeatureLevel* levels, int32_t level_count, int64_t images, int32_t channels,
                   const Box* boxes, const int32_t* counts, int64_t slots, const RoiAlignSettings& settings,
                   float* pooled, int threads);

// The GPU's limits: of levels, and of output_size times sampling_ratio.
constexpr int32_t kMostFeatureLevels = 6;
constexpr int32_t kMostRoiSamples = 256;

// The same on a GPU: float features to the bit; fp16 ones are pooled in float and rounded. T is
// float or Half. Boxes, counts, pooled and the features that levels point to are in device memory;
// `levels` itself is the host's.
template <typename T>
void launch_roi_align(const FeatureLevelOf<T>* levels, int32_t level_count, int64_t images, int32_t channels,
                      const Box* boxes, const int32_t* counts, int64_t slots, const RoiAlignSettings& settings,
                      T* pooled, cudaStream_t stream);

}  // namespace rbc
