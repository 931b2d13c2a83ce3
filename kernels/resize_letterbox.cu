#include "resize_letterbox.cuh"

#include "cuda_launch.h"
#include "resize_letterbox.h"

namespace rbc {

size_t resize_letterbox_workspace_bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(Background); }

// A canvas of 640 x 480 from a frame of 1920 x 1440: two of three rows of the frame are read, in
// whole sectors of 32 bytes, 5.5 MB, and 0.9 MB written; 11 float operations a channel make 10
// MFLOP. That is 1.6 operations a byte where an H100 has 20 (67 TFLOP/s over 3.35 TB/s) and a T4 25
// (8.1 over 0.32): bound by memory, 1.9 us and 20 us. Neighbours share sectors, and the L1 cache
// reads each of them once. The backgrounds before it are a block a frame, 256 sectors each and 24
// counts over the block, all frames at once: the latency of one load and 24 barriers, some 2 us.
void launch_resize_letterbox(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                             int32_t canvas_height, int32_t canvas_width, float background_level,
                             void* workspace, uint8_t* canvases, cudaStream_t stream) {
  if (count == 0) return;
  require(count <= 65535, "resize_letterbox: a launch takes at most 65535 frames", count);
  auto* backgrounds = static_cast<Background*>(workspace);
  launch(find_background_kernel, dim3(static_cast<unsigned>(count)), dim3(kBackgroundSamples), stream, frames,
         background_level, backgrounds);
  const dim3 block(32, 8);
  const dim3 grid(blocks_for(canvas_width, block.x), blocks_for(canvas_height, block.y),
                  static_cast<unsigned>(count));
  launch(resize_letterbox_kernel, grid, block, stream, frames, resized_hw, canvas_height, canvas_width, backgrounds,
         canvases);
}

}  // namespace rbc
