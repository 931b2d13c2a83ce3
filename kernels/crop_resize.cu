#include "crop_resize.cuh"

#include "crop_resize.h"
#include "cuda_launch.h"

namespace rbc {

// A patch of 64 x 64 from a window of 192 x 192: 111 kB of the frame read once from memory,
// neighbouring windows mostly from L2, and 25 kB of fp16 written. A pixel has about 6 x 6 taps of 3
// channels at 3 operations, and for each row of taps 3 divisions of some 8: 2 MFLOP a patch, or 15
// operations a byte, where the chips' ceilings meet at 20 (H100) to 25 (T4). With the integer work
// around each tap both are near: of the order of 0.1 us a patch on an H100, 1 us on a T4. Rows and
// columns in two passes would halve the arithmetic, at the cost of a buffer; the trunk takes ten
// times as long.
template <typename T>
void launch_crop_resize(const FrameView* frames, const float* windows, const int32_t* frame_index, int64_t count,
                        int32_t size, const float* mean, const float* std, T* patches, cudaStream_t stream) {
  if (count == 0) return;
  const int64_t tiles = blocks_for(size, kCropTile), blocks = count * tiles * tiles;
  require(blocks <= INT32_MAX, "crop_resize: patches times tiles of 16 x 16 px must be at most 2147483647", blocks);
  const CropOptions options{size, {mean[0], mean[1], mean[2]}, {std[0], std[1], std[2]}};
  launch(crop_resize_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kCropTile, kCropTile), stream, frames,
         windows, frame_index, options, patches);
}

template void launch_crop_resize(const FrameView*, const float*, const int32_t*, int64_t, int32_t, const float*,
                                 const float*, float*, cudaStream_t);
template void launch_crop_resize(const FrameView*, const float*, const int32_t*, int64_t, int32_t, const float*,
                                 const float*, Half*, cudaStream_t);

}  // namespace rbc
