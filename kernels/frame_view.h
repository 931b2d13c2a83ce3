#pragma once
#include <cstdint>

namespace rbc {

// A borrowed uint8 RGB frame, interleaved [height, width, 3]; rows start row_bytes apart.
struct FrameView {
  const uint8_t* pixels;
  int32_t height;
  int32_t width;
  int64_t row_bytes;
};
static_assert(sizeof(FrameView) == 24);  // as Python makes tables of them for the GPU

}  // namespace rbc
