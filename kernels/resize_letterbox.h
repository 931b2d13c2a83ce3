#pragma once
#include <cstdint>

#include "cuda_stream.h"
#include "frame_view.h"

namespace rbc {

// Resizes every frame (plain bilinear) to resized_hw[n] = {height, width}, rounds to uint8, places it at
// the top left of canvas n and fills the rest with fill_rgb.
//   resized_hw  int32 [count, 2], each within the canvas
//   canvases    uint8 [count, canvas_height, canvas_width, 3], contiguous, written whole
void resize_letterbox_cpu(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                          int32_t canvas_height, int32_t canvas_width, const uint8_t* fill_rgb,
                          uint8_t* canvases, int threads);

// The same on a GPU, to the bit. All pointers are to device memory; fill_rgb, three values, to the host's.
void launch_resize_letterbox(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                             int32_t canvas_height, int32_t canvas_width, const uint8_t* fill_rgb,
                             uint8_t* canvases, cudaStream_t stream);

}  // namespace rbc
