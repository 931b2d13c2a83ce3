#pragma once
#include "half.cuh"
#include "nms.cuh"
#include "postprocess_detections.h"

namespace rbc {

// The candidates of each image, best first: what the block writes, sorts and thins.
struct DetectionCandidates {
  Box* boxes;     // [images, slots], on the canvas
  uint32_t* ids;  // [images, slots], see candidate_id
};

// A candidate's slot and class in one number, which rises with the slot: the index of its rank, so that the class is
// found once, and then a box's tag, for its score to be computed again where it is wanted, of the few that are left.
__device__ __forceinline__ uint32_t candidate_id(uint32_t slot, uint32_t label) { return slot * kMostClasses + label; }

//   grid  images
template <typename T>
__global__ __launch_bounds__(kCandidateThreads, 1) void postprocess_detections_kernel(
    const T* class_logits, const T* box_deltas, const Box* proposals, const int32_t* proposal_counts, int64_t slots,
    int32_t class_count, const int32_t* image_hw, const int32_t* frame_hw, DetectionSettings settings,
    DetectionCandidates candidates, Box* boxes, float* scores, uint8_t* classes, int32_t* counts, bool* saturated) {
  __shared__ uint64_t keys[kMostSlots];
  __shared__ uint32_t alive[kMostSlots / kWarp];
  const int64_t n = blockIdx.x;
  const float height = static_cast<float>(image_hw[2 * n]), width = static_cast<float>(image_hw[2 * n + 1]);
  const auto logits_of = [&](uint32_t slot) {
    const T* logits = class_logits + (n * slots + slot) * class_count;
    return [logits](int32_t c) { return to_float(logits[c]); };
  };
  const auto box_of = [&](uint32_t id) {
    const int64_t row = n * slots + id / kMostClasses;
    const T* deltas = box_deltas + 4 * (row * class_count + id % kMostClasses);
    return clip_box(decode_region(proposals[row], to_float(deltas[0]), to_float(deltas[1]), to_float(deltas[2]),
                                  to_float(deltas[3])),
                    height, width);
  };
  const auto each_key = [&](const auto& visit) {
    for (int32_t slot = threadIdx.x; slot < proposal_counts[n]; slot += kCandidateThreads) {
      const auto logit = logits_of(slot);
      const int32_t label = likeliest_class(logit, class_count);
      const float score = class_score(logit, class_count, label);
      if (!(score > settings.score_threshold)) continue;  // NaN too
      const uint32_t id = candidate_id(slot, label);
      if (sides_at_least(box_of(id), kMinDetectionSidePx)) visit(rank_key(score, id));
    }
  };
  const int32_t found = sorted_keys(each_key, kNoKey - 1, keys);

  Box* ranked = candidates.boxes + n * slots;
  uint32_t* ids = candidates.ids + n * slots;
  for_each_bit(found, alive, [&](int32_t i) {
    ids[i] = rank_index(keys[i]);
    ranked[i] = box_of(ids[i]);
    return true;
  });
  __syncthreads();
  // One more than fits, to learn whether the cap left any out.
  const int32_t kept = nms_in_place(ranked, ids, alive, found, settings.max_iou, settings.max_regions + 1);
  const int32_t count = kept < settings.max_regions ? kept : settings.max_regions;
  for (int32_t i = threadIdx.x; i < settings.max_regions; i += kCandidateThreads) {
    const int64_t place = n * settings.max_regions + i;
    const int32_t label = i < count ? ids[i] % kMostClasses : 0;
    boxes[place] = i < count ? scale_to_frame(ranked[i], image_hw + 2 * n, frame_hw + 2 * n) : Box{};
    scores[place] = i < count ? class_score(logits_of(ids[i] / kMostClasses), class_count, label) : 0.0f;
    classes[place] = static_cast<uint8_t>(label);
  }
  if (threadIdx.x == 0) counts[n] = count, saturated[n] = kept > settings.max_regions;
}

}  // namespace rbc
