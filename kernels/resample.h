#pragma once
#include <cmath>
#include <cstdint>

#include "hd.h"

namespace rbc {

// The taps of one output sample along one axis: input samples first .. first + count - 1.
struct TapRange {
  int32_t first;
  int32_t count;
};

// Triangle filter ("bilinear", antialiased when shrinking, as Pillow and torch's antialias=True
// do). `centre` is in input pixels, where sample k has its centre at k + 0.5; `support` >= 1 is
// half the filter's width in input pixels. Taps may lie outside the frame: the caller decides their
// value.
RBC_HD TapRange triangle_taps(float centre, float support) {
  const int32_t first = static_cast<int32_t>(floorf(centre - support - 0.5f)) + 1;
  const int32_t last = static_cast<int32_t>(ceilf(centre + support - 0.5f)) - 1;
  return {first, last - first + 1};
}

// Weight of input sample k, not yet normalised.
RBC_HD float triangle_weight(int32_t k, float centre, float support) {
  const float distance = fabsf(static_cast<float>(k) + 0.5f - centre) / support;
  return distance < 1.0f ? 1.0f - distance : 0.0f;
}

// Plain bilinear (two taps, half-pixel centres, edges repeated): torch interpolate(mode="bilinear",
// align_corners=False, antialias=False), which torchvision's GeneralizedRCNNTransform uses.
struct BilinearTap {
  int32_t low;
  int32_t high;
  float high_weight;
};

RBC_HD float blend(float low, float high, float high_weight) { return low + (high - low) * high_weight; }

RBC_HD BilinearTap bilinear_tap(int32_t index, float scale, int32_t size) {
  float source = (static_cast<float>(index) + 0.5f) * scale - 0.5f;
  source = source < 0.0f ? 0.0f : source;
  int32_t low = static_cast<int32_t>(source);
  low = low > size - 1 ? size - 1 : low;
  const int32_t high = low + 1 > size - 1 ? size - 1 : low + 1;
  return {low, high, source - static_cast<float>(low)};
}

}  // namespace rbc
