#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "field_mask.h"

namespace rbc {
namespace {

constexpr int32_t kTerms = 6, kEveryPx = 8, kBlockPx = 4, kRounds = 5;
// of the logarithm: pixels that differ less from the surface are background
constexpr double kNear = 0.1;
constexpr double kRidge = 1e-6;
// Far from all background the surface is a guess.
constexpr double kLeastGain = 0.25, kMostGain = 4.0;
constexpr int64_t kFewPixels = 30;

using Terms = std::array<double, kTerms>;

// 1, x, y, x^2, xy, y^2 with x and y -1 .. 1 over the frame.
Terms terms_at(const SmallFrame& frame, int32_t y, int32_t x) {
  const double u = (2.0 * x + 1.0) / frame.width - 1.0, v = (2.0 * y + 1.0) / frame.height - 1.0;
  return {1.0, u, v, u * u, u * v, v * v};
}

double value_of(const Terms& surface, const Terms& terms) {
  double sum = 0.0;
  for (int i = 0; i < kTerms; ++i) sum += surface[i] * terms[i];
  return sum;
}

// Solves matrix * x = right for each of three right sides by Cholesky's method. The matrix is
// positive by its ridge.
void solve(std::array<Terms, kTerms> matrix, std::array<Terms, 3>& right) {
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j <= i; ++j) {
      double sum = matrix[i][j];
      for (int k = 0; k < j; ++k) sum -= matrix[i][k] * matrix[j][k];
      matrix[i][j] = i == j ? std::sqrt(std::max(sum, kRidge * kRidge)) : sum / matrix[j][j];
    }
  }
  for (Terms& x : right) {
    for (int i = 0; i < kTerms; ++i) {
      for (int k = 0; k < i; ++k) x[i] -= matrix[i][k] * x[k];
      x[i] /= matrix[i][i];
    }
    for (int i = kTerms - 1; i >= 0; --i) {
      for (int k = i + 1; k < kTerms; ++k) x[i] -= matrix[k][i] * x[k];
      x[i] /= matrix[i][i];
    }
  }
}

}  // namespace

void even_light(SmallFrame& frame, const Mask& lit, const uint8_t* background) {
  std::array<double, 256> logs;
  for (int32_t level = 0; level < 256; ++level) logs[level] = std::log(std::max(level, 1));
  std::array<Terms, 3> surface{};
  for (int c = 0; c < 3; ++c) surface[c][0] = logs[background[c]];
  for (int32_t round = 0; round < kRounds; ++round) {
    std::array<Terms, kTerms> matrix{};
    std::array<Terms, 3> right{};
    int64_t count = 0;
    for (int32_t y = 0; y < frame.height; y += kEveryPx) {
      for (int32_t x = 0; x < frame.width; x += kEveryPx) {
        if (!lit.row(y)[x]) continue;
        const uint8_t* pixel = frame.row(y) + 3 * x;
        const Terms terms = terms_at(frame, y, x);
        bool near = true;
        for (int c = 0; c < 3; ++c) near &= std::abs(logs[pixel[c]] - value_of(surface[c], terms)) < kNear;
        if (!near) continue;
        ++count;
        for (int i = 0; i < kTerms; ++i) {
          for (int j = 0; j <= i; ++j) matrix[i][j] += terms[i] * terms[j];
          for (int c = 0; c < 3; ++c) right[c][i] += terms[i] * logs[pixel[c]];
        }
      }
    }
    if (count < kFewPixels) return;
    for (int i = 0; i < kTerms; ++i) matrix[i][i] += kRidge * static_cast<double>(count);
    solve(matrix, right);
    surface = right;
  }
  // One gain for each block: the surface is smooth.
  std::vector<float> gains(static_cast<size_t>(frame.width) * 3);
  for (int32_t y = 0; y < frame.height; ++y) {
    for (int32_t x = 0; x < frame.width && y % kBlockPx == 0; x += kBlockPx) {
      const Terms terms = terms_at(frame, y, x);
      for (int c = 0; c < 3; ++c) {
        const double gain = std::clamp(background[c] * std::exp(-value_of(surface[c], terms)), kLeastGain, kMostGain);
        for (int32_t k = x; k < std::min(x + kBlockPx, frame.width); ++k) gains[3 * k + c] = static_cast<float>(gain);
      }
    }
    uint8_t* row = frame.rgb.data() + static_cast<int64_t>(y) * frame.width * 3;
    for (int32_t i = 0; i < 3 * frame.width; ++i) {
      row[i] = static_cast<uint8_t>(std::min(static_cast<float>(row[i]) * gains[i] + 0.5f, 255.0f));
    }
  }
}

}  // namespace rbc
