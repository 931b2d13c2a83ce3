#include "roi_align.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"
#include "roi.h"
#include "simd.h"

namespace rbc {
namespace {

// All boxes are pooled over this many channels before the next ones are touched: those planes, laid
// out pixel by pixel, stay in the cache, boxes that overlap, as proposals do, find their pixels
// there, and a pixel's channels are one vector.
constexpr int32_t kBlock = 8;
using Block = Float8;
static_assert(sizeof(Block) == kBlock * sizeof(float));

// One axis of one box: for each bin, the pixels that it averages and their weights. The mean of
// bilinear samples on a grid is separable, so rows are blended first, and then columns: not four
// pixels for every sample.
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
    span = last - first + 1;
    for (int32_t& offset : offsets) offset -= first;
  }
};

struct Roi {
  int64_t row;
  int32_t level;
  AxisTaps down, across;
};

// Planes [channels, pixels] to blocks [pixels, kBlock], zero beyond the channels that there are.
RBC_CLONES
void interleave(const float* planes, int64_t pixels, int32_t channels, float* blocks) {
  if (channels < kBlock) std::fill(blocks, blocks + pixels * kBlock, 0.0f);
  int64_t i = 0;
  for (; channels == kBlock && i + 4 <= pixels; i += 4) {  // 4 x 4 at a time
    for (int32_t c = 0; c < kBlock; c += 4) {
      Float4 a, b, d, e;
      load(a, planes + c * pixels + i), load(b, planes + (c + 1) * pixels + i);
      load(d, planes + (c + 2) * pixels + i), load(e, planes + (c + 3) * pixels + i);
      const Float4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), de = __builtin_shufflevector(d, e, 0, 4, 1, 5);
      const Float4 ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7), de_high = __builtin_shufflevector(d, e, 2, 6, 3, 7);
      float* to = blocks + i * kBlock + c;
      store(__builtin_shufflevector(ab, de, 0, 1, 4, 5), to);
      store(__builtin_shufflevector(ab, de, 2, 3, 6, 7), to + kBlock);
      store(__builtin_shufflevector(ab_high, de_high, 0, 1, 4, 5), to + 2 * kBlock);
      store(__builtin_shufflevector(ab_high, de_high, 2, 3, 6, 7), to + 3 * kBlock);
    }
  }
  for (; i < pixels; ++i) {
    for (int32_t c = 0; c < channels; ++c) blocks[i * kBlock + c] = planes[c * pixels + i];
  }
}

struct Scratch {
  std::vector<float> line;    // [longest span, kBlock]
  std::vector<float> pooled;  // [bins, bins, kBlock]
};

RBC_INLINE void pool_by(const float* blocks, int32_t width, const Roi& roi, int32_t bins, int32_t taps, float* line,
                        float* pooled) {
  const int32_t span = roi.across.span;
  const float* corner = blocks + (static_cast<int64_t>(roi.down.first) * width + roi.across.first) * kBlock;
  const int64_t row_floats = static_cast<int64_t>(width) * kBlock;
  for (int32_t y = 0; y < bins; ++y) {
    const int32_t* row = roi.down.offsets.data() + y * taps;
    const float* down = roi.down.weights.data() + y * taps;
    for (int32_t x = 0; x < span; ++x) {
      Block sum = {};
      for (int32_t k = 0; k < taps; ++k) {
        Block pixel;
        load(pixel, corner + row[k] * row_floats + x * kBlock);
        sum += down[k] * pixel;
      }
      store(sum, line + x * kBlock);
    }
    const int32_t* offset = roi.across.offsets.data();
    const float* across = roi.across.weights.data();
    for (int32_t x = 0; x < bins; ++x, offset += taps, across += taps) {
      Block sum = {};
      for (int32_t k = 0; k < taps; ++k) {
        Block pixel;
        load(pixel, line + offset[k] * kBlock);
        sum += across[k] * pixel;
      }
      store(sum, pooled + (y * bins + x) * kBlock);
    }
  }
}

// One box over one block of channels. out: [channels, bins, bins].
RBC_CLONES
void pool_block(const float* blocks, int32_t width, const Roi& roi, int32_t bins, int32_t channels, Scratch& scratch,
                float* out) {
  float *line = scratch.line.data(), *pooled = scratch.pooled.data();
  if (roi.across.taps == 4) {  // the usual two samples a bin, unrolled
    pool_by(blocks, width, roi, bins, 4, line, pooled);
  } else {
    pool_by(blocks, width, roi, bins, roi.across.taps, line, pooled);
  }
  const int32_t places = bins * bins;
  for (int32_t c = 0; c < channels; ++c) {
    for (int32_t i = 0; i < places; ++i) out[c * places + i] = pooled[i * kBlock + c];
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
  // of each level among the pixels of one image
  std::vector<int64_t> level_begin(level_count + 1, 0);
  for (int32_t l = 0; l < level_count; ++l) {
    level_begin[l + 1] = level_begin[l] + static_cast<int64_t>(levels[l].height) * levels[l].width;
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
    Scratch scratch{std::vector<float>(static_cast<size_t>(longest) * kBlock),
                    std::vector<float>(static_cast<size_t>(bins) * bins * kBlock)};
    std::vector<float> blocks(static_cast<size_t>(level_begin[level_count]) * kBlock);
    for (int32_t first = 0; first < channels; first += kBlock) {
      const int32_t count = std::min(kBlock, channels - first);
      int64_t held = -1;  // the image whose pixels the blocks hold
      for (const Roi& roi : rois) {
        const int64_t image = roi.row / slots;
        if (image != held) {
          for (int32_t l = 0; l < level_count; ++l) {
            const int64_t pixels = level_begin[l + 1] - level_begin[l];
            interleave(levels[l].features + (image * channels + first) * pixels, pixels, count,
                       blocks.data() + level_begin[l] * kBlock);
          }
          held = image;
        }
        pool_block(blocks.data() + level_begin[roi.level] * kBlock, levels[roi.level].width, roi, bins, count,
                   scratch, pooled + roi.row * row_floats + first * bins * bins);
      }
    }
  });
}

}  // namespace rbc
