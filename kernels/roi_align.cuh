#pragma once
#include <cuda_runtime.h>

#include "half.cuh"
#include "roi.h"
#include "roi_align.h"

namespace rbc {

constexpr int32_t kRoiThreads = 256;
constexpr int32_t kRoiChannels = 32;  // a block pools one box over this many channels

template <typename T>
struct FeaturePyramid {
  FeatureLevelOf<T> levels[kMostFeatureLevels];
  int32_t level_count;
};

// Sums in the order of roi_align_cpu: down the rows of a bin, and then across its columns.
//   grid  images * slots x groups of channels
template <typename T>
__global__ void roi_align_kernel(const __grid_constant__ FeaturePyramid<T> pyramid, int32_t channels,
                                 const Box* boxes, const int32_t* counts, int32_t slots,
                                 RoiAlignSettings settings, T* pooled) {
  // across, down: [bins, samples], weights divided by the samples
  __shared__ RoiTap taps[2][kMostRoiSamples];
  const int64_t row = blockIdx.x, n = row / slots;
  const int32_t bins = settings.output_size, samples = settings.sampling_ratio;
  const int32_t first_channel = blockIdx.y * kRoiChannels;
  const int32_t left = channels - first_channel;
  const int32_t values = (left < kRoiChannels ? left : kRoiChannels) * bins * bins;
  T* out = pooled + (row * channels + first_channel) * bins * bins;
  if (row % slots >= counts[n]) {
    for (int32_t i = threadIdx.x; i < values; i += kRoiThreads) store(out + i, 0.0f);
    return;
  }

  const Box box = boxes[row];
  const int32_t l = roi_level(box, settings.canonical_px, settings.canonical_level, settings.finest_level,
                              pyramid.level_count);
  const FeatureLevelOf<T> level = pyramid.levels[l];
  const float scale = ldexpf(1.0f, -(settings.finest_level + l));
  for (int32_t i = threadIdx.x; i < 2 * bins * samples; i += kRoiThreads) {
    const int32_t down = i / (bins * samples), place = i % (bins * samples);
    const RoiAxis axis = down ? roi_axis(box.y0, box.y1, scale, bins) : roi_axis(box.x0, box.x1, scale, bins);
    RoiTap tap = roi_tap(axis, place / samples, place % samples, samples, down ? level.height : level.width);
    tap.low_weight /= static_cast<float>(samples), tap.high_weight /= static_cast<float>(samples);
    taps[down][place] = tap;
  }
  __syncthreads();

  const int64_t plane = static_cast<int64_t>(level.height) * level.width;
  const T* planes = level.features + (n * channels + first_channel) * plane;
  const auto column_sum = [&](const T* corner, const RoiTap* down, int32_t x) {
    float sum = 0.0f;
    for (int32_t k = 0; k < samples; ++k) {
      sum += down[k].low_weight * to_float(corner[static_cast<int64_t>(down[k].low) * level.width + x]);
      sum += down[k].high_weight * to_float(corner[static_cast<int64_t>(down[k].high) * level.width + x]);
    }
    return sum;
  };
  for (int32_t i = threadIdx.x; i < values; i += kRoiThreads) {
    const T* corner = planes + i / (bins * bins) * plane;
    const RoiTap* down = taps[1] + i / bins % bins * samples;
    const RoiTap* across = taps[0] + i % bins * samples;
    float sum = 0.0f;
    for (int32_t k = 0; k < samples; ++k) {
      sum += across[k].low_weight * column_sum(corner, down, across[k].low);
      sum += across[k].high_weight * column_sum(corner, down, across[k].high);
    }
    store(out + i, sum);
  }
}

}  // namespace rbc
