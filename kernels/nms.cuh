#pragma once
#include "box.h"
#include "candidates.cuh"

namespace rbc {

// Whether the IoU exceeds max_iou, as nms_cpu decides. Most pairs lie apart and need no division.
__device__ __forceinline__ bool suppresses(const Box& taken, const Box& other, float max_iou) {
  return taken.x0 < other.x1 && other.x0 < taken.x1 && taken.y0 < other.y1 && other.y0 < taken.y1 &&
         box_iou(taken, box_area(taken), other, box_area(other)) > max_iou;
}

// Greedy non-maximum suppression by one block, with the decisions of nms_cpu. `boxes`, best first,
// are thinned in place with their tags, whatever the caller wants to know of each: the first
// `limit` that are taken move to the front. Returns how many they are.
//   alive  a bit a box, up to a multiple of 32: zero for boxes that take no part; overwritten. In
//          shared memory.
// Boxes go by tiles of 32: all warps find which of a tile suppress each other, one settles by these
// bits which are taken, and all strike out later boxes.
template <typename Tag>
__device__ int32_t nms_in_place(Box* boxes, Tag* tags, uint32_t* alive, int32_t count, float max_iou, int32_t limit) {
  // for each box of a tile the later ones of the tile that it suppresses
  __shared__ uint32_t suppressed_by[kWarp];
  __shared__ Box tile_boxes[kWarp];          // the boxes of a tile that are taken
  __shared__ int32_t tile_taken;
  const int32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int32_t kept = 0;
  for (int32_t first = 0; first < count && kept < limit; first += kWarp) {
    const int32_t i = first + lane;
    const Box box = i < count ? boxes[i] : Box{};
    for (int32_t row = warp; row < kWarp && first + row < count; row += kCandidateThreads / kWarp) {
      const Box row_box = boxes[first + row];
      const uint32_t word = __ballot_sync(~0u, lane > row && suppresses(row_box, box, max_iou));
      if (lane == 0) suppressed_by[row] = word;
    }
    __syncthreads();
    if (warp == 0) {
      const Tag tag = i < count ? tags[i] : Tag{};
      const uint32_t suppressed = suppressed_by[lane];
      uint32_t waiting = alive[first / kWarp], taken = 0;
      while (waiting) {
        const int32_t best = __ffs(waiting) - 1;
        taken |= 1u << best;
        waiting &= ~(__shfl_sync(~0u, suppressed, best) | 1u << best);
      }
      __syncwarp();  // every lane has read its tag: one may now be overwritten
      const int32_t place = __popc(taken & ((1u << lane) - 1));
      if (taken >> lane & 1) {
        tile_boxes[place] = box;
        // Never beyond this tile, and that is in registers.
        if (kept + place < limit) boxes[kept + place] = box, tags[kept + place] = tag;
      }
      if (lane == 0) tile_taken = __popc(taken);
    }
    __syncthreads();
    const int32_t taken = tile_taken;
    for (int32_t later = first + kWarp * (1 + warp); later < count; later += kCandidateThreads) {
      bool stays = alive[later / kWarp] >> lane & 1;
      if (stays) {
        const Box other = boxes[later + lane];
        for (int32_t k = 0; k < taken && stays; ++k) stays = !suppresses(tile_boxes[k], other, max_iou);
      }
      const uint32_t word = __ballot_sync(~0u, stays);
      if (lane == 0) alive[later / kWarp] = word;
    }
    // no barrier: the next tile's first one keeps this one's boxes until all have read them
    kept += taken;
  }
  return kept < limit ? kept : limit;
}

}  // namespace rbc
