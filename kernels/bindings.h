#pragma once
// Shared by the files that use Python.
#include <pybind11/pybind11.h>

#include <cmath>
#include <limits>

namespace rbc {

// The largest float that is not over `limit`: a float exceeds the one exactly when it exceeds the
// other, so float comparisons decide as torchvision's comparison with a double does.
inline float round_down(double limit) {
  const auto nearest = static_cast<float>(limit);
  return nearest > limit ? std::nextafter(nearest, -std::numeric_limits<float>::infinity()) : nearest;
}

// Fills the submodule `cuda`. Only where the CUDA kernels are compiled in.
void bind_cuda(pybind11::module_ module);

}  // namespace rbc
