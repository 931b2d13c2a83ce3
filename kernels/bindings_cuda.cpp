// The launchers for Python, typed in engine/_kernels.pyi. Addresses in device memory and the stream
// arrive as integers: the caller is responsible for the memory and its lifetime. A launch returns
// before its work is done.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "crop_resize.h"
#include "fused_heads.h"
#include "generate_proposals.h"
#include "postprocess_detections.h"
#include "resize_letterbox.h"
#include "roi_align.h"

namespace py = pybind11;

namespace rbc {
namespace {

// bytes; arrays that kernels read 16 bytes at a time are aligned to this
constexpr size_t kWideLoad = 16;

template <typename T>
T* at(const char* name, uintptr_t address, size_t alignment = alignof(T)) {
  if (address == 0 || address % alignment != 0) {
    throw std::invalid_argument(std::string(name) + " must be an address that is a multiple of " +
                                std::to_string(alignment) + " (got " + std::to_string(address) + ")");
  }
  return reinterpret_cast<T*>(address);
}

cudaStream_t stream_at(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

using Sizes = std::initializer_list<std::pair<const char*, int64_t>>;

void require_at_least(int64_t least, const Sizes& sizes) {
  for (const auto& [name, size] : sizes) {
    if (size >= least) continue;
    throw std::invalid_argument(std::string(name) + " must be at least " + std::to_string(least) + " (got " +
                                std::to_string(size) + ")");
  }
}

template <typename Entries>
void require_one_a_level(const char* name, const Entries& entries, size_t levels) {
  if (entries.size() == levels) return;
  throw std::invalid_argument(std::string(name) + " must have one entry for each of " + std::to_string(levels) +
                              " levels (got " + std::to_string(entries.size()) + ")");
}

// Calls launch(T{}) for the type of a network's arrays.
template <typename Launch>
void with_type(bool fp16, const Launch& launch) {
  if (fp16) launch(Half{});
  else launch(float{});
}

using Addresses = std::vector<uintptr_t>;

void resize_letterbox(uintptr_t frames, int64_t count, uintptr_t resized_hw, std::array<int32_t, 2> canvas_hw,
                      float background_level, uintptr_t workspace, uintptr_t canvases, uintptr_t stream) {
  require_at_least(0, {{"count", count}});
  require_at_least(1, {{"canvas_hw", canvas_hw[0]}, {"canvas_hw", canvas_hw[1]}});
  if (count == 0) return;
  launch_resize_letterbox(at<const FrameView>("frames", frames), count, at<const int32_t>("resized_hw", resized_hw),
                          canvas_hw[0], canvas_hw[1], background_level,
                          at<std::byte>("workspace", workspace, kWideLoad), at<uint8_t>("canvases", canvases),
                          stream_at(stream));
}

void generate_proposals(const Addresses& objectness, const Addresses& deltas, const Addresses& base_anchors,
                        const std::vector<std::array<int32_t, 3>>& shapes, const std::vector<int32_t>& strides_px,
                        int64_t images, uintptr_t image_hw, int32_t per_level, int32_t keep, double nms_iou,
                        uintptr_t workspace, uintptr_t boxes, uintptr_t counts, bool fp16, uintptr_t stream) {
  const size_t level_count = objectness.size();
  require_one_a_level("deltas", deltas, level_count);
  require_one_a_level("base_anchors", base_anchors, level_count);
  require_one_a_level("shapes", shapes, level_count);
  require_one_a_level("strides_px", strides_px, level_count);
  require_at_least(0, {{"images", images}});
  require_at_least(1, {{"levels", level_count}, {"per_level", per_level}, {"keep", keep}});
  for (const auto& [anchors, height, width] : shapes) {
    require_at_least(1, {{"anchors", anchors}, {"height", height}, {"width", width}});
  }
  if (images == 0) return;
  with_type(fp16, [&](auto zero) {
    using T = decltype(zero);
    std::vector<ProposalLevelOf<T>> levels;
    for (size_t l = 0; l < level_count; ++l) {
      levels.push_back({at<const T>("objectness", objectness[l]), at<const T>("deltas", deltas[l]),
                        at<const Box>("base_anchors", base_anchors[l]), shapes[l][0], shapes[l][1], shapes[l][2],
                        strides_px[l]});
    }
    launch_generate_proposals(levels.data(), static_cast<int32_t>(level_count), images,
                              at<const int32_t>("image_hw", image_hw), {per_level, keep, round_down(nms_iou)},
                              at<std::byte>("workspace", workspace, kWideLoad), at<Box>("boxes", boxes),
                              at<int32_t>("counts", counts), stream_at(stream));
  });
}

void roi_align(const Addresses& features, const std::vector<std::array<int32_t, 2>>& level_hw, int64_t images,
               int32_t channels, uintptr_t boxes, uintptr_t counts, int64_t slots, int32_t output_size,
               int32_t sampling_ratio, int32_t finest_level, int32_t canonical_level, float canonical_px,
               uintptr_t pooled, bool fp16, uintptr_t stream) {
  const size_t level_count = features.size();
  require_one_a_level("level_hw", level_hw, level_count);
  require_at_least(0, {{"images", images}, {"slots", slots}});
  require_at_least(1, {{"levels", level_count},
                       {"channels", channels},
                       {"output_size", output_size},
                       {"sampling_ratio", sampling_ratio}});
  for (const auto& [height, width] : level_hw) require_at_least(1, {{"height", height}, {"width", width}});
  if (images == 0 || slots == 0) return;
  with_type(fp16, [&](auto zero) {
    using T = decltype(zero);
    std::vector<FeatureLevelOf<T>> levels;
    for (size_t l = 0; l < level_count; ++l) {
      levels.push_back({at<const T>("features", features[l]), level_hw[l][0], level_hw[l][1]});
    }
    launch_roi_align(levels.data(), static_cast<int32_t>(level_count), images, channels,
                     at<const Box>("boxes", boxes), at<const int32_t>("counts", counts), slots,
                     {output_size, sampling_ratio, finest_level, canonical_level, canonical_px},
                     at<T>("pooled", pooled), stream_at(stream));
  });
}

void postprocess_detections(uintptr_t class_logits, uintptr_t box_deltas, uintptr_t proposals,
                            uintptr_t proposal_counts, int64_t images, int64_t slots, int32_t class_count,
                            uintptr_t image_hw, uintptr_t frame_hw, float score_threshold, double nms_iou,
                            int32_t max_regions, uintptr_t workspace, uintptr_t boxes, uintptr_t scores,
                            uintptr_t classes, uintptr_t counts, uintptr_t saturated, bool fp16, uintptr_t stream) {
  require_at_least(0, {{"images", images}});
  require_at_least(1, {{"slots", slots}, {"max_regions", max_regions}});
  if (images == 0) return;
  with_type(fp16, [&](auto zero) {
    using T = decltype(zero);
    launch_postprocess_detections(
        at<const T>("class_logits", class_logits), at<const T>("box_deltas", box_deltas),
        at<const Box>("proposals", proposals), at<const int32_t>("proposal_counts", proposal_counts), images, slots,
        class_count, at<const int32_t>("image_hw", image_hw), at<const int32_t>("frame_hw", frame_hw),
        {score_threshold, round_down(nms_iou), max_regions}, at<std::byte>("workspace", workspace, kWideLoad),
        at<Box>("boxes", boxes), at<float>("scores", scores), at<uint8_t>("classes", classes),
        at<int32_t>("counts", counts), at<bool>("saturated", saturated), stream_at(stream));
  });
}

void crop_resize(uintptr_t frames, uintptr_t windows, uintptr_t frame_index, int64_t count, int32_t size_px,
                 std::array<float, 3> mean, std::array<float, 3> std, uintptr_t patches, bool fp16,
                 uintptr_t stream) {
  require_at_least(0, {{"count", count}});
  require_at_least(1, {{"size_px", size_px}});
  if (count == 0) return;
  with_type(fp16, [&](auto zero) {
    using T = decltype(zero);
    launch_crop_resize(at<const FrameView>("frames", frames), at<const float>("windows", windows),
                       at<const int32_t>("frame_index", frame_index), count, size_px, mean.data(), std.data(),
                       at<T>("patches", patches), stream_at(stream));
  });
}

void fused_heads(uintptr_t feature_map, bool channels_last, int64_t patches, int32_t pixels, int32_t features,
                 int32_t hidden, int32_t types, uintptr_t first_weight, uintptr_t first_bias,
                 uintptr_t second_weight, uintptr_t second_bias, uintptr_t workspace, uintptr_t probabilities,
                 uintptr_t stream) {
  require_at_least(0, {{"patches", patches}});
  require_at_least(1, {{"pixels", pixels}, {"features", features}, {"hidden", hidden}, {"types", types}});
  if (patches == 0) return;
  const HeadWeights weights{at<const Half>("first_weight", first_weight, kWideLoad),
                            at<const Half>("first_bias", first_bias), at<const Half>("second_weight", second_weight),
                            at<const Half>("second_bias", second_bias)};
  launch_fused_heads(at<const Half>("feature_map", feature_map),
                     channels_last ? FeatureLayout::kNhwc : FeatureLayout::kNchw, patches, pixels,
                     {features, hidden, types}, weights, at<std::byte>("workspace", workspace, kWideLoad),
                     at<float>("probabilities", probabilities), stream_at(stream));
}

size_t resize_letterbox_workspace(int64_t count) {
  require_at_least(0, {{"count", count}});
  return resize_letterbox_workspace_bytes(count);
}

size_t generate_proposals_workspace(int32_t levels, int64_t images, int32_t per_level) {
  require_at_least(0, {{"levels", levels}, {"images", images}, {"per_level", per_level}});
  return generate_proposals_workspace_bytes(levels, images, {per_level, 0, 0.0f});
}

size_t postprocess_detections_workspace(int64_t images, int64_t slots) {
  require_at_least(0, {{"images", images}, {"slots", slots}});
  return postprocess_detections_workspace_bytes(images, slots);
}

size_t fused_heads_workspace(int64_t patches, int32_t features, int32_t hidden, int32_t types) {
  require_at_least(0, {{"patches", patches}, {"features", features}, {"hidden", hidden}, {"types", types}});
  return fused_heads_workspace_bytes(patches, {features, hidden, types});
}

// Defines a function whose arguments are all given by name.
template <typename Function, typename... Names>
void define(py::module_& module, const char* name, Function function, const Names&... names) {
  module.def(name, function, py::kw_only(), py::arg(names)..., py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_cuda(py::module_ module) {
  define(module, "resize_letterbox", &resize_letterbox, "frames", "count", "resized_hw", "canvas_hw",
         "background_level", "workspace", "canvases", "stream");
  define(module, "resize_letterbox_workspace_bytes", &resize_letterbox_workspace, "count");
  define(module, "generate_proposals", &generate_proposals, "objectness", "deltas", "base_anchors", "shapes",
         "strides_px", "images", "image_hw", "per_level", "keep", "nms_iou", "workspace", "boxes", "counts", "fp16",
         "stream");
  define(module, "generate_proposals_workspace_bytes", &generate_proposals_workspace, "levels", "images",
         "per_level");
  define(module, "roi_align", &roi_align, "features", "level_hw", "images", "channels", "boxes", "counts", "slots",
         "output_size", "sampling_ratio", "finest_level", "canonical_level", "canonical_px", "pooled", "fp16",
         "stream");
  define(module, "postprocess_detections", &postprocess_detections, "class_logits", "box_deltas", "proposals",
         "proposal_counts", "images", "slots", "class_count", "image_hw", "frame_hw", "score_threshold", "nms_iou",
         "max_regions", "workspace", "boxes", "scores", "classes", "counts", "saturated", "fp16", "stream");
  define(module, "postprocess_detections_workspace_bytes", &postprocess_detections_workspace, "images", "slots");
  define(module, "crop_resize", &crop_resize, "frames", "windows", "frame_index", "count", "size_px", "mean", "std",
         "patches", "fp16", "stream");
  define(module, "fused_heads", &fused_heads, "feature_map", "channels_last", "patches", "pixels", "features",
         "hidden", "types", "first_weight", "first_bias", "second_weight", "second_bias", "workspace",
         "probabilities", "stream");
  define(module, "fused_heads_workspace_bytes", &fused_heads_workspace, "patches", "features", "hidden", "types");
}

}  // namespace rbc
