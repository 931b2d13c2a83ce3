// resize_letterbox on the emulator equals the CPU's op to the bit.
#include "frames.h"
#include "kernels/resize_letterbox.cpp"
#include "kernels/resize_letterbox.cu"

int main() {
  return check::run([] {
    for (unsigned seed = 0; seed < check::cases(20, 4); ++seed) {
      check::Random random(seed);
      const int count = random.whole(0, 3), height = random.whole(1, 20), width = random.whole(1, 70);
      const Frames frames(random, count, 60);
      std::vector<int32_t> resized_hw;
      for (int n = 0; n < count; ++n) {
        resized_hw.push_back(random.whole(1, height)), resized_hw.push_back(random.whole(1, width));
      }
      const float level = seed % 2 ? 170.0f : 0.0f;
      const size_t bytes = static_cast<size_t>(count) * height * width * 3;
      auto expected = check::garbage<uint8_t>(bytes);
      rbc::resize_letterbox_cpu(frames.views.data(), count, resized_hw.data(), height, width, level, expected.data(),
                                1);
      check::in_every_order([&](const std::string& order) {
        auto workspace = check::garbage<uint8_t>(rbc::resize_letterbox_workspace_bytes(count));
        auto got = check::garbage<uint8_t>(bytes);
        rbc::launch_resize_letterbox(frames.views.data(), count, resized_hw.data(), height, width, level,
                                     workspace.data(), got.data(), nullptr);
        check::same("seed " + std::to_string(seed) + ", " + order, expected, got);
      });
    }
  });
}
