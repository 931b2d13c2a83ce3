#include "measure_field.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "field_mask.h"
#include "sightings.h"

namespace rbc {
namespace {

// A frame is worked on with this short side, and not many more pixels; then finer and finer, as
// long as the cells on it are too small or, on a large frame, too few agree on their size.
constexpr double kShortSide = 360.0, kMostPixels = 360.0 * 640.0;
constexpr double kFiner = 2.5, kLarge = 4.0, kEnoughPx = 16.0, kFewPx = 10.0, kEnoughAgreement = 0.35;
// a finer level is preferred if its confidence is this many times higher
constexpr double kFinerWorth = 1.25;
constexpr int32_t kMostLevels = 5;
// px a side, up to four of them, of a level that would be too large
constexpr int32_t kWindow = 288;
// If few agree, the light may be uneven; if hardly any do, white cells may have set the threshold
// above red ones.
constexpr double kUnevenAgreement = 0.25, kLowAgreement = 0.15, kFainter = 0.6, kFaintest = 0.3;
// Round components give the size if there are enough of them, or if there are some and the outlines
// agree.
constexpr int32_t kFewRound = 3, kEnoughRound = 8, kFewArcs = 8;
constexpr double kRoundAgrees = 1.16, kAgree = 1.25;

double quantile(std::vector<double>& values, double share) {
  if (values.empty()) return 0.0;
  const auto at = values.begin() + static_cast<int64_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// The size that half of the outlines' length lies below: many platelets weigh less than a few
// cells.
double median_by_length(std::vector<double>& sizes) {
  std::sort(sizes.begin(), sizes.end());
  const double half = std::accumulate(sizes.begin(), sizes.end(), 0.0) / 2;
  double sum = 0.0;
  for (const double size : sizes) {
    sum += size;
    if (sum >= half) return size;
  }
  return 0.0;
}

double spread(std::vector<double>& values, double median) {
  return median > 0.0 ? (quantile(values, 0.75) - quantile(values, 0.25)) / (2 * median) : 0.0;
}

// Parts of the lit box to look at: the whole, or up to four windows, evenly spread.
std::vector<PixelBox> windows_of(const PixelBox& box, double scale) {
  if (box.width() / scale * (box.height() / scale) <= 1.05 * kMostPixels) return {box};
  const auto side = static_cast<int32_t>(kWindow * scale);
  const auto places = [&](int32_t begin, int32_t length) {
    std::vector<int32_t> at;
    const int32_t count = length < 2 * side ? 1 : 2;
    for (int32_t k = 0; k < count; ++k) {
      const int32_t middle = begin + static_cast<int32_t>(static_cast<int64_t>(length) * (2 * k + 1) / (2 * count));
      at.push_back(std::max(begin, middle - side / 2));
    }
    return at;
  };
  std::vector<PixelBox> windows;
  for (const int32_t y : places(box.y0, box.height())) {
    for (const int32_t x : places(box.x0, box.width())) {
      windows.push_back({x, y, std::min(box.x1, x + side), std::min(box.y1, y + side)});
    }
  }
  return windows;
}

// The part of `lit`, a mask of the whole frame, that the window shows.
Mask lit_in(const LitPart& lit, const FrameView& frame, const SmallFrame& window) {
  Mask mask(window.height, window.width, 1);
  if (!lit.found) return mask;
  for (int32_t y = 0; y < window.height; ++y) {
    const double row = window.box.y0 + (y + 0.5) * window.box.height() / window.height;
    const auto from_y = static_cast<int32_t>(row * lit.mask.height / frame.height);
    const uint8_t* from = lit.mask.row(std::min(lit.mask.height - 1, from_y));
    for (int32_t x = 0; x < window.width; ++x) {
      const double column = window.box.x0 + (x + 0.5) * window.box.width() / window.width;
      mask.row(y)[x] = from[std::min(lit.mask.width - 1, static_cast<int32_t>(column * lit.mask.width / frame.width))];
    }
  }
  return mask;
}

double fitting_scale(int32_t height, int32_t width) {
  const double area = static_cast<double>(height) * width;
  return std::max({1.0, std::min(height, width) / kShortSide, std::sqrt(area / kMostPixels)});
}

// The sizes and shares of `seen`, at `scale` frame px per px.
void conclude(Sightings& seen, double scale, FieldMeasure& field) {
  field.scale = scale;
  field.round_count = static_cast<int32_t>(seen.round.size());
  field.round_px = median_by_length(seen.round) * scale;
  field.round_spread = spread(seen.round, field.round_px / scale);
  field.arc_count = static_cast<int32_t>(seen.arcs.size());
  field.arc_px = quantile(seen.arcs, 0.5) * scale;
  field.arc_spread = spread(seen.arcs, field.arc_px / scale);
  const bool arcs = field.arc_count >= kFewArcs;
  const bool agree = field.round_px < kRoundAgrees * field.arc_px && field.arc_px < kRoundAgrees * field.round_px;
  if (arcs && field.round_count < kEnoughRound && !(field.round_count >= kFewRound && agree)) {
    field.from = CellSizeFrom::kOutlines, field.cell_px = field.arc_px;
  } else if (field.round_count) {
    field.from = CellSizeFrom::kRound, field.cell_px = field.round_px;
  }
  const double px = field.cell_px / scale;
  const auto agreeing = std::count_if(seen.arcs.begin(), seen.arcs.end(),
                                      [&](double size) { return size < kAgree * px && size > px / kAgree; });
  field.confidence = seen.starts ? static_cast<double>(agreeing) / static_cast<double>(seen.starts) : 0.0;
  const auto lit = static_cast<double>(std::max<int64_t>(seen.lit_pixels, 1));
  field.foreground = static_cast<double>(seen.cell_pixels) / lit;
  for (int c = 0; c < 3; ++c) {
    double sum = 0.0;
    for (const auto& background : seen.backgrounds) sum += background[c];
    field.background[c] = sum / static_cast<double>(seen.backgrounds.size());
    field.density[c] = seen.density[c] / static_cast<double>(std::max<int64_t>(seen.density_pixels, 1));
  }
  const double step = quantile(seen.edges, 0.5);
  field.edge_px = step > 0.0 ? scale / step : 0.0;
}

// Records the box of the lit part in the frame, and its share of it.
PixelBox measure_lit(const SmallFrame& whole, const FrameView& frame, LitPart& lit, FieldMeasure& field) {
  int64_t count = 0;
  int32_t x0 = whole.width, y0 = whole.height, x1 = 0, y1 = 0;
  for (int32_t y = 0; y < lit.mask.height; ++y) {
    for (int32_t x = 0; x < whole.width; ++x) {
      if (!lit.mask.row(y)[x]) continue;
      ++count;
      x0 = std::min(x0, x), x1 = std::max(x1, x + 1), y0 = std::min(y0, y), y1 = y + 1;
    }
  }
  lit.found = lit.found && count;
  PixelBox box{0, 0, frame.width, frame.height};
  if (lit.found) {
    const auto in_frame = [](int64_t at, int64_t length, int64_t small) {
      return static_cast<int32_t>(at * length / small);
    };
    box = {in_frame(x0, frame.width, whole.width), in_frame(y0, frame.height, whole.height),
           in_frame(x1, frame.width, whole.width), in_frame(y1, frame.height, whole.height)};
    box.x1 = std::max(box.x1, box.x0 + 1), box.y1 = std::max(box.y1, box.y0 + 1);
  }
  field.surround = lit.found;
  field.lit_share = lit.found ? static_cast<double>(count) / static_cast<double>(lit.mask.on.size()) : 1.0;
  field.lit_box = {box.x0, box.y0, box.x1, box.y1};
  return box;
}

struct Part {
  SmallFrame frame;
  Mask lit;
};

struct Attempt {
  FieldMeasure field;
  double worth = -1.0;  // its confidence, and less if cells are tiny
};

// Measures parts of a frame that were shrunk `scale` times: as they are, then in even light, then
// with fainter cells. Changes the parts.
Attempt measure_parts(std::vector<Part>& parts, double scale, const FieldMeasure& empty) {
  Attempt best;
  std::vector<std::array<uint8_t, 3>> backgrounds;
  const auto look = [&](double factor) {
    Sightings seen;
    for (const Part& part : parts) sight_cells(part.frame, part.lit, factor, seen);
    FieldMeasure now = empty;
    conclude(seen, scale, now);
    const bool none = now.from == CellSizeFrom::kNone;
    const double worth = none ? 0.0 : now.cell_px < kFewPx * scale ? now.confidence / 2 : now.confidence;
    if (worth > best.worth) best = {now, worth};
    backgrounds = std::move(seen.backgrounds);
    return seen.any;
  };
  if (!look(1.0)) return best;
  if (best.worth < kUnevenAgreement) {
    for (size_t i = 0; i < parts.size(); ++i) even_light(parts[i].frame, parts[i].lit, backgrounds[i].data());
    look(1.0);
  }
  for (double factor = kFainter; factor > kFaintest && best.worth < kLowAgreement; factor *= kFainter) look(factor);
  return best;
}

}  // namespace

FieldMeasure measure_field_cpu(const FrameView& frame) {
  SmallFrame whole = shrink_frame(frame, {0, 0, frame.width, frame.height}, fitting_scale(frame.height, frame.width));
  LitPart lit = find_lit_part(whole);
  FieldMeasure empty;
  const PixelBox box = measure_lit(whole, frame, lit, empty);
  double scale = fitting_scale(box.height(), box.width());
  Attempt best;
  for (int32_t level = 0; level < kMostLevels; ++level) {
    std::vector<Part> parts;
    if (level == 0 && !lit.found) {
      parts.push_back({std::move(whole), {}});
    } else {
      for (const PixelBox& window : windows_of(box, scale)) parts.push_back({shrink_frame(frame, window, scale), {}});
    }
    for (Part& part : parts) {
      part.lit = lit_in(lit, frame, part.frame);
      blur_frame(part.frame);
    }
    const Attempt now = measure_parts(parts, scale, empty);
    const bool may_win = level == 0 || now.worth >= kLowAgreement || best.field.cell_px < kFewPx * best.field.scale;
    if (may_win && now.worth > kFinerWorth * best.worth) best = now;
    const bool large_enough = now.field.cell_px >= kEnoughPx * scale;
    if (scale <= 1.0 || (large_enough && (scale < kLarge || now.field.confidence >= kEnoughAgreement))) break;
    scale = std::max(1.0, scale / kFiner);
  }
  return best.field;
}

}  // namespace rbc
