#include "sightings.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "outlines.h"

namespace rbc {
namespace {

// Oval components: area over the ellipse of their moments, long axis over short axis, sides of the box.
constexpr double kOval = 0.965, kMostAspect = 2.0, kLeastSidePx = 6.0;
// Density over that of all cells: white cells and platelets are denser than red ones.
constexpr double kMostDensityTimes = 1.5, kLeastDensityTimes = 0.3;
constexpr double kPi = 3.14159265358979324;
constexpr int32_t kBorder = 2;  // px from the edge of what is lit

// The mean density on a disc of 0.7 times the radius: at its middle and on two rings of eight.
double disc_density(const FieldMask& field, const Arc& arc) {
  constexpr double kHalf = 0.70710678118654752;
  constexpr double kCos[8] = {1, kHalf, 0, -kHalf, -1, -kHalf, 0, kHalf};
  int64_t sum = 0, count = 0;
  const auto add = [&](double x, double y) {
    const auto row = static_cast<int64_t>(std::floor(y)), column = static_cast<int64_t>(std::floor(x));
    if (row < 0 || column < 0 || row >= field.cells.height || column >= field.cells.width) return;
    sum += field.density[row * field.cells.width + column], ++count;
  };
  add(arc.x, arc.y);
  for (const double ring : {0.35, 0.7}) {
    for (int k = 0; k < 8; ++k) add(arc.x + ring * arc.radius * kCos[k], arc.y + ring * arc.radius * kCos[(k + 6) % 8]);
  }
  return count ? static_cast<double>(sum) / static_cast<double>(count) : 0.0;
}

// Area and moments of a component, around its middle.
struct Moments {
  double area = 0, x = 0, y = 0, xx = 0, xy = 0, yy = 0, density = 0;
  bool whole = true;
};

// Whether a component is an ellipse, by its area and the ellipse of its moments: pi a b against 4 pi sqrt(det).
bool is_oval(const Moments& sums) {
  const double x = sums.x / sums.area, y = sums.y / sums.area;
  const double xx = sums.xx / sums.area - x * x, yy = sums.yy / sums.area - y * y, xy = sums.xy / sums.area - x * y;
  const double determinant = xx * yy - xy * xy, half = (xx + yy) / 2;
  if (!(determinant > 0.0)) return false;
  const double reach = std::sqrt(std::max(half * half - determinant, 0.0));
  return sums.area > kOval * 4 * kPi * std::sqrt(determinant) &&
         half + reach < kMostAspect * kMostAspect * (half - reach);
}

void see_round(const FieldMask& field, const Mask& clear, Sightings& seen) {
  const Components found = find_components(field.cells, 1, true);
  std::vector<Moments> sums(found.list.size());
  for (const Run& run : found.runs) {
    const int64_t row = static_cast<int64_t>(run.y) * field.cells.width;
    Moments& part = sums[run.component];
    const Component& box = found.list[run.component];
    // From the corner of its box: whole numbers, as exact in any order. Pixels are squares, not points.
    const double count = run.x1 - run.x0, first = run.x0 - box.x0, y = run.y - box.y0;
    const double x = count * (2 * first + count - 1) / 2;
    part.area += count, part.x += x, part.y += count * y;
    part.xx += count * first * first + first * count * (count - 1) + (count - 1) * count * (2 * count - 1) / 6;
    part.xx += count / 12;
    part.xy += x * y, part.yy += count * (y * y + 1.0 / 12);
    const auto from = field.density.begin() + row;
    part.density += static_cast<double>(std::accumulate(from + run.x0, from + run.x1, int64_t{0}));
    if (std::memchr(clear.on.data() + row + run.x0, 0, run.x1 - run.x0)) part.whole = false;
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    const Component& box = found.list[i];
    const double width = box.x1 - box.x0, height = box.y1 - box.y0;
    if (sums[i].whole && std::min(width, height) >= kLeastSidePx && is_oval(sums[i]) &&
        sums[i].density < kMostDensityTimes * field.cell_density * sums[i].area) {
      seen.round.push_back(std::sqrt(width * height));
    }
  }
}

// How steep the edges of cells are: the step of density across the mask's outline, from pixel to pixel.
void see_edges(const FieldMask& field, const Mask& lit, Sightings& seen) {
  const int32_t width = field.cells.width;
  for (int32_t y = 0; y < field.cells.height; y += 2) {
    const uint8_t* row = field.cells.row(y);
    const uint16_t* density = field.density.data() + static_cast<int64_t>(y) * width;
    for (int32_t x = 1; x < width; ++x) {
      if (row[x] == row[x - 1] || !lit.row(y)[x] || !lit.row(y)[x - 1]) continue;
      const double step = std::abs(static_cast<double>(density[x]) - density[x - 1]);
      seen.edges.push_back(step / field.cell_density);
    }
  }
}

void see_densities(const SmallFrame& frame, const FieldMask& field, Sightings& seen) {
  // Millionths: sums of whole numbers are the same in any order.
  int64_t table[256];
  for (int32_t level = 0; level < 256; ++level) table[level] = std::lround(1e6 * std::log10(std::max(level, 1)));
  int64_t sums[3] = {};
  int64_t count = 0;
  for (size_t i = 0; i < field.density.size(); ++i) {
    seen.cell_pixels += field.cells.on[i];
    if (!field.cells.on[i] || field.density[i] >= kMostDensityTimes * field.cell_density) continue;
    for (int c = 0; c < 3; ++c) sums[c] += table[frame.rgb[3 * i + c]];
    ++count;
  }
  for (int c = 0; c < 3; ++c) {
    seen.density[c] += 1e-6 * static_cast<double>(count * table[field.background[c]] - sums[c]);
  }
  seen.density_pixels += count;
}

}  // namespace

void sight_cells(const SmallFrame& frame, const Mask& lit, double factor, Sightings& seen) {
  const FieldMask field = mask_cells(frame, lit, factor);
  seen.lit_pixels += field.lit;
  std::copy_n(field.background, 3, seen.backgrounds.emplace_back().begin());
  if (!field.cell_density) return;
  seen.any = true;
  see_densities(frame, field, seen);
  Mask clear = lit;
  for (int32_t y = 0; y < clear.height; ++y) {
    const bool edge = y < kBorder || y >= clear.height - kBorder;
    const int32_t margin = edge ? clear.width : std::min(kBorder, clear.width);
    std::fill_n(clear.row(y), margin, uint8_t{0});
    std::fill_n(clear.row(y) + clear.width - margin, margin, uint8_t{0});
  }
  see_round(field, clear, seen);
  see_edges(field, lit, seen);
  const OutlineArcs outlines = fit_outlines(field.cells, clear);
  seen.starts += outlines.starts;
  for (const Arc& arc : outlines.arcs) {
    const double density = disc_density(field, arc);
    if (density > kLeastDensityTimes * field.cell_density && density < kMostDensityTimes * field.cell_density) {
      seen.arcs.push_back(2.0 * arc.radius);
    }
  }
}

}  // namespace rbc
