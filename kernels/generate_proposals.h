#pragma once
#include <cstddef>
#include <cstdint>

#include "box.h"
#include "cuda_stream.h"
#include "half.h"

namespace rbc {

// One level of the region proposal network, for all images.
//   objectness    T [images, anchors, height, width], logits
//   deltas        T [images, anchors * 4, height, width], dx dy dw dh of anchor a in channels
//                 4a..4a+3
//   base_anchors  float32 [anchors, 4], around (0, 0), canvas px
template <typename T>
struct ProposalLevelOf {
  const T* objectness;
  const T* deltas;
  const Box* base_anchors;
  int32_t anchors;
  int32_t height;
  int32_t width;
  int32_t stride_px;
};

using ProposalLevel = ProposalLevelOf<float>;

struct ProposalSettings {
  int32_t per_level;  // candidates per level that enter its NMS, the best by logit
  int32_t keep;       // proposals per image, the best of all levels
  float max_iou;
};

// Candidates with a NaN, or with a side under this after clipping, are dropped (canvas px).
constexpr float kMinProposalSidePx = 1e-3f;

// A base anchor moved to its cell.
RBC_HD Box place_anchor(const Box& base, int64_t cell_x, int64_t cell_y, int32_t stride_px) {
  const float x = static_cast<float>(cell_x * stride_px), y = static_cast<float>(cell_y * stride_px);
  return {x + base.x0, y + base.y0, x + base.x1, y + base.y1};
}

// Decodes anchors, clips to the image, suppresses overlaps within each level and keeps the best
// over all levels: torchvision's RegionProposalNetwork.filter_proposals. Equal logits rank by
// level, then by (y * width + x) * anchors + a.
//   image_hw  int32 [images, 2], the part of the canvas that holds the image
//   boxes     float32 [images, keep, 4] canvas px, zero from counts[n] on
//   counts    int32 [images]
void generate_proposals_cpu(const ProposalLevel* levels, int32_t level_count, int64_t images,
                            const int32_t* image_hw, const ProposalSettings& settings, Box* boxes,
                            int32_t* counts, int threads);

// The GPU's limits: of levels, of settings.per_level, and of a level's anchors over all cells,
// whose deltas are counted in 32 bits.
constexpr int32_t kMostProposalLevels = 6;
constexpr int32_t kMostPerLevel = 4096;
constexpr int64_t kMostAnchors = (1 << 29) - 1;

// Scratch memory for a launch: on the device, 16-byte aligned, with no meaningful content before or
// after.
size_t generate_proposals_workspace_bytes(int32_t level_count, int64_t images, const ProposalSettings& settings);

// The same boxes in the same order on a GPU. T is float or Half. All pointers are to device memory,
// those in levels too, but `levels` itself is the host's.
template <typename T>
void launch_generate_proposals(const ProposalLevelOf<T>* levels, int32_t level_count, int64_t images,
                               const int32_t* image_hw, const ProposalSettings& settings, void* workspace,
                               Box* boxes, int32_t* counts, cudaStream_t stream);

}  // namespace rbc
