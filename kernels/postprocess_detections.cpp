#include "postprocess_detections.h"

#include <algorithm>
#include <vector>

#include "nms.h"
#include "parallel.h"
#include "rank.h"

namespace rbc {

void postprocess_detections_cpu(const float* class_logits, const float* box_deltas, const Box* proposals,
                                const int32_t* proposal_counts, int64_t images, int64_t slots, int32_t class_count,
                                const int32_t* image_hw, const int32_t* frame_hw,
                                const DetectionSettings& settings, Box* boxes, float* scores, uint8_t* classes,
                                int32_t* counts, bool* saturated, int threads) {
  parallel_for(images, threads, [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> keys;
    std::vector<Box> decoded, ranked;
    std::vector<float> score_of;
    std::vector<uint8_t> label_of;
    for (int64_t n = begin; n < end; ++n) {
      keys.clear(), decoded.clear(), ranked.clear(), score_of.clear(), label_of.clear();
      const float height = static_cast<float>(image_hw[2 * n]), width = static_cast<float>(image_hw[2 * n + 1]);
      for (int64_t row = n * slots; row < n * slots + proposal_counts[n]; ++row) {
        const float* logits = class_logits + row * class_count;
        const auto logit = [logits](int32_t c) { return logits[c]; };
        const int32_t label = likeliest_class(logit, class_count);
        const float score = class_score(logit, class_count, label);
        if (!(score > settings.score_threshold)) continue;  // NaN too
        const float* deltas = box_deltas + 4 * (row * class_count + label);
        const Box box = clip_box(decode_region(proposals[row], deltas[0], deltas[1], deltas[2], deltas[3]), height,
                                 width);
        if (!sides_at_least(box, kMinDetectionSidePx)) continue;
        keys.push_back(rank_key(score, static_cast<uint32_t>(decoded.size())));
        decoded.push_back(box);
        score_of.push_back(score);
        label_of.push_back(static_cast<uint8_t>(label));
      }
      std::sort(keys.begin(), keys.end());
      for (const uint64_t key : keys) ranked.push_back(decoded[rank_index(key)]);

      // One more than fits, to learn whether the cap left any out.
      const std::vector<int32_t> kept = nms_cpu(ranked, settings.max_iou, int64_t{settings.max_regions} + 1);
      saturated[n] = static_cast<int64_t>(kept.size()) > settings.max_regions;
      counts[n] = saturated[n] ? settings.max_regions : static_cast<int32_t>(kept.size());
      Box* out_boxes = boxes + n * settings.max_regions;
      float* out_scores = scores + n * settings.max_regions;
      uint8_t* out_classes = classes + n * settings.max_regions;
      for (int32_t i = 0; i < counts[n]; ++i) {
        out_boxes[i] = scale_to_frame(ranked[kept[i]], image_hw + 2 * n, frame_hw + 2 * n);
        out_scores[i] = score_of[rank_index(keys[kept[i]])];
        out_classes[i] = label_of[rank_index(keys[kept[i]])];
      }
      std::fill(out_boxes + counts[n], out_boxes + settings.max_regions, Box{});
      std::fill(out_scores + counts[n], out_scores + settings.max_regions, 0.0f);
      std::fill(out_classes + counts[n], out_classes + settings.max_regions, uint8_t{0});
    }
  });
}

}  // namespace rbc
