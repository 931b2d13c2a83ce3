#pragma once
#include "half.cuh"
#include "nms.cuh"
#include "postprocess_detections.h"

namespace rbc {

// The candidates of each image, best first: what the block writes, sorts and thins.
struct DetectionCandidates {
  Box* boxes;     // [images, slots], on the canvas
  float* scores;  // [images, slots]
};

//   grid  images
template <typename T>
__global__ __launch_bounds__(kCandidateThreads, 1) void postprocess_detections_kernel(
    const T* class_logits, const T* box_deltas, const Box* proposals, const int32_t* proposal_counts, int64_t slots,
    const int32_t* image_hw, const int32_t* frame_hw, DetectionSettings settings, DetectionCandidates candidates,
    Box* boxes, float* scores, int32_t* counts, bool* saturated) {
  __shared__ uint64_t keys[kMostSlots];
  __shared__ uint32_t alive[kMostSlots / kWarp];
  const int64_t n = blockIdx.x;
  const float height = static_cast<float>(image_hw[2 * n]), width = static_cast<float>(image_hw[2 * n + 1]);
  const auto score_of = [&](uint32_t slot) {
    const T* pair = class_logits + 2 * (n * slots + slot);
    const float logits[2] = {to_float(pair[0]), to_float(pair[1])};
    return region_score(logits);
  };
  const auto box_of = [&](uint32_t slot) {
    const int64_t row = n * slots + slot;
    float deltas[8];
    for (int k = 4; k < 8; ++k) deltas[k] = to_float(box_deltas[8 * row + k]);
    return clip_box(decode_region(proposals[row], deltas), height, width);
  };
  const auto each_key = [&](const auto& visit) {
    for (int32_t slot = threadIdx.x; slot < proposal_counts[n]; slot += kCandidateThreads) {
      const float score = score_of(slot);
      if (!(score > settings.score_threshold)) continue;  // NaN too
      if (sides_at_least(box_of(slot), kMinDetectionSidePx)) visit(rank_key(score, slot));
    }
  };
  const int32_t found = sorted_keys(each_key, kNoKey - 1, keys);

  Box* ranked = candidates.boxes + n * slots;
  float* ranked_scores = candidates.scores + n * slots;
  for_each_bit(found, alive, [&](int32_t i) {
    ranked[i] = box_of(rank_index(keys[i]));
    ranked_scores[i] = score_of(rank_index(keys[i]));
    return true;
  });
  __syncthreads();
  // One more than fits, to learn whether the cap left any out.
  const int32_t kept = nms_in_place(ranked, ranked_scores, alive, found, settings.max_iou, settings.max_regions + 1);
  const int32_t count = kept < settings.max_regions ? kept : settings.max_regions;
  for (int32_t i = threadIdx.x; i < settings.max_regions; i += kCandidateThreads) {
    const int64_t place = n * settings.max_regions + i;
    boxes[place] = i < count ? scale_to_frame(ranked[i], image_hw + 2 * n, frame_hw + 2 * n) : Box{};
    scores[place] = i < count ? ranked_scores[i] : 0.0f;
  }
  if (threadIdx.x == 0) counts[n] = count, saturated[n] = kept > settings.max_regions;
}

}  // namespace rbc
