#include "field_mask.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "otsu.h"
#include "simd.h"

namespace rbc {
namespace {

// A bright class is split again where it has two modes: its separability is over that of any one
// mode, the brighter part is no speck and clearly brighter. Else red cells pass for the background
// of dark nuclei.
constexpr double kTwoModes = 0.75, kLeastBackground = 0.05, kLeastStep = 1.08;
// The dense class is nuclei, if it is small, or much denser than a fair share of the rest: the
// threshold goes below it.
constexpr double kFewNuclei = 0.12, kFairShare = 0.1, kSomeShare = 0.03, kNucleusTimes = 2.0;
constexpr int32_t kLeastThreshold = 30, kLeastStepDensity = 100, kFewPixels = 20;
constexpr int32_t kDarkest = 8;  // darker levels count as this: their logarithm is noise
constexpr int32_t kDensitySteps = kMostDensity + 1;
// A hole is a cell's pale centre, and no gap between cells, if it is tiny, or fills the ellipse of
// its box.
constexpr int64_t kTinyHole = 12;
constexpr double kRoundHole = 0.75, kQuarterPi = 0.78539816339744831;

using Levels = std::array<int64_t, 256>;

RBC_CLONES
void add_row(const uint8_t* pixels, int32_t count, uint16_t* sums) {
  for (int32_t i = 0; i < count; ++i) sums[i] = static_cast<uint16_t>(sums[i] + pixels[i]);
}

RBC_CLONES
void add_neighbours(const uint8_t* row, int32_t count, uint16_t* sums) {
  for (int32_t i = 0; i < count; ++i) {
    sums[i] = static_cast<uint16_t>(sums[i] + row[i] + row[i + 3] + row[i + 6]);
  }
}

RBC_CLONES
void mean_of_nine(const uint16_t* sums, int32_t count, uint8_t* out) {
  // (s + 4) / 9 for all s up to 9 * 255.
  for (int32_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(((sums[i] + 4u) * 7282u) >> 16);
}

// The density of each level 0 .. 255 relative to the background, in thousandths.
std::array<uint16_t, 256> densities_beside(uint8_t background) {
  std::array<uint16_t, 256> densities;
  for (int32_t level = 0; level < 256; ++level) {
    const double ratio = std::max(level, kDarkest) / static_cast<double>(std::max<int32_t>(background, kDarkest));
    const double density = 1000.0 * std::abs(std::log(ratio)) + 0.5;
    densities[level] = static_cast<uint16_t>(std::min<double>(density, kMostDensity));
  }
  return densities;
}

// Levels and densities are counted on every second row, where there are many.
int32_t statistics_step(const SmallFrame& frame) { return frame.height >= 200 ? 2 : 1; }

int32_t background_threshold(const Levels& green) {
  int64_t total = 0;
  for (const int64_t count : green) total += count;
  OtsuSplit split = split_otsu(green.data(), 0, 256);
  for (int again = 0; again < 2; ++again) {
    const OtsuSplit upper = split_otsu(green.data(), split.threshold, 256);
    const bool two_modes = upper.separability > kTwoModes &&
                           static_cast<double>(upper.above) > kLeastBackground * static_cast<double>(total) &&
                           upper.mean_above > kLeastStep * upper.mean_below;
    if (!two_modes) break;
    split = upper;
  }
  return split.threshold;
}

void find_background(const SmallFrame& frame, const Mask& lit, uint8_t* background) {
  const int32_t step = statistics_step(frame);
  Levels green{};
  for (int32_t y = 0; y < frame.height; y += step) {
    const uint8_t *pixel = frame.row(y) + 1, *shown = lit.row(y);
    for (int32_t x = 0; x < frame.width; ++x) green[pixel[3 * x]] += shown[x];
  }
  const int32_t threshold = background_threshold(green);
  std::array<Levels, 3> levels{};
  int64_t bright = 0;
  for (int32_t y = 0; y < frame.height; y += step) {
    const uint8_t *pixel = frame.row(y), *shown = lit.row(y);
    for (int32_t x = 0; x < frame.width; ++x, pixel += 3) {
      const bool glass = shown[x] & (pixel[1] >= threshold);
      bright += glass;
      for (int c = 0; c < 3; ++c) levels[c][pixel[c]] += glass;
    }
  }
  for (int c = 0; c < 3; ++c) {
    background[c] = static_cast<uint8_t>(bin_of_rank(levels[c].data(), 0, 256, bright / 2));
  }
}

// The density above which a pixel is a cell's: half the median density of cells.
int32_t cell_threshold(const std::vector<int64_t>& counts, int64_t total) {
  const auto share = [&](int64_t part) { return static_cast<double>(part) / static_cast<double>(total); };
  OtsuSplit split = split_otsu(counts.data(), 0, kDensitySteps);
  for (int again = 0; again < 2 && split.threshold; ++again) {
    const OtsuSplit lower = split_otsu(counts.data(), 0, split.threshold);
    const bool few = share(split.above) < kFewNuclei && share(lower.above) > kSomeShare;
    const bool dense = split.mean_above > kNucleusTimes * lower.mean_above && share(lower.above) > kFairShare &&
                       lower.mean_above - lower.mean_below > kLeastStepDensity;
    if (lower.threshold <= kLeastThreshold || !(few || dense)) break;
    split = lower;
  }
  int32_t threshold = split.threshold;
  for (int again = 0; again < 3; ++again) {
    int64_t above = 0;
    for (int32_t bin = threshold; bin < kDensitySteps; ++bin) above += counts[bin];
    if (above < kFewPixels) break;
    threshold = std::max(bin_of_rank(counts.data(), threshold, kDensitySteps, above / 2) / 2, kLeastThreshold);
  }
  return threshold;
}

void fill_pale_centres(Mask& mask) {
  const Components holes = find_components(mask, 0, false);
  std::vector<uint8_t> fill(holes.list.size());
  for (size_t i = 0; i < fill.size(); ++i) {
    const Component& hole = holes.list[i];
    if (hole.x0 == 0 || hole.y0 == 0 || hole.x1 == mask.width || hole.y1 == mask.height) continue;
    const int64_t width = hole.x1 - hole.x0, height = hole.y1 - hole.y0;
    const double ellipse = kQuarterPi * static_cast<double>(width * height);
    const bool round = static_cast<double>(hole.area) > kRoundHole * ellipse &&
                       std::max(width, height) < 2 * std::min(width, height);
    fill[i] = hole.area <= kTinyHole || round;
  }
  for (const Run& run : holes.runs) {
    if (fill[run.component]) std::memset(mask.row(run.y) + run.x0, 1, run.x1 - run.x0);
  }
}

}  // namespace

SmallFrame shrink_frame(const FrameView& frame, const PixelBox& box, double scale) {
  SmallFrame small;
  small.box = box;
  small.height = std::max(1, static_cast<int32_t>(std::lround(box.height() / scale)));
  small.width = std::max(1, static_cast<int32_t>(std::lround(box.width() / scale)));
  small.rgb.resize(static_cast<size_t>(small.height) * small.width * 3);
  const auto edge = [](int32_t at, int32_t length, int32_t pixels) {
    return static_cast<int32_t>(static_cast<int64_t>(at) * length / pixels);
  };
  std::vector<int32_t> columns(small.width + 1);
  for (int32_t x = 0; x <= small.width; ++x) columns[x] = 3 * edge(x, box.width(), small.width);
  std::vector<uint16_t> sums(static_cast<size_t>(box.width()) * 3);
  for (int32_t y = 0; y < small.height; ++y) {
    const int32_t top = edge(y, box.height(), small.height), bottom = edge(y + 1, box.height(), small.height);
    const int32_t rows = std::min(bottom - top, kMostRows);
    std::fill(sums.begin(), sums.end(), uint16_t{0});
    for (int32_t r = 0; r < rows; ++r) {
      const int64_t from = box.y0 + top + static_cast<int64_t>(2 * r + 1) * (bottom - top) / (2 * rows);
      add_row(frame.pixels + from * frame.row_bytes + static_cast<int64_t>(3) * box.x0, 3 * box.width(), sums.data());
    }
    uint8_t* out = small.rgb.data() + static_cast<int64_t>(y) * small.width * 3;
    for (int32_t x = 0; x < small.width; ++x, out += 3) {
      int32_t red = 0, green = 0, blue = 0;
      for (int32_t k = columns[x]; k < columns[x + 1]; k += 3) {
        red += sums[k], green += sums[k + 1], blue += sums[k + 2];
      }
      const float share = 3.0f / static_cast<float>(rows * (columns[x + 1] - columns[x]));
      out[0] = static_cast<uint8_t>(static_cast<float>(red) * share + 0.5f);
      out[1] = static_cast<uint8_t>(static_cast<float>(green) * share + 0.5f);
      out[2] = static_cast<uint8_t>(static_cast<float>(blue) * share + 0.5f);
    }
  }
  return small;
}

void blur_frame(SmallFrame& frame) {
  const int32_t count = 3 * frame.width;
  const auto padded = static_cast<size_t>(count) + 6;
  // with the edge's pixels once more on every side
  std::vector<uint8_t> rows(padded * (frame.height + 2));
  for (int32_t y = 0; y < frame.height + 2; ++y) {
    const uint8_t* from = frame.row(std::clamp(y - 1, 0, frame.height - 1));
    uint8_t* to = rows.data() + padded * y;
    std::memcpy(to, from, 3);
    std::memcpy(to + 3, from, count);
    std::memcpy(to + 3 + count, from + count - 3, 3);
  }
  std::vector<uint16_t> sums(count);
  for (int32_t y = 0; y < frame.height; ++y) {
    std::fill(sums.begin(), sums.end(), uint16_t{0});
    for (int32_t r = 0; r < 3; ++r) add_neighbours(rows.data() + padded * (y + r), count, sums.data());
    mean_of_nine(sums.data(), count, frame.rgb.data() + static_cast<int64_t>(y) * count);
  }
}

FieldMask mask_cells(const SmallFrame& frame, const Mask& lit, double factor) {
  const int64_t count = static_cast<int64_t>(frame.height) * frame.width;
  FieldMask field;
  field.density.resize(count);
  field.cells = Mask(frame.height, frame.width);
  find_background(frame, lit, field.background);
  std::array<std::array<uint16_t, 256>, 3> table;
  for (int c = 0; c < 3; ++c) table[c] = densities_beside(field.background[c]);
  std::vector<int64_t> counts(kDensitySteps);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* pixel = frame.rgb.data() + 3 * i;
    field.density[i] = std::max({table[0][pixel[0]], table[1][pixel[1]], table[2][pixel[2]]});
  }
  field.lit = std::accumulate(lit.on.begin(), lit.on.end(), int64_t{0});
  int64_t total = 0;
  for (int32_t y = 0; y < frame.height; y += statistics_step(frame)) {
    const int64_t row = static_cast<int64_t>(y) * frame.width;
    for (int64_t i = row; i < row + frame.width; ++i) counts[field.density[i]] += lit.on[i], total += lit.on[i];
  }
  if (!total) return field;
  const auto threshold = static_cast<int32_t>(std::max(factor * cell_threshold(counts, total), 1.0 * kLeastThreshold));
  int64_t above = 0;
  for (int32_t bin = threshold; bin < kDensitySteps; ++bin) above += counts[bin];
  if (above < kFewPixels) return field;
  field.cell_density = bin_of_rank(counts.data(), threshold, kDensitySteps, above / 2);
  for (int64_t i = 0; i < count; ++i) field.cells.on[i] = (field.density[i] >= threshold) & lit.on[i];
  fill_pale_centres(field.cells);
  open_mask(field.cells, std::max<int32_t>(1, std::lround(std::min(frame.height, frame.width) / 200.0)));
  return field;
}

}  // namespace rbc
