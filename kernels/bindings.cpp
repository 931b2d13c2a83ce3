// The only file that knows Python. Arguments have been checked by engine/ops.py; here they become raw
// pointers, and the GIL is released around every kernel.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "crop_resize.h"
#include "resize_letterbox.h"

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

void resize_letterbox(const py::list& frames, const Array<int32_t>& resized_hw,
                      const std::array<uint8_t, 3>& fill_rgb, Array<uint8_t>& canvases, int threads) {
  const auto views = frame_views(frames);
  const int32_t* sizes = resized_hw.data();
  uint8_t* out = canvases.mutable_data();
  const auto height = static_cast<int32_t>(canvases.shape(1));
  const auto width = static_cast<int32_t>(canvases.shape(2));
  py::gil_scoped_release release;
  rbc::resize_letterbox_cpu(views.data(), static_cast<int64_t>(views.size()), sizes, height, width,
                            fill_rgb.data(), out, threads);
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

}  // namespace

PYBIND11_MODULE(_kernels, module) {
  module.doc() = "Kernels of rbc-engine. Call them through rbc_engine.ops, which checks the arguments.";
  module.def("resize_letterbox", &resize_letterbox);
  module.def("crop_resize", &crop_resize);
}
