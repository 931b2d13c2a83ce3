// roi_align on the emulator equals the CPU's op to the bit, and rounded to fp16 in its other form.
#include <cmath>

#include "check.h"
#include "kernels/roi_align.cpp"
#include "kernels/roi_align.cu"

namespace {

constexpr int kChannels = 35;  // a whole group of a block's channels and a part of one

rbc::Box random_box(check::Random& random) {
  const float x = random.real(-10, 70), y = random.real(-10, 70);
  if (random.chance(0.1)) return {x, y, x, y};
  if (random.chance(0.05)) return {NAN, 0, INFINITY, 8};
  return {x, y, x + random.real(0, 90), y + random.real(0, 90)};
}

}  // namespace

int main() {
  return check::run([] {
    for (unsigned seed = 0; seed < check::cases(12, 2); ++seed) {
      check::Random random(seed);
      const int images = random.whole(1, 2), slots = random.whole(0, 3), level_count = random.whole(1, 3);
      std::vector<std::vector<_Float16>> halves;
      std::vector<std::vector<float>> floats;
      std::vector<rbc::FeatureLevel> levels;
      std::vector<rbc::FeatureLevelOf<rbc::Half>> half_levels;
      for (int l = 0; l < level_count; ++l) {
        const int height = random.whole(1, 16 >> l), width = random.whole(1, 16 >> l);
        halves.push_back(random.many<_Float16>(static_cast<size_t>(images) * kChannels * height * width,
                                               [&] { return static_cast<_Float16>(random.real(-2, 2)); }));
        floats.emplace_back(halves.back().begin(), halves.back().end());
        levels.push_back({floats.back().data(), height, width});
        half_levels.push_back({reinterpret_cast<const rbc::Half*>(halves.back().data()), height, width});
      }
      const auto boxes = random.many<rbc::Box>(static_cast<size_t>(images) * slots, [&] { return random_box(random); });
      const auto counts = random.many<int32_t>(images, [&] { return random.whole(0, slots); });
      const rbc::RoiAlignSettings settings{random.whole(1, 7), random.whole(1, 3), 2, 3, 24.0f};
      const size_t values =
          static_cast<size_t>(images) * slots * kChannels * settings.output_size * settings.output_size;
      auto expected = check::garbage<float>(values);
      rbc::roi_align_cpu(levels.data(), level_count, images, kChannels, boxes.data(), counts.data(), slots, settings,
                         expected.data(), 1);
      const std::vector<_Float16> rounded(expected.begin(), expected.end());
      check::in_every_order([&](const std::string& order) {
        const std::string what = "seed " + std::to_string(seed) + ", " + order;
        auto pooled = check::garbage<float>(values);
        rbc::launch_roi_align(levels.data(), level_count, images, kChannels, boxes.data(), counts.data(), slots,
                              settings, pooled.data(), nullptr);
        check::same(what, expected, pooled);
        auto pooled_halves = check::garbage<_Float16>(values);
        rbc::launch_roi_align(half_levels.data(), level_count, images, kChannels, boxes.data(), counts.data(), slots,
                              settings, reinterpret_cast<rbc::Half*>(pooled_halves.data()), nullptr);
        check::same(what + ", fp16", rounded, pooled_halves);
      });
    }
  });
}
