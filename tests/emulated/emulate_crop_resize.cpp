// crop_resize on the emulator equals the CPU's op to the bit, and rounded to fp16 in its other
// form.
#include "frames.h"
#include "kernels/crop_resize.cpp"
#include "kernels/crop_resize.cu"

int main() {
  return check::run([] {
    for (unsigned seed = 0; seed < check::cases(20, 2); ++seed) {
      check::Random random(seed);
      const int frame_count = random.whole(1, 2), count = random.whole(0, 4), size = random.whole(1, 40);
      const Frames frames(random, frame_count, 60);
      std::vector<float> windows;
      std::vector<int32_t> frame_index;
      for (int n = 0; n < count; ++n) {
        const float x = random.real(-40, 60), y = random.real(-40, 60);
        // the widest have more taps than are kept
        const float most = random.chance(0.2) ? 3000.0f : 80.0f;
        for (const float edge : {x, y, x + random.real(0.1f, most), y + random.real(0.1f, most)}) {
          windows.push_back(edge);
        }
        frame_index.push_back(random.whole(0, frame_count - 1));
      }
      const float mean[3] = {120.0f, 130.5f, 140.0f}, std[3] = {50.0f, 60.0f, 70.5f};
      const size_t values = static_cast<size_t>(count) * 3 * size * size;
      auto expected = check::garbage<float>(values);
      rbc::crop_resize_cpu(frames.views.data(), windows.data(), frame_index.data(), count, size, mean, std,
                           expected.data(), 1);
      const std::vector<_Float16> rounded(expected.begin(), expected.end());
      check::in_every_order([&](const std::string& order) {
        const std::string what = "seed " + std::to_string(seed) + ", " + order;
        auto patches = check::garbage<float>(values);
        rbc::launch_crop_resize(frames.views.data(), windows.data(), frame_index.data(), count, size, mean, std,
                                patches.data(), nullptr);
        check::same(what, expected, patches);
        auto halves = check::garbage<_Float16>(values);
        rbc::launch_crop_resize(frames.views.data(), windows.data(), frame_index.data(), count, size, mean, std,
                                reinterpret_cast<rbc::Half*>(halves.data()), nullptr);
        check::same(what + ", fp16", rounded, halves);
      });
    }
  });
}
