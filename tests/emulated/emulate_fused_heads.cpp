// fused_heads on the emulator, for test_emulated.py to compare with numpy.
//   arguments        patches pixels features hidden types layout (nchw or nhwc)
//   standard input   fp16: feature map, first weight and bias, second weight and bias
//   standard output  float32 [patches, types], which every order of threads has to give alike
#include "check.h"
#include "kernels/fused_heads.cu"

namespace {

std::vector<rbc::Half> read_halves(size_t count) {
  std::vector<rbc::Half> values(count);
  if (std::fread(values.data(), sizeof(rbc::Half), count, stdin) != count) throw std::runtime_error("input ends early");
  return values;
}

}  // namespace

int main(int, char** arguments) {
  return check::run([&] {
    const auto number = [&](int position) { return static_cast<size_t>(std::atoll(arguments[position])); };
    const size_t patches = number(1), pixels = number(2), features = number(3), hidden = number(4), types = number(5);
    const auto layout =
        std::string(arguments[6]) == "nchw" ? rbc::FeatureLayout::kNchw : rbc::FeatureLayout::kNhwc;
    const auto feature_map = read_halves(patches * features * pixels);
    const auto first_weight = read_halves(types * hidden * features), first_bias = read_halves(types * hidden);
    const auto second_weight = read_halves(types * hidden), second_bias = read_halves(types);
    const rbc::HeadShape shape{static_cast<int32_t>(features), static_cast<int32_t>(hidden),
                               static_cast<int32_t>(types)};
    const rbc::HeadWeights weights{first_weight.data(), first_bias.data(), second_weight.data(), second_bias.data()};
    std::vector<float> first;
    check::in_every_order([&](const std::string& order) {
      auto probabilities = check::garbage<float>(patches * types);
      auto workspace = check::garbage<uint8_t>(rbc::fused_heads_workspace_bytes(patches, shape));
      rbc::launch_fused_heads(feature_map.data(), layout, patches, static_cast<int32_t>(pixels), shape, weights,
                              workspace.data(), probabilities.data(), nullptr);
      if (first.empty()) first = probabilities;
      check::same(order, first, probabilities);
    });
    std::fwrite(first.data(), sizeof(float), first.size(), stdout);
  });
}
