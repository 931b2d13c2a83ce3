#include "crop_resize.h"

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "resample.h"

namespace rbc {
namespace {

// The filter along one axis: for each output sample the taps inside the frame and their weights,
// normalised over all taps, inside or not.
struct Axis {
  std::vector<TapRange> ranges;
  std::vector<float> weights;  // [size, most]
  int32_t most = 0;
  int32_t first = 0, last = -1;  // union of all taps inside the frame

  void plan(float start, float end, int32_t size, int32_t frame_size) {
    const float scale = (end - start) / static_cast<float>(size);
    const float support = std::max(scale, 1.0f);
    most = static_cast<int32_t>(2.0f * support) + 2;
    ranges.assign(size, {0, 0});
    weights.assign(static_cast<size_t>(size) * most, 0.0f);
    first = frame_size, last = -1;
    for (int32_t i = 0; i < size; ++i) {
      const float centre = start + (static_cast<float>(i) + 0.5f) * scale;
      const TapRange all = triangle_taps(centre, support);
      float total = 0.0f;
      for (int32_t k = all.first; k < all.first + all.count; ++k) total += triangle_weight(k, centre, support);
      const int32_t low = std::max(all.first, 0);
      const int32_t high = std::min(all.first + all.count, frame_size);
      if (low >= high) continue;
      ranges[i] = {low, high - low};
      for (int32_t k = low; k < high; ++k) {
        weights[static_cast<size_t>(i) * most + (k - low)] = triangle_weight(k, centre, support) / total;
      }
      first = std::min(first, low), last = std::max(last, high - 1);
    }
  }
};

}  // namespace

void crop_resize_cpu(const FrameView* frames, const float* windows, const int32_t* frame_index,
                     int64_t count, int32_t size, const float* mean, const float* std, float* patches,
                     int threads) {
  parallel_for(count, threads, [&](int64_t begin, int64_t end) {
    Axis across, down;
    std::vector<float> rows;  // the frame rows that the window needs, resized: [rows, 3, size]
    for (int64_t n = begin; n < end; ++n) {
      const FrameView& frame = frames[frame_index[n]];
      const float* window = windows + 4 * n;
      float* patch = patches + n * 3 * size * size;
      across.plan(window[0], window[2], size, frame.width);
      down.plan(window[1], window[3], size, frame.height);
      std::fill(patch, patch + static_cast<int64_t>(3) * size * size, 0.0f);
      if (across.last < 0 || down.last < 0) continue;

      const int32_t row_count = down.last - down.first + 1;
      rows.assign(static_cast<size_t>(row_count) * 3 * size, 0.0f);
      for (int32_t r = 0; r < row_count; ++r) {
        const uint8_t* pixels = frame.pixels + (down.first + r) * frame.row_bytes;
        float* out = rows.data() + static_cast<size_t>(r) * 3 * size;
        for (int32_t x = 0; x < size; ++x) {
          const TapRange range = across.ranges[x];
          const float* weight = across.weights.data() + static_cast<size_t>(x) * across.most;
          const uint8_t* pixel = pixels + 3 * range.first;
          float red = 0.0f, green = 0.0f, blue = 0.0f;
          for (int32_t k = 0; k < range.count; ++k, pixel += 3) {
            red += weight[k] * (pixel[0] - mean[0]);
            green += weight[k] * (pixel[1] - mean[1]);
            blue += weight[k] * (pixel[2] - mean[2]);
          }
          out[x] = red, out[size + x] = green, out[2 * size + x] = blue;
        }
      }
      for (int32_t y = 0; y < size; ++y) {
        const TapRange range = down.ranges[y];
        const float* weight = down.weights.data() + static_cast<size_t>(y) * down.most;
        for (int32_t k = 0; k < range.count; ++k) {
          const float* row = rows.data() + static_cast<size_t>(range.first - down.first + k) * 3 * size;
          for (int c = 0; c < 3; ++c) {
            float* out = patch + (static_cast<int64_t>(c) * size + y) * size;
            const float scaled = weight[k] / std[c];
            for (int32_t x = 0; x < size; ++x) out[x] += scaled * row[c * size + x];
          }
        }
      }
    }
  });
}

}  // namespace rbc
