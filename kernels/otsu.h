#pragma once
#include <cstdint>

namespace rbc {

// A histogram cut in two classes where the variance between them is greatest (Otsu 1979, IEEE
// Trans. SMC 9:62, eq. 18).
struct OtsuSplit {
  // the upper class holds what is in this bin or above; 0 if there is nothing to split
  int32_t threshold;
  // variance between the classes over all of it, 0..1: 0.64 for one normal distribution
  double separability;
  int64_t below, above;  // how many there are in each class
  double mean_below, mean_above;
};

// Splits the bins begin .. end - 1. Ties go to the lower threshold.
inline OtsuSplit split_otsu(const int64_t* counts, int32_t begin, int32_t end) {
  int64_t total = 0;
  double sum = 0.0, squares = 0.0;
  for (int32_t bin = begin; bin < end; ++bin) {
    const double at = bin, weight = static_cast<double>(counts[bin]);
    total += counts[bin], sum += weight * at, squares += weight * at * at;
  }
  OtsuSplit best{};
  double greatest = 0.0, below_sum = 0.0;
  int64_t below = 0;
  for (int32_t bin = begin; bin + 1 < end; ++bin) {
    below += counts[bin], below_sum += static_cast<double>(counts[bin]) * bin;
    const int64_t above = total - below;
    if (!below || !above) continue;
    const double low = below_sum / static_cast<double>(below), high = (sum - below_sum) / static_cast<double>(above);
    const double between = static_cast<double>(below) * static_cast<double>(above) * (high - low) * (high - low);
    if (between > greatest) {
      greatest = between;
      best = {bin + 1, 0.0, below, above, low, high};
    }
  }
  if (greatest > 0.0) {
    const double all = static_cast<double>(total) * squares - sum * sum;
    best.separability = greatest / all;
  }
  return best;
}

// The bin that holds the value of this rank (0 the least) among bins begin .. end - 1.
inline int32_t bin_of_rank(const int64_t* counts, int32_t begin, int32_t end, int64_t rank) {
  for (int32_t bin = begin; bin < end; ++bin) {
    if (rank < counts[bin]) return bin;
    rank -= counts[bin];
  }
  return end - 1;
}

}  // namespace rbc
