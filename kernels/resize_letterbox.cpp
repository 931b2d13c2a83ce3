#include "resize_letterbox.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "background.h"
#include "parallel.h"
#include "resample.h"
#include "simd.h"

namespace rbc {
namespace {

// A pixel of one row of the canvas: byte offsets of its two pixels in a row of the frame, and the
// second one's weight.
struct AcrossTap {
  int32_t low;
  int32_t high;
  float high_weight;
};

struct AcrossTaps {
  std::vector<AcrossTap> taps;
  int32_t whole;  // pixels 0 .. whole - 1 may be read and written four bytes at a time

  AcrossTaps(int32_t width, int32_t frame_width) : taps(width), whole(0) {
    const float scale = static_cast<float>(frame_width) / static_cast<float>(width);
    for (int32_t x = 0; x < width; ++x) {
      const BilinearTap tap = bilinear_tap(x, scale, frame_width);
      taps[x] = {3 * tap.low, 3 * tap.high, tap.high_weight};
      if (tap.high + 2 <= frame_width && x + 1 < width) whole = x + 1;
    }
  }
};

void fill_pixels(uint8_t* out, int64_t pixels, const uint8_t* rgb) {
  for (int64_t i = 0; i < pixels; ++i) std::memcpy(out + 3 * i, rgb, 3);
}

Background find_background(const FrameView& frame, float background_level) {
  std::array<uint8_t, kBackgroundSamples> levels;
  uint8_t rgb[3];
  for (int c = 0; c < 3; ++c) {
    for (int32_t i = 0; i < kBackgroundSamples; ++i) levels[i] = background_sample(frame, i)[c];
    const auto answer = levels.begin() + kBackgroundRank - 1;
    std::nth_element(levels.begin(), answer, levels.end());
    rgb[c] = *answer;
  }
  return expose_background(rgb, background_level);
}

#ifdef RBC_AVX2

// The pixels of two rows at one place, as floats: r g b and a byte of the next one, of `above` and
// then of `below`.
RBC_AVX2 inline __m256 load_pixels(const uint8_t* above, const uint8_t* below) {
  int32_t bytes[2];
  std::memcpy(&bytes[0], above, 4);
  std::memcpy(&bytes[1], below, 4);
  const __m128i both = _mm_insert_epi32(_mm_cvtsi32_si128(bytes[0]), bytes[1], 1);
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(both));
}

// Pixels 0 .. whole - 1 of a row of the canvas, in the operations and the order of `blend` and
// `exposed`, so to the same bits: packing saturates.
RBC_AVX2 void resize_whole(const uint8_t* above, const uint8_t* below, const AcrossTap* taps, int32_t whole,
                           float below_weight, float gain, uint8_t* out) {
  const __m128 down = _mm_set1_ps(below_weight), times = _mm_set1_ps(gain), half = _mm_set1_ps(0.5f);
  for (int32_t x = 0; x < whole; ++x) {
    const __m256 low = load_pixels(above + taps[x].low, below + taps[x].low);
    const __m256 high = load_pixels(above + taps[x].high, below + taps[x].high);
    const __m256 weight = _mm256_broadcast_ss(&taps[x].high_weight);
    const __m256 across = _mm256_add_ps(low, _mm256_mul_ps(_mm256_sub_ps(high, low), weight));
    const __m128 top = _mm256_castps256_ps128(across), bottom = _mm256_extractf128_ps(across, 1);
    const __m128 level = _mm_add_ps(top, _mm_mul_ps(_mm_sub_ps(bottom, top), down));
    const __m128i rounded = _mm_cvttps_epi32(_mm_add_ps(_mm_mul_ps(level, times), half));
    const __m128i packed = _mm_packus_epi16(_mm_packs_epi32(rounded, rounded), rounded);
    const int32_t bytes = _mm_cvtsi128_si32(packed);
    std::memcpy(out + 3 * x, &bytes, 4);  // the fourth byte is the next pixel's to overwrite
  }
}

#endif

void resize_row(const uint8_t* above, const uint8_t* below, const AcrossTaps& across, float below_weight,
                float gain, uint8_t* out) {
  size_t x = 0;
#ifdef RBC_AVX2
  if (has_avx2()) {
    resize_whole(above, below, across.taps.data(), across.whole, below_weight, gain, out);
    x = across.whole;
  }
#endif
  for (; x < across.taps.size(); ++x) {
    const AcrossTap& tap = across.taps[x];
    for (int c = 0; c < 3; ++c) {
      const float top = blend(above[tap.low + c], above[tap.high + c], tap.high_weight);
      const float bottom = blend(below[tap.low + c], below[tap.high + c], tap.high_weight);
      out[3 * x + c] = exposed(blend(top, bottom, below_weight), gain);
    }
  }
}

}  // namespace

void resize_letterbox_cpu(const FrameView* frames, int64_t count, const int32_t* resized_hw,
                          int32_t canvas_height, int32_t canvas_width, float background_level,
                          uint8_t* canvases, int threads) {
  std::vector<Background> backgrounds;
  for (int64_t n = 0; n < count; ++n) backgrounds.push_back(find_background(frames[n], background_level));
  // One unit of work is one row of one canvas.
  parallel_for(count * canvas_height, threads, [&](int64_t begin, int64_t end) {
    AcrossTaps across(0, 1);
    int64_t frame_of_taps = -1;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t n = unit / canvas_height;
      const int32_t y = static_cast<int32_t>(unit % canvas_height);
      const FrameView& frame = frames[n];
      const int32_t height = resized_hw[2 * n], width = resized_hw[2 * n + 1];
      uint8_t* out = canvases + (n * canvas_height + y) * canvas_width * 3;
      if (y >= height) {
        fill_pixels(out, canvas_width, backgrounds[n].rgb);
        continue;
      }
      if (n != frame_of_taps) across = AcrossTaps(width, frame.width), frame_of_taps = n;
      const float scale = static_cast<float>(frame.height) / static_cast<float>(height);
      const BilinearTap down = bilinear_tap(y, scale, frame.height);
      resize_row(frame.pixels + down.low * frame.row_bytes, frame.pixels + down.high * frame.row_bytes,
                 across, down.high_weight, backgrounds[n].gain, out);
      fill_pixels(out + 3 * width, canvas_width - width, backgrounds[n].rgb);
    }
  });
}

}  // namespace rbc
