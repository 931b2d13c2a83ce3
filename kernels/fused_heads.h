#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda_stream.h"
#include "half.h"

namespace rbc {

// Layout of the trunk's last feature map in memory. TensorRT's kLINEAR is kNchw; its kHWC8 is
// kNhwc, for the number of features is a multiple of 8.
enum class FeatureLayout { kNchw, kNhwc };

// T networks features -> hidden -> 1, one per type.
struct HeadShape {
  int32_t features;  // a multiple of 64
  int32_t hidden;    // a multiple of 64
  int32_t types;
};

// As training exports them, model.head.* in classifier.onnx. In device memory, 16-byte aligned.
struct HeadWeights {
  const Half* first_weight;   // [types * hidden, features]
  const Half* first_bias;     // [types * hidden]
  const Half* second_weight;  // [types, hidden]
  const Half* second_bias;    // [types]
};

// Most types on the GPU.
constexpr int32_t kMostTypes = 4096;

// Scratch memory for a launch: on the device, 16-byte aligned, with no meaningful content before or
// after.
size_t fused_heads_workspace_bytes(int64_t patches, const HeadShape& shape);

// The classifier's head on a GPU: the mean over the pixels of each feature, rounded to fp16; for
// each type a layer with ReLU and one without; sigmoid. Sums are in float, always in the same
// order; NaN in, NaN out. On a CPU the head is part of the network.
//   feature_map    fp16 [patches, features, pixels], or [patches, pixels, features] if kNhwc
//   probabilities  float32 [patches, types]
// All pointers are to device memory.
void launch_fused_heads(const Half* feature_map, FeatureLayout layout, int64_t patches, int32_t pixels,
                        const HeadShape& shape, const HeadWeights& weights, void* workspace, float* probabilities,
                        cudaStream_t stream);

}  // namespace rbc
