#pragma once
#include <cuda_runtime.h>

#include "frame_view.h"
#include "half.cuh"
#include "resample.h"

namespace rbc {

constexpr int32_t kCropTile = 16;  // a block makes 16 x 16 pixels of a patch, a thread each

// The weights of so many taps are kept in shared memory, enough to shrink 15 times; those of
// further ones are computed where they are needed.
constexpr int32_t kKeptTaps = 32;

struct CropOptions {
  int32_t size;
  float mean[3];
  float std[3];
};

// One axis of 16 output samples: as crop_resize_cpu plans it.
struct CropAxis {
  float centre[kCropTile];
  float total[kCropTile];  // of the weights of all taps, inside the frame or not
  int32_t low[kCropTile];  // taps inside the frame: low .. high - 1
  int32_t high[kCropTile];
  // one more than needed, so that samples lie in different banks
  float kept[kCropTile][kKeptTaps + 1];
  float support;

  __device__ __forceinline__ void plan(int32_t sample, int32_t index, float start, float end, int32_t size,
                                       int32_t frame_size) {
    const float scale = (end - start) / static_cast<float>(size);
    const float reach = scale > 1.0f ? scale : 1.0f;
    const float middle = start + (static_cast<float>(index) + 0.5f) * scale;
    const TapRange all = triangle_taps(middle, reach);
    const int32_t past = all.first + all.count;
    float sum = 0.0f;
    for (int32_t k = all.first; k < past; ++k) sum += triangle_weight(k, middle, reach);
    low[sample] = all.first > 0 ? all.first : 0;
    high[sample] = past < frame_size ? past : frame_size;
    centre[sample] = middle, total[sample] = sum;
    if (sample == 0) support = reach;
    for (int32_t k = low[sample]; k < high[sample] && k - low[sample] < kKeptTaps; ++k) {
      kept[sample][k - low[sample]] = triangle_weight(k, middle, reach) / sum;
    }
  }

  __device__ __forceinline__ float weight(int32_t sample, int32_t k) const {
    const int32_t place = k - low[sample];
    return place < kKeptTaps ? kept[sample][place] : triangle_weight(k, centre[sample], support) / total[sample];
  }
};

// Sums rows first and then columns in the order of crop_resize_cpu, so that float patches are the
// same to the bit.
//   grid  tiles of a patch x patches
template <typename T>
__global__ void crop_resize_kernel(const FrameView* frames, const float* windows, const int32_t* frame_index,
                                   CropOptions options, T* patches) {
  __shared__ CropAxis axes[2];  // across, down
  const int32_t size = options.size, tiles = (size + kCropTile - 1) / kCropTile;
  const int64_t n = blockIdx.x / (tiles * tiles);
  const int32_t tile = blockIdx.x % (tiles * tiles);
  const int32_t left = tile % tiles * kCropTile, top = tile / tiles * kCropTile;
  const FrameView frame = frames[frame_index[n]];
  const float* window = windows + 4 * n;

  if (threadIdx.y < 2) {
    const int32_t axis = threadIdx.y;
    axes[axis].plan(threadIdx.x, (axis == 0 ? left : top) + threadIdx.x, window[axis], window[axis + 2], size,
                    axis == 0 ? frame.width : frame.height);
  }
  __syncthreads();
  const int32_t across = threadIdx.x, down = threadIdx.y;
  const int32_t x = left + across, y = top + down;
  if (x >= size || y >= size) return;

  float sum[3] = {};
  for (int32_t row = axes[1].low[down]; row < axes[1].high[down]; ++row) {
    const uint8_t* pixels = frame.pixels + row * frame.row_bytes;
    float line[3] = {};
    for (int32_t column = axes[0].low[across]; column < axes[0].high[across]; ++column) {
      const float weight = axes[0].weight(across, column);
      for (int c = 0; c < 3; ++c) line[c] += weight * (pixels[3 * column + c] - options.mean[c]);
    }
    const float weight = axes[1].weight(down, row);
    for (int c = 0; c < 3; ++c) sum[c] += weight / options.std[c] * line[c];
  }
  for (int c = 0; c < 3; ++c) store(patches + ((n * 3 + c) * size + y) * size + x, sum[c]);
}

}  // namespace rbc
