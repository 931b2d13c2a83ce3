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

// Softmax over (background, region).
RBC_HD float region_score(const float* class_logits) {
  return 1.0f / (1.0f + exp_rounded(class_logits[0] - class_logits[1]));
}

// Decodes the deltas of the region class, the second four of eight, with Faster R-CNN's weights 10, 10, 5, 5.
RBC_HD Box decode_region(const Box& proposal, const float* box_deltas) {
  return decode_box(proposal, box_deltas[4] / 10.0f, box_deltas[5] / 10.0f, box_deltas[6] / 5.0f,
                    box_deltas[7] / 5.0f);
}

// Scales a box from the image on its canvas to the whole frame; both sizes are {height, width}.
RBC_HD Box scale_to_frame(const Box& box, const int32_t* image_hw, const int32_t* frame_hw) {
  const float down = static_cast<float>(frame_hw[0]) / static_cast<float>(image_hw[0]);
  const float across = static_cast<float>(frame_hw[1]) / static_cast<float>(image_hw[1]);
  return {box.x0 * across, box.y0 * down, box.x1 * across, box.y1 * down};
}

// Turns the box head's outputs into regions in frame pixels, surest first, equal scores by slot: torchvision's
// RoIHeads.postprocess_detections and GeneralizedRCNNTransform.postprocess. Candidates with a NaN are dropped.
//   class_logits  float32 [images * slots, 2]
//   box_deltas    float32 [images * slots, 8]
//   proposals     float32 [images, slots, 4] canvas px, of which the first proposal_counts[n] are read
//   image_hw      int32 [images, 2], the part of the canvas that holds the image
//   frame_hw      int32 [images, 2], the frame at full resolution
//   boxes         float32 [images, max_regions, 4] frame px, zero from counts[n] on
//   scores        float32 [images, max_regions], likewise
//   counts        int32 [images]
//   saturated     bool [images], more than max_regions survived, so the least sure were left out
void postprocess_detections_cpu(const float* class_logits, const float* box_deltas, const Box* proposals,
                                const int32_t* proposal_counts, int64_t images, int64_t slots,
                                const int32_t* image_hw, const int32_t* frame_hw,
                                const DetectionSettings& settings, Box* boxes, float* scores,
                                int32_t* counts, bool* saturated, int threads);

// The GPU's limit of slots.
constexpr int32_t kMostSlots = 4096;

// Scratch memory for a launch: on the device, 16-byte aligned, its content of no interest before and after.
size_t postprocess_detections_workspace_bytes(int64_t images, int64_t slots);

// The same regions in the same order on a GPU. T is float or Half. All pointers are to device memory.
template <typename T>
void launch_postprocess_detections(const T* class_logits, const T* box_deltas, const Box* proposals,
                                   const int32_t* proposal_counts, int64_t images, int64_t slots,
                                   const int32_t* image_hw, const int32_t* frame_hw,
                                   const DetectionSettings& settings, void* workspace, Box* boxes, float* scores,
                                   int32_t* counts, bool* saturated, cudaStream_t stream);

}  // namespace rbc
