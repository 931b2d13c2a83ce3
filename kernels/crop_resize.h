#pragma once
#include <cstdint>

#include "cuda_stream.h"
#include "frame_view.h"
#include "half.h"

namespace rbc {

// Cuts windows out of frames, resizes each to [size, size] with an antialiased triangle filter and
// normalises, in one pass. Pixels outside the frame count as the mean, so they come out as zero.
//   windows      float32 [count, 4] x0 y0 x1 y1 in frame pixels, x1 > x0 and y1 > y0; may leave the
//                frame
//   frame_index  int32 [count], which frame each window belongs to
//   mean, std    float32 [3], in grey levels 0..255
//   patches      float32 [count, 3, size, size]
void crop_resize_cpu(const FrameView* frames, const float* windows, const int32_t* frame_index,
                     int64_t count, int32_t size, const float* mean, const float* std, float* patches,
                     int threads);

// The same on a GPU: float patches to the bit, or rounded to fp16. T is float or Half. All pointers
// are to device memory; mean and std to the host's.
template <typename T>
void launch_crop_resize(const FrameView* frames, const float* windows, const int32_t* frame_index, int64_t count,
                        int32_t size, const float* mean, const float* std, T* patches, cudaStream_t stream);

}  // namespace rbc
