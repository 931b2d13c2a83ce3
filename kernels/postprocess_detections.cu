#include "postprocess_detections.cuh"

#include "cuda_launch.h"

namespace rbc {

size_t postprocess_detections_workspace_bytes(int64_t images, int64_t slots) {
  return static_cast<size_t>(images) * slots * (sizeof(Box) + sizeof(float));
}

// A thousand slots: 36 kB read, 0.1 MFLOP of double precision for two exponentials of each score and four of each box,
// and at most 10 MFLOP for the overlaps of all pairs: under a microsecond of bytes or operations on any chip (on a T4,
// with 0.25 TFLOP/s of double, too). The bound is the latency of one block an image: 55 steps of the sort and a turn of
// one warp for each region taken, of the order of 30 us whatever the batch.
template <typename T>
void launch_postprocess_detections(const T* class_logits, const T* box_deltas, const Box* proposals,
                                   const int32_t* proposal_counts, int64_t images, int64_t slots,
                                   const int32_t* image_hw, const int32_t* frame_hw,
                                   const DetectionSettings& settings, void* workspace, Box* boxes, float* scores,
                                   int32_t* counts, bool* saturated, cudaStream_t stream) {
  if (images == 0) return;
  static_assert(kMostSlots == kMostCandidates);
  require(slots <= kMostSlots, "postprocess_detections: slots must be at most 4096", slots);
  require(images <= INT32_MAX, "postprocess_detections: a launch takes at most 2147483647 images", images);
  DetectionCandidates candidates{};
  candidates.boxes = static_cast<Box*>(workspace);
  candidates.scores = reinterpret_cast<float*>(candidates.boxes + images * slots);
  launch(postprocess_detections_kernel<T>, dim3(static_cast<unsigned>(images)), dim3(kCandidateThreads), stream,
         class_logits, box_deltas, proposals, proposal_counts, slots, image_hw, frame_hw, settings, candidates, boxes,
         scores, counts, saturated);
}

template void launch_postprocess_detections(const float*, const float*, const Box*, const int32_t*, int64_t, int64_t,
                                            const int32_t*, const int32_t*, const DetectionSettings&, void*, Box*,
                                            float*, int32_t*, bool*, cudaStream_t);
template void launch_postprocess_detections(const Half*, const Half*, const Box*, const int32_t*, int64_t, int64_t,
                                            const int32_t*, const int32_t*, const DetectionSettings&, void*, Box*,
                                            float*, int32_t*, bool*, cudaStream_t);

}  // namespace rbc
