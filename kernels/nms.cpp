#include "nms.h"

#include <algorithm>
#include <numeric>

namespace rbc {
namespace {

// The boxes from left to right, so that those which overlap one box in x lie in one short run.
struct Sweep {
  std::vector<float> x0, y0, x1, y1, area;
  std::vector<float> reach;       // largest x1 up to here: rises, so it can be searched
  std::vector<int32_t> place_of;  // position in the sweep of each box
  std::vector<uint8_t> suppressed;

  explicit Sweep(const std::vector<Box>& boxes) : place_of(boxes.size()), suppressed(boxes.size(), 0) {
    std::vector<int32_t> order(boxes.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return boxes[a].x0 < boxes[b].x0; });
    for (std::vector<float>* column : {&x0, &y0, &x1, &y1, &area, &reach}) column->reserve(boxes.size());
    for (size_t place = 0; place < order.size(); ++place) {
      const Box& box = boxes[order[place]];
      place_of[order[place]] = static_cast<int32_t>(place);
      x0.push_back(box.x0), y0.push_back(box.y0), x1.push_back(box.x1), y1.push_back(box.y1);
      area.push_back(box_area(box));
      reach.push_back(place == 0 ? box.x1 : std::max(reach.back(), box.x1));
    }
  }

  // Also marks boxes that were taken before, and the taken box itself: they are not asked about
  // again.
  void suppress_around(int32_t taken, float max_iou) {
    const Box box{x0[taken], y0[taken], x1[taken], y1[taken]};
    const float taken_area = area[taken];
    const auto begin = std::upper_bound(reach.begin(), reach.end(), box.x0) - reach.begin();
    const auto end = std::lower_bound(x0.begin(), x0.end(), box.x1) - x0.begin();
    for (auto k = begin; k < end; ++k) {
      const float iou = box_iou(box, taken_area, {x0[k], y0[k], x1[k], y1[k]}, area[k]);
      suppressed[k] |= static_cast<uint8_t>(iou > max_iou);
    }
  }
};

}  // namespace

std::vector<int32_t> nms_cpu(const std::vector<Box>& boxes, float max_iou, int64_t limit) {
  Sweep sweep(boxes);
  std::vector<int32_t> taken;
  for (size_t i = 0; i < boxes.size() && static_cast<int64_t>(taken.size()) < limit; ++i) {
    if (sweep.suppressed[sweep.place_of[i]]) continue;
    taken.push_back(static_cast<int32_t>(i));
    sweep.suppress_around(sweep.place_of[i], max_iou);
  }
  return taken;
}

}  // namespace rbc
