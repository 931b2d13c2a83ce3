#pragma once
// Boxes: decoding, clipping, overlap. Every operation rounds to float once and in torchvision's
// order, so that CPU, CUDA (built with -fmad=false) and torchvision decide alike.
#include <cmath>

#include "hd.h"

namespace rbc {

// x0 y0 x1 y1 in pixels; laid out as four floats of a [..., 4] array.
struct Box {
  float x0, y0, x1, y1;
};

// exp, correctly rounded but for one argument in many millions: float versions differ between
// libraries.
RBC_HD_CALL float exp_rounded(float x) { return static_cast<float>(exp(static_cast<double>(x))); }

// Moves and scales `anchor` by the deltas of a box head, their weights already divided out. NaN in,
// NaN out.
RBC_HD Box decode_box(const Box& anchor, float dx, float dy, float dw, float dh) {
  const float most = 4.135166556742356f;  // log(1000 / 16): a box grows by no more than this factor
  const float width = anchor.x1 - anchor.x0, height = anchor.y1 - anchor.y0;
  const float centre_x = dx * width + (anchor.x0 + 0.5f * width);
  const float centre_y = dy * height + (anchor.y0 + 0.5f * height);
  const float half_width = 0.5f * (exp_rounded(dw > most ? most : dw) * width);
  const float half_height = 0.5f * (exp_rounded(dh > most ? most : dh) * height);
  return {centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height};
}

// `value` within 0..limit; NaN stays NaN.
RBC_HD float clip(float value, float limit) { return value < 0.0f ? 0.0f : value > limit ? limit : value; }

RBC_HD Box clip_box(const Box& box, float height, float width) {
  return {clip(box.x0, width), clip(box.y0, height), clip(box.x1, width), clip(box.y1, height)};
}

// Both sides are at least this long; false if a coordinate is NaN.
RBC_HD bool sides_at_least(const Box& box, float side_px) {
  return box.x1 - box.x0 >= side_px && box.y1 - box.y0 >= side_px;
}

RBC_HD float box_area(const Box& box) { return (box.x1 - box.x0) * (box.y1 - box.y0); }

// Intersection over union; the areas are passed in because they are used many times.
RBC_HD float box_iou(const Box& a, float area_a, const Box& b, float area_b) {
  const float width = (a.x1 < b.x1 ? a.x1 : b.x1) - (a.x0 > b.x0 ? a.x0 : b.x0);
  const float height = (a.y1 < b.y1 ? a.y1 : b.y1) - (a.y0 > b.y0 ? a.y0 : b.y0);
  const float shared = (width > 0.0f ? width : 0.0f) * (height > 0.0f ? height : 0.0f);
  return shared / (area_a + area_b - shared);
}

}  // namespace rbc
