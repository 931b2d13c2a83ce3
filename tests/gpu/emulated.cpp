// The launchers and their bindings over the emulator, as a Python module: what tests/gpu does,
// without a GPU.
#include <pybind11/pybind11.h>

#include "emulator/emulator.h"
#include "kernels/bindings_cuda.cpp"
#include "kernels/crop_resize.cu"
#include "kernels/fused_heads.cu"
#include "kernels/generate_proposals.cu"
#include "kernels/postprocess_detections.cu"
#include "kernels/resize_letterbox.cu"
#include "kernels/roi_align.cu"

PYBIND11_MODULE(emulated, module) { rbc::bind_cuda(module); }
