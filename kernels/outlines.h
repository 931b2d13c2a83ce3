#pragma once
#include <cstdint>
#include <vector>

#include "components.h"

namespace rbc {

// The circle that a stretch of an outline lies on: least squares of the squared distances (Kasa 1976, IEEE Trans.
// Instrum. Meas. 25:8).
struct Arc {
  double x, y, radius;  // px; pixel (0, 0) lies between 0 and 1
};

struct OutlineArcs {
  std::vector<Arc> arcs;
  int64_t starts = 0;  // places on outlines from which an arc was sought
};

// Walks along every outline of the mask. From each fourth place the longest stretch that lies on a circle gives an arc,
// if it turns by 1.7 radians or more and its circle's centre is on the mask's side: cells that touch, overlap or are
// cut off give the arcs that show of them. Outlines end where the mask leaves `clear`.
OutlineArcs fit_outlines(const Mask& mask, const Mask& clear);

}  // namespace rbc
