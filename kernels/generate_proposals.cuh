#pragma once
#include <cmath>

#include "generate_proposals.h"
#include "half.cuh"
#include "nms.cuh"

namespace rbc {

template <typename T>
struct ProposalPyramid {
  ProposalLevelOf<T> levels[kMostProposalLevels];
};

// The proposals of each level, best first, between the two kernels.
struct LevelProposals {
  Box* boxes;       // [images, levels, per_level]
  float* logits;    // [images, levels, per_level]
  int32_t* counts;  // [images, levels]
};

// level_proposals of the CPU's op.
//   grid  levels x images
template <typename T>
__global__ __launch_bounds__(kCandidateThreads, 1) void level_proposals_kernel(
    const __grid_constant__ ProposalPyramid<T> pyramid, const int32_t* image_hw, ProposalSettings settings,
    LevelProposals found) {
  __shared__ CandidateSpace space;
  __shared__ uint32_t alive[kMostCandidates / kWarp];
  const ProposalLevelOf<T>& level = pyramid.levels[blockIdx.x];
  const int64_t n = blockIdx.y;
  const uint32_t anchors = level.anchors, cells = level.height * level.width;
  const T* logits = level.objectness + n * anchors * cells;
  const T* deltas = level.deltas + n * anchors * 4 * cells;
  constexpr uint32_t kAtOnce = 4;  // logits on their way to a thread
  const auto each_key = [&](const auto& visit) {
    for (uint32_t a = 0; a < anchors; ++a) {
      for (uint32_t first = threadIdx.x; first < cells; first += kAtOnce * kCandidateThreads) {
        float logit[kAtOnce];
        for (uint32_t k = 0; k < kAtOnce; ++k) {
          const uint32_t cell = first + k * kCandidateThreads;
          logit[k] = cell < cells ? to_float(logits[a * cells + cell]) : NAN;
        }
        for (uint32_t k = 0; k < kAtOnce; ++k) {
          const uint32_t cell = first + k * kCandidateThreads;
          if (logit[k] == logit[k]) visit(rank_key(logit[k], cell * anchors + a));
        }
      }
    }
  };
  const uint64_t last = last_key_kept(each_key, settings.per_level, space.histogram);
  const int32_t candidates = sorted_keys(each_key, last, space.keys);

  const int64_t list = n * gridDim.x + blockIdx.x;
  Box* boxes = found.boxes + list * settings.per_level;
  float* scores = found.logits + list * settings.per_level;
  const float height = static_cast<float>(image_hw[2 * n]), width = static_cast<float>(image_hw[2 * n + 1]);
  for_each_bit(candidates, alive, [&](int32_t i) {
    const uint32_t cell = rank_index(space.keys[i]) / anchors, a = rank_index(space.keys[i]) % anchors;
    const T* delta = deltas + static_cast<int64_t>(a) * 4 * cells + cell;
    const Box anchor = place_anchor(level.base_anchors[a], cell % level.width, cell / level.width, level.stride_px);
    boxes[i] = clip_box(decode_box(anchor, to_float(delta[0]), to_float(delta[cells]), to_float(delta[2 * cells]),
                                   to_float(delta[3 * cells])),
                        height, width);
    scores[i] = to_float(logits[a * cells + cell]);
    return sides_at_least(boxes[i], kMinProposalSidePx);
  });
  __syncthreads();
  const int32_t kept = nms_in_place(boxes, scores, alive, candidates, settings.max_iou, settings.keep);
  if (threadIdx.x == 0) found.counts[list] = kept;
}

// merge_levels of the CPU's op, without a sort: a proposal's place is its place in its own level
// and, for each other level, the number of those there that come before it.
//   grid  levels x images
__global__ __launch_bounds__(kCandidateThreads) void merge_levels_kernel(LevelProposals found,
                                                                         ProposalSettings settings, Box* boxes,
                                                                         int32_t* counts) {
  const int32_t level_count = gridDim.x, own = blockIdx.x;
  const int64_t n = blockIdx.y, first = n * level_count * settings.per_level;
  const float* logits = found.logits + first;
  const Box* candidates = found.boxes + first;
  const int32_t* found_counts = found.counts + n * level_count;
  Box* out = boxes + n * settings.keep;
  for (int32_t i = threadIdx.x; i < found_counts[own]; i += kCandidateThreads) {
    const uint64_t key = rank_key(logits[own * settings.per_level + i], own);
    int32_t place = i;
    for (int32_t other = 0; other < level_count; ++other) {
      if (other == own) continue;
      int32_t low = 0, high = found_counts[other];
      while (low < high) {
        const int32_t middle = (low + high) / 2;
        if (rank_key(logits[other * settings.per_level + middle], other) < key) low = middle + 1;
        else high = middle;
      }
      place += low;
    }
    if (place < settings.keep) out[place] = candidates[own * settings.per_level + i];
  }
  if (own != 0) return;
  int32_t total = 0;
  for (int32_t l = 0; l < level_count; ++l) total += found_counts[l];
  const int32_t count = total < settings.keep ? total : settings.keep;
  for (int32_t i = count + threadIdx.x; i < settings.keep; i += kCandidateThreads) out[i] = Box{};
  if (threadIdx.x == 0) counts[n] = count;
}

}  // namespace rbc
