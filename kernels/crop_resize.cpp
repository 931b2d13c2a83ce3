#include "crop_resize.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "resample.h"
#include "simd.h"

namespace rbc {
namespace {

// The filter along one axis: for each output sample the taps inside the frame and their weights,
// normalised over all taps, inside or not.
struct Axis {
  std::vector<int32_t> starts;  // [size], first tap of each sample, from `first` on
  std::vector<float> weights;   // [size, taps], zero beyond a sample's own taps
  int32_t taps = 0;  // as many for every sample: a loop whose end the processor can foresee
  int32_t first = 0, last = -1;  // union of all taps inside the frame

  void plan(float start, float end, int32_t size, int32_t frame_size) {
    const float scale = (end - start) / static_cast<float>(size);
    const float support = std::max(scale, 1.0f);
    starts.assign(size, -1);
    taps = 0, first = frame_size, last = -1;
    for (int32_t i = 0; i < size; ++i) {
      const TapRange all = triangle_taps(centre(i, start, scale), support);
      const int32_t low = std::max(all.first, 0), high = std::min(all.first + all.count, frame_size);
      if (low >= high) continue;
      starts[i] = low;
      taps = std::max(taps, high - low);
      first = std::min(first, low), last = std::max(last, high - 1);
    }
    weights.assign(static_cast<size_t>(size) * taps, 0.0f);
    for (int32_t i = 0; i < size; ++i) {
      if (starts[i] < 0) {
        starts[i] = 0;  // it weighs nothing
        continue;
      }
      const float middle = centre(i, start, scale);
      const TapRange all = triangle_taps(middle, support);
      float total = 0.0f;
      for (int32_t k = all.first; k < all.first + all.count; ++k) total += triangle_weight(k, middle, support);
      float* weight = weights.data() + static_cast<size_t>(i) * taps;
      for (int32_t k = starts[i]; k < std::min(all.first + all.count, frame_size); ++k) {
        *weight++ = triangle_weight(k, middle, support) / total;
      }
      starts[i] -= first;
    }
  }

  static float centre(int32_t i, float start, float scale) { return start + (static_cast<float>(i) + 0.5f) * scale; }
};

// levels[i] = a row's grey levels less their mean, r g b r g b...
RBC_CLONES
void subtract_mean(const uint8_t* pixels, const float* means, int32_t count, float* levels) {
  for (int32_t i = 0; i < count; ++i) levels[i] = static_cast<float>(pixels[i]) - means[i];
}

// out [size, 4]: r g b, and something, of each sample.
RBC_CLONES
void resize_row(const float* levels, const Axis& across, int32_t size, float* out) {
  const float* weight = across.weights.data();
  const int32_t taps = across.taps;
  for (int32_t x = 0; x < size; ++x, weight += taps) {
    const float* pixel = levels + 3 * across.starts[x];
    Float4 sum = {};
    for (int32_t k = 0; k < taps; ++k) {
      Float4 rgb;
      load(rgb, pixel + 3 * k);
      sum += weight[k] * rgb;
    }
    store(sum, out + 4 * x);
  }
}

// Four pixels [4, r g b and something] to four reds, greens and blues.
RBC_INLINE void part_channels(const Float8& first, const Float8& second, Float4* channels) {
  const Float4 a = __builtin_shufflevector(first, first, 0, 1, 2, 3), b = __builtin_shufflevector(first, first, 4, 5, 6, 7);
  const Float4 c = __builtin_shufflevector(second, second, 0, 1, 2, 3), d = __builtin_shufflevector(second, second, 4, 5, 6, 7);
  const Float4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Float4 ab_blue = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd_blue = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  channels[0] = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
  channels[1] = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  channels[2] = __builtin_shufflevector(ab_blue, cd_blue, 0, 1, 4, 5);
}

// One row of a patch from `taps` resized rows, [stride] floats each: patch [3, size, size] at row
// y.
//   scaled  [taps, 8]: each tap's weight over each channel's std, r g b 0 twice
RBC_CLONES
void blend_rows(const float* rows, int64_t stride, const float* scaled, int32_t taps, int32_t size, float* patch_row) {
  const int64_t plane = static_cast<int64_t>(size) * size;
  for (int32_t x = 0; x < size; x += 4) {
    Float8 sums[2] = {};
    for (int32_t k = 0; k < taps; ++k) {
      Float8 weight;
      load(weight, scaled + 8 * k);
      for (int half = 0; half < 2; ++half) {
        Float8 pixels;
        load(pixels, rows + k * stride + 4 * x + 8 * half);
        sums[half] += weight * pixels;
      }
    }
    Float4 channels[3];
    part_channels(sums[0], sums[1], channels);
    const int32_t count = std::min(4, size - x);
    for (int c = 0; c < 3; ++c) {
      if (count == 4) {
        store(channels[c], patch_row + c * plane + x);
      } else {
        std::memcpy(patch_row + c * plane + x, &channels[c], sizeof(float) * count);
      }
    }
  }
}

}  // namespace

void crop_resize_cpu(const FrameView* frames, const float* windows, const int32_t* frame_index,
                     int64_t count, int32_t size, const float* mean, const float* std, float* patches,
                     int threads) {
  parallel_for(count, threads, [&](int64_t begin, int64_t end) {
    Axis across, down;
    std::vector<float> means, levels;  // of one row of the window
    std::vector<float> scaled;         // weights of one row of the patch
    std::vector<float> rows;  // the frame rows that the window needs, resized: [rows, stride]
    const int64_t stride = 4 * static_cast<int64_t>((size + 3) / 4 * 4);
    for (int64_t n = begin; n < end; ++n) {
      const FrameView& frame = frames[frame_index[n]];
      const float* window = windows + 4 * n;
      float* patch = patches + n * 3 * size * size;
      across.plan(window[0], window[2], size, frame.width);
      down.plan(window[1], window[3], size, frame.height);
      if (across.last < 0 || down.last < 0) {
        std::fill(patch, patch + static_cast<int64_t>(3) * size * size, 0.0f);
        continue;
      }
      const int32_t level_count = 3 * (across.last - across.first + 1);
      while (static_cast<int32_t>(means.size()) < level_count) means.insert(means.end(), mean, mean + 3);
      // Taps that weigh nothing reach past the end of a row and below the last one: there are
      // zeros.
      levels.assign(level_count + 3 * across.taps + 1, 0.0f);
      const int32_t row_count = down.last - down.first + 1;
      rows.assign((row_count + down.taps) * stride, 0.0f);
      for (int32_t r = 0; r < row_count; ++r) {
        const uint8_t* pixels = frame.pixels + (down.first + r) * frame.row_bytes + 3 * across.first;
        subtract_mean(pixels, means.data(), level_count, levels.data());
        resize_row(levels.data(), across, size, rows.data() + r * stride);
      }
      scaled.assign(8 * static_cast<size_t>(down.taps), 0.0f);
      for (int32_t y = 0; y < size; ++y) {
        const float* weight = down.weights.data() + static_cast<size_t>(y) * down.taps;
        for (int32_t k = 0; k < down.taps; ++k) {
          for (int c = 0; c < 3; ++c) scaled[8 * k + c] = scaled[8 * k + 4 + c] = weight[k] / std[c];
        }
        blend_rows(rows.data() + down.starts[y] * stride, stride, scaled.data(), down.taps, size,
                   patch + static_cast<int64_t>(y) * size);
      }
    }
  });
}

}  // namespace rbc
