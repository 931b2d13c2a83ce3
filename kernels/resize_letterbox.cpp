#include "resize_letterbox.h"

#include <cstring>
#include <vector>

#include "parallel.h"
#include "resample.h"

namespace rbc {
namespace {

void fill_pixels(uint8_t* out, int64_t pixels, const uint8_t* rgb) {
  for (int64_t i = 0; i < pixels; ++i) std::memcpy(out + 3 * i, rgb, 3);
}

// One input row resized horizontally to float [width, 3].
void resize_row(const uint8_t* row, const std::vector<BilinearTap>& taps, float* out) {
  for (const BilinearTap& tap : taps) {
    const uint8_t* low = row + 3 * tap.low;
    const uint8_t* high = row + 3 * tap.high;
    for (int c = 0; c < 3; ++c) {
      *out++ = blend(low[c], high[c], tap.high_weight);
    }
  }
}

}  // namespace

void resize_letterbox_cpu(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                          int32_t canvas_height, int32_t canvas_width, const uint8_t* fill_rgb,
                          uint8_t* canvases, int threads) {
  // One unit of work is one row of one canvas.
  parallel_for(count * canvas_height, threads, [&](int64_t begin, int64_t end) {
    std::vector<BilinearTap> taps;
    std::vector<float> rows[2];
    int32_t held[2] = {-1, -1};  // which input row each buffer holds: neighbours are resized once
    int64_t frame_of_taps = -1;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t n = unit / canvas_height;
      const int32_t y = static_cast<int32_t>(unit % canvas_height);
      const FrameView& frame = frames[n];
      const int32_t height = resized_hw[2 * n], width = resized_hw[2 * n + 1];
      uint8_t* out = canvases + (n * canvas_height + y) * canvas_width * 3;
      if (y >= height) {
        fill_pixels(out, canvas_width, fill_rgb);
        continue;
      }
      if (n != frame_of_taps) {
        const float scale = static_cast<float>(frame.width) / static_cast<float>(width);
        taps.resize(width);
        for (int32_t x = 0; x < width; ++x) taps[x] = bilinear_tap(x, scale, frame.width);
        for (int slot = 0; slot < 2; ++slot) rows[slot].resize(static_cast<size_t>(width) * 3), held[slot] = -1;
        frame_of_taps = n;
      }
      const float scale = static_cast<float>(frame.height) / static_cast<float>(height);
      const BilinearTap tap = bilinear_tap(y, scale, frame.height);
      const int32_t wanted[2] = {tap.low, tap.high};
      if (held[1] == tap.low) rows[0].swap(rows[1]), std::swap(held[0], held[1]);
      for (int slot = 0; slot < 2; ++slot) {
        if (held[slot] == wanted[slot]) continue;
        resize_row(frame.pixels + wanted[slot] * frame.row_bytes, taps, rows[slot].data());
        held[slot] = wanted[slot];
      }
      const float *low = rows[0].data(), *high = rows[1].data();
      for (int32_t i = 0; i < 3 * width; ++i) {
        out[i] = static_cast<uint8_t>(blend(low[i], high[i], tap.high_weight) + 0.5f);
      }
      fill_pixels(out + 3 * width, canvas_width - width, fill_rgb);
    }
  });
}

}  // namespace rbc
