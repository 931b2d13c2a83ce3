#include "roi_align.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"
#include "roi.h"

namespace rbc {
namespace {

constexpr int32_t kLane = 4;  // floats blended at a time: a constant, so that the compiler makes vectors of them

// All boxes are pooled over this many channels before the next ones are touched: a few planes stay in cache,
// and boxes that overlap, as proposals do, find their pixels there. Twice as fast as box by box.
constexpr int32_t kChannelBlock = 8;

// One axis of one box: for each bin, the pixels that it averages and their weights. The mean of bilinear samples
// on a grid is separable, so rows are blended first, and then columns: not four pixels for every sample.
struct AxisTaps {
  int32_t first;  // pixels first .. first + span - 1 are read
  int32_t span;
  int32_t taps;                  // of one bin
  std::vector<int32_t> offsets;  // [bins, taps], pixels from `first` on
  std::vector<float> weights;    // [bins, taps]

  AxisTaps(const RoiAxis& axis, int32_t bins, int32_t samples, int32_t size) : taps(2 * samples) {
    offsets.reserve(static_cast<size_t>(bins) * taps);
    weights.reserve(static_cast<size_t>(bins) * taps);
    int32_t last = 0;
    first = size - 1;
    for (int32_t bin = 0; bin < bins; ++bin) {
      for (int32_t sample = 0; sample < samples; ++sample) {
        const RoiTap tap = roi_tap(axis, bin, sample, samples, size);
        first = std::min(first, tap.low), last = std::max(last, tap.high);
        offsets.push_back(tap.low), weights.push_back(tap.low_weight / static_cast<float>(samples));
        offsets.push_back(tap.high), weights.push_back(tap.high_weight / static_cast<float>(samples));
      }
    }
    // Whole lanes where the row is long enough, reaching back rather than past its end.
    span = std::min((last - first + kLane) / kLane * kLane, size);
    first = std::min(first, size - span);
    for (int32_t& offset : offsets) offset -= first;
  }
};

struct Roi {
  int64_t row;
  int32_t level;
  AxisTaps down, across;
};

// line[x] = weighted sum of the rows of one bin, over the columns that `across` reads.
void blend_rows(const float* plane, int32_t width, const Roi& roi, int32_t bin, float* line) {
  const int32_t taps = roi.down.taps, span = roi.across.span;
  const int32_t* row = roi.down.offsets.data() + bin * taps;
  const float* weight = roi.down.weights.data() + bin * taps;
  const float* corner = plane + static_cast<int64_t>(roi.down.first) * width + roi.across.first;
  int32_t x = 0;
  for (; x + kLane <= span; x += kLane) {
    float sum[kLane] = {};
    for (int32_t k = 0; k < taps; ++k) {
      const float* pixels = corner + static_cast<int64_t>(row[k]) * width + x;
      for (int32_t i = 0; i < kLane; ++i) sum[i] += weight[k] * pixels[i];
    }
    for (int32_t i = 0; i < kLane; ++i) line[x + i] = sum[i];
  }
  for (; x < span; ++x) {
    line[x] = 0.0f;
    for (int32_t k = 0; k < taps; ++k) line[x] += weight[k] * corner[static_cast<int64_t>(row[k]) * width + x];
  }
}

void pool_plane(const float* plane, int32_t width, const Roi& roi, int32_t bins, float* line, float* out) {
  for (int32_t y = 0; y < bins; ++y) {
    blend_rows(plane, width, roi, y, line);
    const int32_t* offset = roi.across.offsets.data();
    const float* weight = roi.across.weights.data();
    for (int32_t x = 0; x < bins; ++x) {
      float sum = 0.0f;
      for (int32_t k = 0; k < roi.across.taps; ++k) sum += *weight++ * line[*offset++];
      *out++ = sum;
    }
  }
}

}  // namespace

void roi_align_cpu(const FeatureLevel* levels, int32_t level_count, int64_t images, int32_t channels,
                   const Box* boxes, const int32_t* counts, int64_t slots, const RoiAlignSettings& settings,
                   float* pooled, int threads) {
  const int32_t bins = settings.output_size, samples = settings.sampling_ratio;
  const int64_t row_floats = static_cast<int64_t>(channels) * bins * bins;
  std::vector<int64_t> rows;  // those with a box
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t k = 0; k < counts[n]; ++k) rows.push_back(n * slots + k);
    std::fill(pooled + (n * slots + counts[n]) * row_floats, pooled + (n + 1) * slots * row_floats, 0.0f);
  }
  parallel_for(static_cast<int64_t>(rows.size()), threads, [&](int64_t begin, int64_t end) {
    std::vector<Roi> rois;
    rois.reserve(end - begin);
    int32_t longest = 0;
    for (int64_t i = begin; i < end; ++i) {
      const Box& box = boxes[rows[i]];
      const int32_t l =
          roi_level(box, settings.canonical_px, settings.canonical_level, settings.finest_level, level_count);
      const float scale = ldexpf(1.0f, -(settings.finest_level + l));
      rois.push_back({rows[i], l, AxisTaps(roi_axis(box.y0, box.y1, scale, bins), bins, samples, levels[l].height),
                      AxisTaps(roi_axis(box.x0, box.x1, scale, bins), bins, samples, levels[l].width)});
      longest = std::max(longest, rois.back().across.span);
    }
    std::vector<float> line(longest);
    for (int32_t block = 0; block < channels; block += kChannelBlock) {
      const int32_t block_end = std::min(block + kChannelBlock, channels);
      for (const Roi& roi : rois) {
        const FeatureLevel& level = levels[roi.level];
        const int64_t plane_floats = static_cast<int64_t>(level.height) * level.width;
        const float* planes = level.features + roi.row / slots * channels * plane_floats;
        float* out = pooled + roi.row * row_floats;
        for (int32_t c = block; c < block_end; ++c) {
          pool_plane(planes + c * plane_floats, level.width, roi, bins, line.data(), out + c * bins * bins);
        }
      }
    }
  });
}

}  // namespace rbc
