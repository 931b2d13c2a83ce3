#pragma once
// The samples of RoIAlign: the level of the pyramid, and its pixels with their weights. The two
// axes are independent, so everything here is for one of them.
#include <cmath>
#include <cstdint>

#include "box.h"
#include "hd.h"

namespace rbc {

// Which of `level_count` levels, finest first, a box is read from (torchvision's LevelMapper). The
// finest has a stride of 2^finest_level px. A box without area, or with a NaN, goes to the finest.
RBC_HD int32_t roi_level(const Box& box, float canonical_px, int32_t canonical_level, int32_t finest_level,
                         int32_t level_count) {
  const double side = sqrtf(box_area(box)) / canonical_px;
  const float level = floorf(static_cast<float>(canonical_level) + static_cast<float>(log2(side)) + 1e-6f);
  const float index = level - static_cast<float>(finest_level);
  const int32_t last = level_count - 1;
  return !(index > 0.0f) ? 0 : index > static_cast<float>(last) ? last : static_cast<int32_t>(index);
}

// One axis of a box in pixels of its level, cut into bins. A box is never less than one pixel long.
struct RoiAxis {
  float start;
  float bin;
};

RBC_HD RoiAxis roi_axis(float low, float high, float pixels_per_canvas_px, int32_t bins) {
  const float start = low * pixels_per_canvas_px;
  const float length = high * pixels_per_canvas_px - start;
  return {start, (length > 1.0f ? length : 1.0f) / static_cast<float>(bins)};
}

// The two pixels that a sample lies between, and their weights: both zero if it lies over a pixel
// outside of the level, or is NaN.
struct RoiTap {
  int32_t low;
  int32_t high;
  float low_weight;
  float high_weight;
};

RBC_HD RoiTap roi_tap(const RoiAxis& axis, int32_t bin, int32_t sample, int32_t samples, int32_t size) {
  float at = axis.start + static_cast<float>(bin) * axis.bin +
             (static_cast<float>(sample) + 0.5f) * axis.bin / static_cast<float>(samples);
  const int32_t last = size - 1;
  if (at > static_cast<float>(size)) return {last, last, 0.0f, 0.0f};
  if (!(at >= -1.0f)) return {0, 0, 0.0f, 0.0f};
  at = at > 0.0f ? at : 0.0f;
  const int32_t low = static_cast<int32_t>(at);
  if (low >= last) return {last, last, 1.0f, 0.0f};
  const float high_weight = at - static_cast<float>(low);
  return {low, low + 1, 1.0f - high_weight, high_weight};
}

}  // namespace rbc
