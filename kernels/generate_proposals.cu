#include "generate_proposals.cuh"

#include "cuda_launch.h"

namespace rbc {

size_t generate_proposals_workspace_bytes(int32_t level_count, int64_t images, const ProposalSettings& settings) {
  const size_t lists = static_cast<size_t>(level_count) * images;
  return lists * (settings.per_level * (sizeof(Box) + sizeof(float)) + sizeof(int32_t));
}

// A canvas of 320 x 416 with 6 anchors a cell has 50,000 + 12,500 + 3,100 + 780 logits: 0.13 MB of
// fp16, read from memory once and up to eight times more from L2, and 4,000 candidates' deltas in
// sectors of 32 bytes, 0.5 MB. Neither bytes (0.2 us on an H100, 2 us on a T4) nor the 10 MFLOP of
// a thousand boxes' overlaps are the bound, but the latency of one block that does the largest
// level: for each of 8 digits at most 13 turns of four loads a thread, 55 steps of the sort, and
// for each of 32 tiles of boxes a turn of one warp for each that is taken. That is of the order of
// 100 us whatever the batch, for the blocks of a batch of 8 run beside each other. Spreading a
// level over blocks would need a wait of all for all in each digit. The merge takes its binary
// searches' latency, a few microseconds.
template <typename T>
void launch_generate_proposals(const ProposalLevelOf<T>* levels, int32_t level_count, int64_t images,
                               const int32_t* image_hw, const ProposalSettings& settings, void* workspace,
                               Box* boxes, int32_t* counts, cudaStream_t stream) {
  if (images == 0) return;
  static_assert(kMostPerLevel == kMostCandidates);
  require(level_count <= kMostProposalLevels, "generate_proposals: a launch takes at most 6 levels", level_count);
  require(settings.per_level <= kMostPerLevel, "generate_proposals: per_level must be at most 4096",
          settings.per_level);
  require(images <= 65535, "generate_proposals: a launch takes at most 65535 images", images);
  ProposalPyramid<T> pyramid{};
  for (int32_t l = 0; l < level_count; ++l) {
    const int64_t anchors = int64_t{levels[l].anchors} * levels[l].height * levels[l].width;
    require(anchors <= kMostAnchors, "generate_proposals: a level must have at most 536870911 anchors", anchors);
    pyramid.levels[l] = levels[l];
  }
  const int64_t lists = images * level_count;
  LevelProposals found{};
  found.boxes = static_cast<Box*>(workspace);
  found.logits = reinterpret_cast<float*>(found.boxes + lists * settings.per_level);
  found.counts = reinterpret_cast<int32_t*>(found.logits + lists * settings.per_level);
  const dim3 grid(static_cast<unsigned>(level_count), static_cast<unsigned>(images));
  launch(level_proposals_kernel<T>, grid, dim3(kCandidateThreads), stream, pyramid, image_hw, settings, found);
  launch(merge_levels_kernel, grid, dim3(kCandidateThreads), stream, found, settings, boxes, counts);
}

template void launch_generate_proposals(const ProposalLevelOf<float>*, int32_t, int64_t, const int32_t*,
                                        const ProposalSettings&, void*, Box*, int32_t*, cudaStream_t);
template void launch_generate_proposals(const ProposalLevelOf<Half>*, int32_t, int64_t, const int32_t*,
                                        const ProposalSettings&, void*, Box*, int32_t*, cudaStream_t);

}  // namespace rbc
