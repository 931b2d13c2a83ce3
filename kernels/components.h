#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace rbc {

// A binary picture, 0 or 1 a pixel, row by row.
struct Mask {
  int32_t height = 0, width = 0;
  std::vector<uint8_t> on;

  Mask() = default;
  Mask(int32_t rows, int32_t columns, uint8_t value = 0)
      : height(rows), width(columns), on(static_cast<size_t>(rows) * columns, value) {}
  uint8_t* row(int32_t y) { return on.data() + static_cast<int64_t>(y) * width; }
  const uint8_t* row(int32_t y) const { return on.data() + static_cast<int64_t>(y) * width; }
  // Nothing is on outside.
  bool at(int32_t y, int32_t x) const { return y >= 0 && x >= 0 && y < height && x < width && row(y)[x]; }
};

// Pixels x0 .. x1 - 1 of one row, and the component that they belong to.
struct Run {
  int32_t y, x0, x1, component;
};

struct Component {
  int32_t x0, y0, x1, y1;  // its box; x1, y1 just past its last pixel
  int64_t area;
};

// The connected components of a mask in the order in which a row-by-row scan meets them.
struct Components {
  std::vector<Run> runs;  // row by row, from left to right
  std::vector<Component> list;
};

// Of the pixels that have `value`. Neighbours are four, or eight with diagonals.
Components find_components(const Mask& mask, uint8_t value, bool diagonals);

// Erodes, then dilates by the cross of one pixel, `times` each. What lies outside is neither eaten from nor grown into.
void open_mask(Mask& mask, int32_t times);

}  // namespace rbc
