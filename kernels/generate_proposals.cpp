#include "generate_proposals.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "nms.h"
#include "parallel.h"
#include "rank.h"

namespace rbc {
namespace {

struct Proposals {
  std::vector<Box> boxes;
  std::vector<float> logits;
};

// Keys of the best `most` anchors of one image, best first.
std::vector<uint64_t> best_anchors(const ProposalLevel& level, const float* logits, int32_t most) {
  const int64_t cells = static_cast<int64_t>(level.height) * level.width;
  std::vector<uint64_t> keys;
  keys.reserve(static_cast<size_t>(cells * level.anchors));
  for (int32_t a = 0; a < level.anchors; ++a) {
    for (int64_t cell = 0; cell < cells; ++cell) {
      const float logit = logits[a * cells + cell];
      if (!std::isnan(logit)) keys.push_back(rank_key(logit, static_cast<uint32_t>(cell * level.anchors + a)));
    }
  }
  if (keys.size() > static_cast<size_t>(most)) {
    std::nth_element(keys.begin(), keys.begin() + most, keys.end());
    keys.resize(most);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

Proposals level_proposals(const ProposalLevel& level, int64_t image, const int32_t* hw,
                          const ProposalSettings& settings) {
  const int64_t cells = static_cast<int64_t>(level.height) * level.width;
  const float* logits = level.objectness + image * level.anchors * cells;
  const float* deltas = level.deltas + image * level.anchors * 4 * cells;
  const float height = static_cast<float>(hw[0]), width = static_cast<float>(hw[1]);
  Proposals decoded;
  for (const uint64_t key : best_anchors(level, logits, settings.per_level)) {
    const int64_t cell = rank_index(key) / level.anchors, a = rank_index(key) % level.anchors;
    const Box anchor = place_anchor(level.base_anchors[a], cell % level.width, cell / level.width, level.stride_px);
    const float* delta = deltas + a * 4 * cells + cell;
    const Box box = clip_box(
        decode_box(anchor, delta[0], delta[cells], delta[2 * cells], delta[3 * cells]), height, width);
    if (!sides_at_least(box, kMinProposalSidePx)) continue;
    decoded.boxes.push_back(box);
    decoded.logits.push_back(logits[a * cells + cell]);
  }
  Proposals kept;
  for (const int32_t i : nms_cpu(decoded.boxes, settings.max_iou, settings.keep)) {
    kept.boxes.push_back(decoded.boxes[i]);
    kept.logits.push_back(decoded.logits[i]);
  }
  return kept;
}

// Writes the best `keep` of all levels of one image; returns how many there are.
int32_t merge_levels(const Proposals* levels, int32_t level_count, int32_t keep, Box* boxes) {
  std::vector<Box> all;
  std::vector<uint64_t> keys;
  for (int32_t l = 0; l < level_count; ++l) {
    for (size_t i = 0; i < levels[l].boxes.size(); ++i) {
      keys.push_back(rank_key(levels[l].logits[i], static_cast<uint32_t>(all.size())));
      all.push_back(levels[l].boxes[i]);
    }
  }
  std::sort(keys.begin(), keys.end());
  const auto count = static_cast<int32_t>(std::min(keys.size(), static_cast<size_t>(keep)));
  for (int32_t i = 0; i < count; ++i) boxes[i] = all[rank_index(keys[i])];
  std::fill(boxes + count, boxes + keep, Box{});
  return count;
}

}  // namespace

void generate_proposals_cpu(const ProposalLevel* levels, int32_t level_count, int64_t images,
                            const int32_t* image_hw, const ProposalSettings& settings, Box* boxes,
                            int32_t* counts, int threads) {
  std::vector<Proposals> found(static_cast<size_t>(images) * level_count);
  parallel_for(images * level_count, threads, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t n = unit / level_count;
      found[unit] = level_proposals(levels[unit % level_count], n, image_hw + 2 * n, settings);
    }
  });
  for (int64_t n = 0; n < images; ++n) {
    counts[n] = merge_levels(&found[n * level_count], level_count, settings.keep, boxes + n * settings.keep);
  }
}

}  // namespace rbc
