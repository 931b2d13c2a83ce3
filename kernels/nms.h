#pragma once
#include <cstdint>
#include <vector>

#include "box.h"

namespace rbc {

// Greedy non-maximum suppression: takes boxes in their order, best first, and drops every later box
// whose IoU with a taken one exceeds max_iou (0..1). Returns the positions of the first `limit`
// boxes taken, rising. Coordinates must not be NaN.
std::vector<int32_t> nms_cpu(const std::vector<Box>& boxes, float max_iou, int64_t limit);

}  // namespace rbc
