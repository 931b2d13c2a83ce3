// The CPU's ops for Python. Arguments have been checked by engine/devices/cpu/ops.py; here they become raw
// pointers, and the GIL is released around every kernel.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "bindings.h"
#include "crop_resize.h"
#include "generate_proposals.h"
#include "measure_field.h"
#include "postprocess_detections.h"
#include "resize_letterbox.h"
#include "roi_align.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Borrows the frames: the caller keeps the list alive for the length of the call.
std::vector<rbc::FrameView> frame_views(const py::list& frames) {
  std::vector<rbc::FrameView> views;
  views.reserve(frames.size());
  for (const py::handle& item : frames) {
    const auto frame = py::reinterpret_borrow<py::array_t<uint8_t>>(item);
    views.push_back({frame.data(), static_cast<int32_t>(frame.shape(0)),
                     static_cast<int32_t>(frame.shape(1)), frame.strides(0)});
  }
  return views;
}

const rbc::Box* boxes_of(const Array<float>& boxes) { return reinterpret_cast<const rbc::Box*>(boxes.data()); }

rbc::Box* boxes_of(Array<float>& boxes) { return reinterpret_cast<rbc::Box*>(boxes.mutable_data()); }

void resize_letterbox(const py::list& frames, const Array<int32_t>& resized_hw, float background_level,
                      Array<uint8_t>& canvases, int threads) {
  const auto views = frame_views(frames);
  const int32_t* sizes = resized_hw.data();
  uint8_t* out = canvases.mutable_data();
  const auto height = static_cast<int32_t>(canvases.shape(1));
  const auto width = static_cast<int32_t>(canvases.shape(2));
  py::gil_scoped_release release;
  rbc::resize_letterbox_cpu(views.data(), static_cast<int64_t>(views.size()), sizes, height, width,
                            background_level, out, threads);
}

void crop_resize(const py::list& frames, const Array<float>& windows, const Array<int32_t>& frame_index,
                 const std::array<float, 3>& mean, const std::array<float, 3>& std, Array<float>& patches,
                 int threads) {
  const auto views = frame_views(frames);
  const float* boxes = windows.data();
  const int32_t* index = frame_index.data();
  float* out = patches.mutable_data();
  const int64_t count = patches.shape(0);
  const auto size = static_cast<int32_t>(patches.shape(2));
  py::gil_scoped_release release;
  rbc::crop_resize_cpu(views.data(), boxes, index, count, size, mean.data(), std.data(), out, threads);
}

void generate_proposals(const std::vector<Array<float>>& objectness, const std::vector<Array<float>>& deltas,
                        const std::vector<Array<float>>& base_anchors, const std::vector<int32_t>& strides_px,
                        const Array<int32_t>& image_hw, int32_t per_level, double nms_iou, Array<float>& boxes,
                        Array<int32_t>& counts, int threads) {
  std::vector<rbc::ProposalLevel> levels;
  for (size_t l = 0; l < objectness.size(); ++l) {
    levels.push_back({objectness[l].data(), deltas[l].data(), boxes_of(base_anchors[l]),
                      static_cast<int32_t>(objectness[l].shape(1)), static_cast<int32_t>(objectness[l].shape(2)),
                      static_cast<int32_t>(objectness[l].shape(3)), strides_px[l]});
  }
  const int64_t images = boxes.shape(0);
  const rbc::ProposalSettings settings{per_level, static_cast<int32_t>(boxes.shape(1)), rbc::round_down(nms_iou)};
  const int32_t* sizes = image_hw.data();
  rbc::Box* out = boxes_of(boxes);
  int32_t* out_counts = counts.mutable_data();
  py::gil_scoped_release release;
  rbc::generate_proposals_cpu(levels.data(), static_cast<int32_t>(levels.size()), images, sizes, settings, out,
                              out_counts, threads);
}

void roi_align(const std::vector<Array<float>>& features, const Array<float>& boxes, const Array<int32_t>& counts,
               int32_t sampling_ratio, int32_t finest_level, int32_t canonical_level, float canonical_px,
               Array<float>& pooled, int threads) {
  std::vector<rbc::FeatureLevel> levels;
  for (const Array<float>& level : features) {
    levels.push_back({level.data(), static_cast<int32_t>(level.shape(2)), static_cast<int32_t>(level.shape(3))});
  }
  const rbc::RoiAlignSettings settings{static_cast<int32_t>(pooled.shape(2)), sampling_ratio, finest_level,
                                       canonical_level, canonical_px};
  const rbc::Box* in = boxes_of(boxes);
  const int32_t* in_counts = counts.data();
  const int64_t images = boxes.shape(0), slots = boxes.shape(1);
  const auto channels = static_cast<int32_t>(pooled.shape(1));
  float* out = pooled.mutable_data();
  py::gil_scoped_release release;
  rbc::roi_align_cpu(levels.data(), static_cast<int32_t>(levels.size()), images, channels, in, in_counts, slots,
                     settings, out, threads);
}

void postprocess_detections(const Array<float>& class_logits, const Array<float>& box_deltas,
                            const Array<float>& proposals, const Array<int32_t>& proposal_counts,
                            const Array<int32_t>& image_hw, const Array<int32_t>& frame_hw, float score_threshold,
                            double nms_iou, Array<float>& boxes, Array<float>& scores, Array<uint8_t>& classes,
                            Array<int32_t>& counts, Array<bool>& saturated, int threads) {
  const rbc::DetectionSettings settings{score_threshold, rbc::round_down(nms_iou),
                                        static_cast<int32_t>(boxes.shape(1))};
  const float *logits = class_logits.data(), *deltas = box_deltas.data();
  const rbc::Box* in = boxes_of(proposals);
  const int32_t *in_counts = proposal_counts.data(), *image = image_hw.data(), *frame = frame_hw.data();
  const int64_t images = proposals.shape(0), slots = proposals.shape(1);
  const auto class_count = static_cast<int32_t>(class_logits.shape(1));
  rbc::Box* out = boxes_of(boxes);
  float* out_scores = scores.mutable_data();
  uint8_t* out_classes = classes.mutable_data();
  int32_t* out_counts = counts.mutable_data();
  bool* out_saturated = saturated.mutable_data();
  py::gil_scoped_release release;
  rbc::postprocess_detections_cpu(logits, deltas, in, in_counts, images, slots, class_count, image, frame, settings,
                                  out, out_scores, out_classes, out_counts, out_saturated, threads);
}

py::dict measure_field(const py::array_t<uint8_t>& frame) {
  const rbc::FrameView view{frame.data(), static_cast<int32_t>(frame.shape(0)), static_cast<int32_t>(frame.shape(1)),
                            frame.strides(0)};
  rbc::FieldMeasure field;
  {
    py::gil_scoped_release release;
    field = rbc::measure_field_cpu(view);
  }
  using namespace py::literals;
  return py::dict("size_from"_a = static_cast<int32_t>(field.from), "cell_px"_a = field.cell_px,
                  "confidence"_a = field.confidence, "round_count"_a = field.round_count, "round_px"_a = field.round_px,
                  "round_spread"_a = field.round_spread, "arc_count"_a = field.arc_count, "arc_px"_a = field.arc_px,
                  "arc_spread"_a = field.arc_spread, "lit_box"_a = field.lit_box, "lit_share"_a = field.lit_share,
                  "surround"_a = field.surround, "background"_a = field.background, "density"_a = field.density,
                  "foreground"_a = field.foreground, "edge_px"_a = field.edge_px, "scale"_a = field.scale);
}

}  // namespace

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "Kernels of rbc-engine. Call them through rbc_engine.devices.cpu.ops, which checks the arguments.";
  module.attr("commit") = RBC_COMMIT;
#ifdef RBC_CUDA
  module.attr("has_cuda") = true;
  rbc::bind_cuda(module.def_submodule("cuda", "Launches on a stream; see _kernels.pyi."));
#else
  module.attr("has_cuda") = false;
#endif
  module.def("resize_letterbox", &resize_letterbox);
  module.def("crop_resize", &crop_resize);
  module.def("generate_proposals", &generate_proposals);
  module.def("roi_align", &roi_align);
  module.def("postprocess_detections", &postprocess_detections);
  module.def("measure_field", &measure_field);
}
