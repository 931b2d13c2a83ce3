#pragma once
#include <cstdint>

#include "frame_view.h"
#include "hd.h"

namespace rbc {

// The background of a frame, as an empty part of the smear looks: for each channel the level that
// nine tenths of a grid of samples do not exceed. Cells are darker than the glass between them, and
// seldom leave less of it.
constexpr int32_t kBackgroundSide = 16;
constexpr int32_t kBackgroundSamples = kBackgroundSide * kBackgroundSide;
constexpr int32_t kBackgroundRank = kBackgroundSamples * 9 / 10;

// Largest change of a frame's background level: a frame that is dark all over was not merely
// underexposed.
constexpr float kLeastGain = 0.5f, kMostGain = 3.0f;

struct Background {
  uint8_t rgb[3];  // after the gain
  float gain;      // by which the frame's levels are multiplied
};

// Sample `index` of 0 .. kBackgroundSamples - 1: three channels, in the middle of its cell of the
// grid.
RBC_HD const uint8_t* background_sample(const FrameView& frame, int32_t index) {
  const int64_t row = 2 * (index / kBackgroundSide) + 1, column = 2 * (index % kBackgroundSide) + 1;
  return frame.pixels + row * frame.height / (2 * kBackgroundSide) * frame.row_bytes +
         column * frame.width / (2 * kBackgroundSide) * 3;
}

RBC_HD uint8_t exposed(float level, float gain) {
  const float rounded = level * gain + 0.5f;
  return rounded < 255.0f ? static_cast<uint8_t>(rounded) : 255;
}

// The exposure of a frame with background `rgb`, to bring it to the mean level `wanted`; 0 leaves
// it as it is.
RBC_HD Background expose_background(const uint8_t* rgb, float wanted) {
  float gain = 1.0f;
  if (wanted > 0.0f) {
    const int32_t sum = rgb[0] + rgb[1] + rgb[2];
    gain = 3.0f * wanted / static_cast<float>(sum > 0 ? sum : 1);
    gain = gain < kLeastGain ? kLeastGain : gain > kMostGain ? kMostGain : gain;
  }
  return {{exposed(rgb[0], gain), exposed(rgb[1], gain), exposed(rgb[2], gain)}, gain};
}

}  // namespace rbc
