#pragma once
#include <cstddef>
#include <cstdint>

#include "box.h"
#include "cuda_stream.h"
#include "half.h"

namespace rbc {

struct DetectionSettings {
  float score_threshold;  // regions must score more than this
  float max_iou;
  int32_t max_regions;
};

// Detections with a side under this after clipping are dropped (canvas px).
constexpr float kMinDetectionSidePx = 1e-2f;

// The most classes, background included: on the GPU a candidate's class shares 32 bits with its slot.
constexpr int32_t kMostClasses = 16;

// The foreground class, 1..class_count - 1, of the highest logit; of equal ones the first. `logit(c)` is class c's.
template <typename Logit>
RBC_HD int32_t likeliest_class(const Logit& logit, int32_t class_count) {
  int32_t likeliest = 1;
  float highest = logit(1);
  RBC_ROLLED
  for (int32_t c = 2; c < class_count; ++c) {
    const float value = logit(c);
    if (value > highest) highest = value, likeliest = c;
  }
  return likeliest;
}

// Softmax over all classes, at the likeliest of the foreground; NaN if any logit is. The class's own logit is what is
// subtracted, not the highest: only the background's can be higher, and where its exponential is infinite the score
// is 0. For two classes this is a sigmoid. The terms are added in the order of the classes: all devices round alike.
template <typename Logit>
RBC_HD float class_score(const Logit& logit, int32_t class_count, int32_t likeliest) {
  const float own = logit(likeliest);
  float total = 1.0f;
  RBC_ROLLED
  for (int32_t c = 0; c < likeliest; ++c) total += exp_rounded(logit(c) - own);
  RBC_ROLLED
  for (int32_t c = likeliest + 1; c < class_count; ++c) total += exp_rounded(logit(c) - own);
  return 1.0f / total;
}

// Decodes a class's deltas with Faster R-CNN's weights 10, 10, 5, 5.
RBC_HD Box decode_region(const Box& proposal, float dx, float dy, float dw, float dh) {
  return decode_box(proposal, dx / 10.0f, dy / 10.0f, dw / 5.0f, dh / 5.0f);
}

// Scales a box from the image on its canvas to the whole frame; both sizes are {height, width}.
RBC_HD Box scale_to_frame(const Box& box, const int32_t* image_hw, const int32_t* frame_hw) {
  const float down = static_cast<float>(frame_hw[0]) / static_cast<float>(image_hw[0]);
  const float across = static_cast<float>(frame_hw[1]) / static_cast<float>(image_hw[1]);
  return {box.x0 * across, box.y0 * down, box.x1 * across, box.y1 * down};
}

// Turns the box head's outputs into regions in frame pixels, surest first, equal scores by slot: torchvision's
// RoIHeads.postprocess_detections and GeneralizedRCNNTransform.postprocess, but that a proposal is a candidate for its
// likeliest class alone, and that regions suppress each other whatever their classes: no cell comes out as two things.
// For two classes there is no difference. Candidates with a NaN in a logit or in their class's deltas are dropped.
//   class_count   2..kMostClasses; class 0 is the background
//   class_logits  float32 [images * slots, class_count]
//   box_deltas    float32 [images * slots, 4 * class_count], dx dy dw dh of class c in 4c..4c+3
//   proposals     float32 [images, slots, 4] canvas px, of which the first proposal_counts[n] are read
//   image_hw      int32 [images, 2], the part of the canvas that holds the image
//   frame_hw      int32 [images, 2], the frame at full resolution
//   boxes         float32 [images, max_regions, 4] frame px, zero from counts[n] on
//   scores        float32 [images, max_regions], likewise
//   classes       uint8 [images, max_regions], 1..class_count - 1, likewise
//   counts        int32 [images]
//   saturated     bool [images], more than max_regions survived, so the least sure were left out
void postprocess_detections_cpu(const float* class_logits, const float* box_deltas, const Box* proposals,
                                const int32_t* proposal_counts, int64_t images, int64_t slots, int32_t class_count,
                                const int32_t* image_hw, const int32_t* frame_hw,
                                const DetectionSettings& settings, Box* boxes, float* scores, uint8_t* classes,
                                int32_t* counts, bool* saturated, int threads);

// The GPU's limit of slots.
constexpr int32_t kMostSlots = 4096;

// Scratch memory for a launch: on the device, 16-byte aligned, its content of no interest before and after.
size_t postprocess_detections_workspace_bytes(int64_t images, int64_t slots);

// The same regions in the same order on a GPU. T is float or Half. All pointers are to device memory.
template <typename T>
void launch_postprocess_detections(const T* class_logits, const T* box_deltas, const Box* proposals,
                                   const int32_t* proposal_counts, int64_t images, int64_t slots, int32_t class_count,
                                   const int32_t* image_hw, const int32_t* frame_hw,
                                   const DetectionSettings& settings, void* workspace, Box* boxes, float* scores,
                                   uint8_t* classes, int32_t* counts, bool* saturated, cudaStream_t stream);

}  // namespace rbc
