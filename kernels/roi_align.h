#pragma once
#include <cstdint>

#include "box.h"

namespace rbc {

// One level of the feature pyramid: float32 [images, channels, height, width].
struct FeatureLevel {
  const float* features;
  int32_t height;
  int32_t width;
};

struct RoiAlignSettings {
  int32_t output_size;
  int32_t sampling_ratio;   // samples a bin and axis
  int32_t finest_level;     // log2 of the stride of the first level; strides double from level to level
  int32_t canonical_level;  // a box of canonical_px is read from the level with stride 2^canonical_level
  float canonical_px;
};

// Pools each box from the level that fits its size: torchvision's MultiScaleRoIAlign (aligned=False).
//   boxes   float32 [images, slots, 4] canvas px, of which the first counts[n] are read
//   counts  int32 [images]
//   pooled  float32 [images * slots, channels, output_size, output_size]; rows without a box are zero
void roi_align_cpu(const FeatureLevel* levels, int32_t level_count, int64_t images, int32_t channels,
                   const Box* boxes, const int32_t* counts, int64_t slots, const RoiAlignSettings& settings,
                   float* pooled, int threads);

}  // namespace rbc
