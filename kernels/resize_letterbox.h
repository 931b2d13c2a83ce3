#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda_stream.h"
#include "frame_view.h"

namespace rbc {

// Resizes every frame (plain bilinear) to resized_hw[n] = {height, width}, multiplies its levels so
// that its background (background.h) has the mean level `background_level`, rounds to uint8, places
// it at the top left of canvas n and fills the rest with that background: a margin of another
// colour would hide the cells that the frame's edge cuts.
//   resized_hw        int32 [count, 2], each within the canvas
//   background_level  of a canvas, 1..255, or 0 for unchanged levels
//   canvases          uint8 [count, canvas_height, canvas_width, 3], contiguous, written whole
void resize_letterbox_cpu(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                          int32_t canvas_height, int32_t canvas_width, float background_level,
                          uint8_t* canvases, int threads);

size_t resize_letterbox_workspace_bytes(int64_t count);

// The same on a GPU, to the bit, in two launches. All pointers are to device memory.
//   workspace  resize_letterbox_workspace_bytes(count), aligned to 16
void launch_resize_letterbox(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                             int32_t canvas_height, int32_t canvas_width, float background_level,
                             void* workspace, uint8_t* canvases, cudaStream_t stream);

}  // namespace rbc
