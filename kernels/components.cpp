#include "components.h"

#include <algorithm>
#include <cstring>

#include "simd.h"

namespace rbc {
namespace {

int32_t root_of(std::vector<int32_t>& parents, int32_t run) {
  while (parents[run] != run) run = parents[run] = parents[parents[run]];
  return run;
}

// The first pixel from `x` on that has `value`, or `width`.
int32_t next_of(const uint8_t* row, uint8_t value, int32_t x, int32_t width) {
  const void* found = std::memchr(row + x, value, width - x);
  return found ? static_cast<int32_t>(static_cast<const uint8_t*>(found) - row) : width;
}

// The older run stays root, so that the root of a component is the first of its runs.
void join(std::vector<int32_t>& parents, int32_t a, int32_t b) {
  const int32_t first = root_of(parents, a), second = root_of(parents, b);
  parents[std::max(first, second)] = std::min(first, second);
}

// out = middle and its four neighbours, all on (erode) or any on.
RBC_CLONES
void cross_row(const uint8_t* above, const uint8_t* middle, const uint8_t* below, int32_t width, bool erode,
               uint8_t* out) {
  if (erode) {
    for (int32_t x = 0; x < width; ++x) out[x] = middle[x] & above[x] & below[x];
    for (int32_t x = 1; x < width; ++x) out[x] &= middle[x - 1];
    for (int32_t x = 0; x + 1 < width; ++x) out[x] &= middle[x + 1];
  } else {
    for (int32_t x = 0; x < width; ++x) out[x] = middle[x] | above[x] | below[x];
    for (int32_t x = 1; x < width; ++x) out[x] |= middle[x - 1];
    for (int32_t x = 0; x + 1 < width; ++x) out[x] |= middle[x + 1];
  }
}

}  // namespace

Components find_components(const Mask& mask, uint8_t value, bool diagonals) {
  Components found;
  std::vector<int32_t> parents;
  const int32_t reach = diagonals ? 1 : 0;
  // the first run of the row above that may still touch, and of this row
  size_t above = 0, row_begin = 0;
  for (int32_t y = 0; y < mask.height; ++y) {
    const size_t above_end = found.runs.size();
    above = row_begin, row_begin = above_end;
    const uint8_t* row = mask.row(y);
    for (int32_t x = next_of(row, value, 0, mask.width); x < mask.width;) {
      const int32_t end = next_of(row, value ^ 1, x, mask.width);
      const auto run = static_cast<int32_t>(found.runs.size());
      found.runs.push_back({y, x, end, 0});
      parents.push_back(run);
      while (above < above_end && found.runs[above].x1 + reach <= x) ++above;
      for (size_t k = above; k < above_end && found.runs[k].x0 < end + reach; ++k) {
        join(parents, static_cast<int32_t>(k), run);
      }
      x = next_of(row, value, end, mask.width);
    }
  }
  for (size_t k = 0; k < found.runs.size(); ++k) {
    Run& run = found.runs[k];
    const int32_t root = root_of(parents, static_cast<int32_t>(k));
    if (root == static_cast<int32_t>(k)) {
      run.component = static_cast<int32_t>(found.list.size());
      found.list.push_back({run.x0, run.y, run.x1, run.y + 1, 0});
    } else {
      run.component = found.runs[root].component;
    }
    Component& whole = found.list[run.component];
    whole.x0 = std::min(whole.x0, run.x0), whole.x1 = std::max(whole.x1, run.x1);
    whole.y1 = run.y + 1;
    whole.area += run.x1 - run.x0;
  }
  return found;
}

void open_mask(Mask& mask, int32_t times) {
  Mask next(mask.height, mask.width);
  for (int32_t step = 0; step < 2 * times; ++step) {
    for (int32_t y = 0; y < mask.height; ++y) {
      const uint8_t* above = mask.row(std::max(y - 1, 0));
      const uint8_t* below = mask.row(std::min(y + 1, mask.height - 1));
      cross_row(above, mask.row(y), below, mask.width, step < times, next.row(y));
    }
    mask.on.swap(next.on);
  }
}

}  // namespace rbc
