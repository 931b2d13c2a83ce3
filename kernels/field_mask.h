#pragma once
#include <cstdint>
#include <vector>

#include "components.h"
#include "frame_view.h"

namespace rbc {

// What lies in columns x0 .. x1 - 1 and rows y0 .. y1 - 1.
struct PixelBox {
  int32_t x0, y0, x1, y1;
  int32_t width() const { return x1 - x0; }
  int32_t height() const { return y1 - y0; }
};

// A part of a frame, shrunk: each pixel is the mean of the frame's pixels that it covers.
struct SmallFrame {
  PixelBox box{};  // in the frame
  int32_t height = 0, width = 0;
  std::vector<uint8_t> rgb;

  const uint8_t* row(int32_t y) const { return rgb.data() + static_cast<int64_t>(y) * width * 3; }
};

// Shrinks the box `scale` times, 1 or more. Of the rows under one pixel no more than kMostRows are read, evenly spaced.
constexpr int32_t kMostRows = 8;
SmallFrame shrink_frame(const FrameView& frame, const PixelBox& box, double scale);

// The mean of each pixel and its eight neighbours; the edge's own pixels stand for those outside.
void blur_frame(SmallFrame& frame);

// The part of a frame that shows a smear: all but a black or white surround that holds a corner of the frame and leaves
// one compact part, as the round view of an eyepiece or the bars of a letterbox do. Where there is no surround, `mask`
// stays empty.
struct LitPart {
  bool found = false;
  Mask mask;
};
LitPart find_lit_part(const SmallFrame& frame);

// Densities are in thousandths of a natural logarithm, 0 .. kMostDensity.
constexpr int32_t kMostDensity = 3000;

// The cells of a part of a frame, told from what lies between them.
struct FieldMask {
  uint8_t background[3] = {};     // the median of what lies between the cells
  std::vector<uint16_t> density;  // max over the channels of |log(level / background)|
  int32_t cell_density = 0;       // the median over the cells; 0 if none were found
  int64_t lit = 0;                // pixels of the lit part
  Mask cells;                     // pale centres filled, specks opened away
};
FieldMask mask_cells(const SmallFrame& frame, const Mask& lit, double factor);

// Divides the light out of a blurred frame: a quadratic through the logarithm of what lies between the cells, grown
// from the parts that have the background's level. Vignettes, and lamps out of centre.
void even_light(SmallFrame& frame, const Mask& lit, const uint8_t* background);

}  // namespace rbc
