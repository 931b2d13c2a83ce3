#include "postprocess_detections.cuh"

#include "cuda_launch.h"

namespace rbc {

size_t postprocess_detections_workspace_bytes(int64_t images, int64_t slots) {
  return static_cast<size_t>(images) * slots * (sizeof(Box) + sizeof(uint32_t));
}

// A thousand slots of four classes in fp16: 56 kB read (16 bytes a slot and 10 for each of its classes), 0.15 MFLOP of
// double precision for three exponentials of each score and four of each box, and at most 10 MFLOP for the overlaps of
// all pairs: about a microsecond of bytes or operations on any chip (on a T4, with 0.25 TFLOP/s of double, too). The
// bound is the latency of one block an image: 55 steps of the sort and a turn of one warp for each region taken, of the
// order of 30 us whatever the batch.
template <typename T>
void launch_postprocess_detections(const T* class_logits, const T* box_deltas, const Box* proposals,
                                   const int32_t* proposal_counts, int64_t images, int64_t slots, int32_t class_count,
                                   const int32_t* image_hw, const int32_t* frame_hw,
                                   const DetectionSettings& settings, void* workspace, Box* boxes, float* scores,
                                   uint8_t* classes, int32_t* counts, bool* saturated, cudaStream_t stream) {
  if (images == 0) return;
  static_assert(kMostSlots == kMostCandidates);
  require(slots <= kMostSlots, "postprocess_detections: slots must be at most 4096", slots);
  static_assert(kMostClasses == 16);
  require(class_count >= 2 && class_count <= kMostClasses, "postprocess_detections: class_count must lie in 2..16",
          class_count);
  require(images <= INT32_MAX, "postprocess_detections: a launch takes at most 2147483647 images", images);
  DetectionCandidates candidates{};
  candidates.boxes = static_cast<Box*>(workspace);
  candidates.ids = reinterpret_cast<uint32_t*>(candidates.boxes + images * slots);
  launch(postprocess_detections_kernel<T>, dim3(static_cast<unsigned>(images)), dim3(kCandidateThreads), stream,
         class_logits, box_deltas, proposals, proposal_counts, slots, class_count, image_hw, frame_hw, settings,
         candidates, boxes, scores, classes, counts, saturated);
}

template void launch_postprocess_detections(const float*, const float*, const Box*, const int32_t*, int64_t, int64_t,
                                            int32_t, const int32_t*, const int32_t*, const DetectionSettings&, void*,
                                            Box*, float*, uint8_t*, int32_t*, bool*, cudaStream_t);
template void launch_postprocess_detections(const Half*, const Half*, const Box*, const int32_t*, int64_t, int64_t,
                                            int32_t, const int32_t*, const int32_t*, const DetectionSettings&, void*,
                                            Box*, float*, uint8_t*, int32_t*, bool*, cudaStream_t);

}  // namespace rbc
