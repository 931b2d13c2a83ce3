#include <algorithm>
#include <array>
#include <cmath>

#include "field_mask.h"
#include "otsu.h"

namespace rbc {
namespace {

constexpr int32_t kBlackMost = 50, kWhiteLeast = 250;
// Of the bright level, tried in turn: light strays into a surround.
constexpr double kBlackShares[] = {0.22, 0.35, 0.5};
constexpr double kDimShare = 0.5;     // of the bright level: where a vignette ends
// shares of the frame
constexpr double kLeastPiece = 0.002, kLeastSurround = 0.015, kLeastLit = 0.004;
constexpr double kMostOfRest = 0.6;   // share of the rest, without the surround, in one part
// perimeter squared over 4 pi area, along pixel edges: 1.3 a square, 1.6 a disc
constexpr double kCompact = 2.5;
constexpr int32_t kMargin = 2;        // px in from the surround
constexpr double kFourPi = 12.566370614359172;
constexpr double kGlassAtRim = 0.2, kLeastStep = 1.08;

int32_t brightest(const uint8_t* pixel) { return std::max({pixel[0], pixel[1], pixel[2]}); }
int32_t darkest(const uint8_t* pixel) { return std::min({pixel[0], pixel[1], pixel[2]}); }

// Grey level that 98 of 100 pixels do not exceed in any channel.
int32_t bright_level(const SmallFrame& frame) {
  std::array<int64_t, 256> counts{};
  const int64_t count = static_cast<int64_t>(frame.height) * frame.width;
  for (int64_t i = 0; i < count; ++i) ++counts[brightest(frame.rgb.data() + 3 * i)];
  return bin_of_rank(counts.data(), 0, 256, count * 98 / 100);
}

template <typename Test>
Mask mask_where(const SmallFrame& frame, Test&& test) {
  Mask mask(frame.height, frame.width);
  for (size_t i = 0; i < mask.on.size(); ++i) mask.on[i] = test(frame.rgb.data() + 3 * i);
  return mask;
}

// Keeps the components for which keep(component, mask of them) holds.
template <typename Keep>
void keep_components(Mask& mask, const Components& found, Keep&& keep) {
  std::fill(mask.on.begin(), mask.on.end(), uint8_t{0});
  for (const Run& run : found.runs) {
    if (keep(run.component)) std::fill(mask.row(run.y) + run.x0, mask.row(run.y) + run.x1, uint8_t{1});
  }
}

// Leaves what holds a corner of the frame. Returns its share of the frame.
double keep_corners(Mask& mask) {
  const Components found = find_components(mask, 1, false);
  std::vector<uint8_t> corner(found.list.size());
  for (const Run& run : found.runs) {
    const bool edge_row = run.y == 0 || run.y == mask.height - 1;
    if (edge_row && (run.x0 == 0 || run.x1 == mask.width)) corner[run.component] = 1;
  }
  const auto all = static_cast<double>(mask.on.size());
  double area = 0.0;
  for (size_t i = 0; i < corner.size(); ++i) {
    corner[i] = corner[i] && static_cast<double>(found.list[i].area) >= kLeastPiece * all;
    if (corner[i]) area += static_cast<double>(found.list[i].area);
  }
  keep_components(mask, found, [&](int32_t component) { return corner[component]; });
  return area / all;
}

// The largest part of what is not surround; empty if it is small, not most of the rest or not
// compact.
Mask compact_rest(const Mask& surround) {
  Mask rest = surround;
  for (uint8_t& on : rest.on) on ^= 1;
  const Components found = find_components(rest, 1, false);
  int64_t all = 0, largest = -1;
  for (size_t i = 0; i < found.list.size(); ++i) {
    all += found.list[i].area;
    if (largest < 0 || found.list[i].area > found.list[largest].area) largest = static_cast<int64_t>(i);
  }
  if (largest < 0) return {};
  const auto area = static_cast<double>(found.list[largest].area);
  if (area < kMostOfRest * static_cast<double>(all)) return {};
  if (area < kLeastLit * static_cast<double>(rest.on.size())) return {};
  keep_components(rest, found, [&](int32_t component) { return component == largest; });
  int64_t perimeter = 0;
  for (int32_t y = 0; y < rest.height; ++y) {
    for (int32_t x = 0; x < rest.width; ++x) {
      if (!rest.row(y)[x]) continue;
      perimeter += !rest.at(y, x - 1) + !rest.at(y, x + 1) + !rest.at(y - 1, x) + !rest.at(y + 1, x);
    }
  }
  if (static_cast<double>(perimeter * perimeter) > kCompact * kFourPi * area) return {};
  return rest;
}

// Adds pixels darker than `dim` that touch the surround: the edge of a vignette.
void grow_dim(Mask& surround, const SmallFrame& frame, int32_t dim) {
  Mask dark = mask_where(frame, [&](const uint8_t* pixel) { return brightest(pixel) < dim; });
  for (size_t i = 0; i < dark.on.size(); ++i) dark.on[i] |= surround.on[i];
  const Components found = find_components(dark, 1, false);
  std::vector<uint8_t> touches(found.list.size());
  for (const Run& run : found.runs) {
    if (std::any_of(surround.row(run.y) + run.x0, surround.row(run.y) + run.x1, [](uint8_t on) { return on; })) {
      touches[run.component] = 1;
    }
  }
  keep_components(surround, found, [&](int32_t component) { return touches[component]; });
}

// Erodes by `steps` px, but not at the edge of the frame.
Mask shrunk(Mask mask, int32_t steps) {
  for (int32_t step = 0; step < steps; ++step) {
    Mask next = mask;
    for (int32_t y = 0; y < mask.height; ++y) {
      const uint8_t *above = mask.row(std::max(y - 1, 0)), *below = mask.row(std::min(y + 1, mask.height - 1));
      const uint8_t* row = mask.row(y);
      for (int32_t x = 0; x < mask.width; ++x) {
        next.row(y)[x] = row[x] & above[x] & below[x] & row[std::max(x - 1, 0)] & row[std::min(x + 1, mask.width - 1)];
      }
    }
    mask = std::move(next);
  }
  return mask;
}

// Whether glass lies along the rim of the part: a field cut out of white has it there, a cell on
// white has not.
bool glass_at_rim(const SmallFrame& frame, const Mask& part) {
  const Mask outer = shrunk(part, kMargin), inner = shrunk(outer, 3 * kMargin);
  std::array<int64_t, 256> all{}, rim{};
  int64_t rim_count = 0;
  for (size_t i = 0; i < part.on.size(); ++i) {
    if (!outer.on[i]) continue;
    const uint8_t green = frame.rgb[3 * i + 1];
    ++all[green];
    if (!inner.on[i]) ++rim[green], ++rim_count;
  }
  const OtsuSplit split = split_otsu(all.data(), 0, 256);
  if (!split.threshold || split.mean_above < kLeastStep * split.mean_below) return false;
  int64_t bright = 0;
  for (int32_t level = split.threshold; level < 256; ++level) bright += rim[level];
  return static_cast<double>(bright) >= kGlassAtRim * static_cast<double>(rim_count);
}

}  // namespace

LitPart find_lit_part(const SmallFrame& frame) {
  const int32_t rows[2] = {0, frame.height - 1}, columns[2] = {0, frame.width - 1};
  bool black_corner = false, white_corner = false;
  for (const int32_t y : rows) {
    for (const int32_t x : columns) {
      black_corner |= brightest(frame.row(y) + 3 * x) <= kBlackMost;
      white_corner |= darkest(frame.row(y) + 3 * x) >= kWhiteLeast;
    }
  }
  LitPart lit;
  if (!black_corner && !white_corner) return lit;
  const int32_t bright = bright_level(frame);
  for (const double share : kBlackShares) {
    if (!black_corner) break;
    const auto black = static_cast<int32_t>(share * bright);
    Mask surround = mask_where(frame, [&](const uint8_t* pixel) { return brightest(pixel) <= black; });
    if (keep_corners(surround) < kLeastSurround) continue;
    Mask part = compact_rest(surround);
    if (part.on.empty()) continue;
    grow_dim(surround, frame, static_cast<int32_t>(kDimShare * bright));
    for (size_t i = 0; i < part.on.size(); ++i) part.on[i] &= !surround.on[i];
    return {true, shrunk(std::move(part), kMargin)};
  }
  if (!white_corner) return lit;
  Mask surround = mask_where(frame, [&](const uint8_t* pixel) { return darkest(pixel) >= kWhiteLeast; });
  if (keep_corners(surround) < kLeastSurround) return lit;
  Mask part = compact_rest(surround);
  if (part.on.empty() || !glass_at_rim(frame, part)) return lit;
  return {true, shrunk(std::move(part), kMargin)};
}

}  // namespace rbc
