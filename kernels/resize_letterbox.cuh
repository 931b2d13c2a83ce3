#pragma once
#include <cuda_runtime.h>

#include "background.h"
#include "frame_view.h"
#include "resample.h"

namespace rbc {

// One block per frame, one thread per sample. Bit by bit from the highest, a level is as high as
// the answer if fewer than kBackgroundRank samples lie below it.
__global__ void find_background_kernel(const FrameView* frames, float background_level, Background* backgrounds) {
  const uint8_t* sample = background_sample(frames[blockIdx.x], threadIdx.x);
  uint8_t rgb[3];
  for (int c = 0; c < 3; ++c) {
    const int32_t mine = sample[c];
    int32_t level = 0;
    for (int32_t bit = 128; bit > 0; bit /= 2) {
      if (__syncthreads_count(mine < level + bit) < kBackgroundRank) level += bit;
    }
    rgb[c] = static_cast<uint8_t>(level);
  }
  if (threadIdx.x == 0) backgrounds[blockIdx.x] = expose_background(rgb, background_level);
}

// One thread per pixel of a canvas, one layer of the grid per canvas.
__global__ void resize_letterbox_kernel(const FrameView* frames, const int32_t* resized_hw, int32_t canvas_height,
                                        int32_t canvas_width, const Background* backgrounds, uint8_t* canvases) {
  const int32_t x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= canvas_width || y >= canvas_height) return;
  const int32_t n = blockIdx.z;
  const int32_t height = resized_hw[2 * n], width = resized_hw[2 * n + 1];
  const Background background = backgrounds[n];
  uint8_t* out = canvases + ((static_cast<int64_t>(n) * canvas_height + y) * canvas_width + x) * 3;
  if (x >= width || y >= height) {
    for (int c = 0; c < 3; ++c) out[c] = background.rgb[c];
    return;
  }
  const FrameView frame = frames[n];
  const float across_scale = static_cast<float>(frame.width) / static_cast<float>(width);
  const float down_scale = static_cast<float>(frame.height) / static_cast<float>(height);
  const BilinearTap across = bilinear_tap(x, across_scale, frame.width);
  const BilinearTap down = bilinear_tap(y, down_scale, frame.height);
  const uint8_t* top = frame.pixels + down.low * frame.row_bytes;
  const uint8_t* bottom = frame.pixels + down.high * frame.row_bytes;
  for (int c = 0; c < 3; ++c) {
    const float above = blend(top[3 * across.low + c], top[3 * across.high + c], across.high_weight);
    const float below = blend(bottom[3 * across.low + c], bottom[3 * across.high + c], across.high_weight);
    out[c] = exposed(blend(above, below, down.high_weight), background.gain);
  }
}

}  // namespace rbc
