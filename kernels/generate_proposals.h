#pragma once
#include <cstdint>

#include "box.h"

namespace rbc {

// One level of the region proposal network, for all images.
//   objectness    float32 [images, anchors, height, width], logits
//   deltas        float32 [images, anchors * 4, height, width], dx dy dw dh of anchor a in channels 4a..4a+3
//   base_anchors  float32 [anchors, 4], around (0, 0), canvas px
struct ProposalLevel {
  const float* objectness;
  const float* deltas;
  const Box* base_anchors;
  int32_t anchors;
  int32_t height;
  int32_t width;
  int32_t stride_px;
};

struct ProposalSettings {
  int32_t per_level;  // candidates of a level that enter its NMS, the best by logit
  int32_t keep;       // proposals of an image, the best of all levels
  float max_iou;
};

// Candidates with a NaN, or with a side under this after clipping, are dropped (canvas px).
constexpr float kMinProposalSidePx = 1e-3f;

// Decodes anchors, clips to the image, suppresses overlaps within each level and keeps the best over all levels:
// torchvision's RegionProposalNetwork.filter_proposals. Equal logits rank by level, then by (y * width + x) *
// anchors + a.
//   image_hw  int32 [images, 2], the part of the canvas that holds the image
//   boxes     float32 [images, keep, 4] canvas px, zero from counts[n] on
//   counts    int32 [images]
void generate_proposals_cpu(const ProposalLevel* levels, int32_t level_count, int64_t images,
                            const int32_t* image_hw, const ProposalSettings& settings, Box* boxes,
                            int32_t* counts, int threads);

}  // namespace rbc
