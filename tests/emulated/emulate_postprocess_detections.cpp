// postprocess_detections on the emulator gives the CPU's regions, to the bit and in the CPU's
// order, from float and fp16.
#define RBC_CANDIDATE_THREADS 64
#include <cmath>

#include "check.h"
#include "kernels/nms.cpp"
#include "kernels/postprocess_detections.cpp"
#include "kernels/postprocess_detections.cu"

namespace {

// std::vector<bool> has no bools to point to.
struct Regions {
  std::vector<rbc::Box> boxes;
  std::vector<float> scores;
  std::vector<uint8_t> classes;
  std::vector<int32_t> counts;
  std::vector<uint8_t> saturated;

  Regions(int images, int most)
      : boxes(check::garbage<rbc::Box>(static_cast<size_t>(images) * most)),
        scores(check::garbage<float>(static_cast<size_t>(images) * most)),
        classes(check::garbage<uint8_t>(static_cast<size_t>(images) * most)),
        counts(check::garbage<int32_t>(images)),
        saturated(check::garbage<uint8_t>(images)) {}

  bool* flags() { return reinterpret_cast<bool*>(saturated.data()); }
};

void run_case(unsigned seed) {
  check::Random random(seed);
  const bool ordinary = seed == 0;  // the first case has many candidates, and all of them are sound
  const int images = random.whole(1, 3), slots = random.whole(ordinary ? 100 : 0, 120);
  const int class_count = ordinary ? 4 : std::vector<int>{2, 3, 4, 16}[random.whole(0, 3)];
  const double spoilt = ordinary ? 0.0 : std::vector<double>{0.0, 0.1, 1.0}[random.whole(0, 2)];
  const bool ties = random.chance(0.5);
  const auto draw = [&](float spread) {
    const float bad[] = {NAN, INFINITY, -INFINITY, 6e4f};
    const float value = random.chance(spoilt) ? bad[random.whole(0, 3)] : random.real(-spread, spread);
    return static_cast<_Float16>(ties ? std::round(value) : value);
  };
  const size_t rows = static_cast<size_t>(images) * slots;
  const auto half_logits = random.many<_Float16>(class_count * rows, [&] { return draw(5); });
  const auto half_deltas = random.many<_Float16>(4 * class_count * rows, [&] { return draw(2); });
  const std::vector<float> logits(half_logits.begin(), half_logits.end());
  const std::vector<float> deltas(half_deltas.begin(), half_deltas.end());
  const auto proposals = random.many<rbc::Box>(rows, [&] {
    const float x = random.real(-5, 60), y = random.real(-5, 60);
    if (random.chance(0.1)) return rbc::Box{x, y, x, y};
    return rbc::Box{x, y, x + random.real(0, 25), y + random.real(0, 25)};
  });
  const auto counts = random.many<int32_t>(images, [&] { return random.whole(ordinary ? slots : 0, slots); });
  const auto image_hw = random.many<int32_t>(2 * images, [&] { return random.whole(20, 64); });
  const auto frame_hw = random.many<int32_t>(2 * images, [&] { return random.whole(1, 2000); });
  const float threshold = ordinary ? 0.05f : std::vector<float>{0.0f, 0.05f, 0.5f, 1.0f}[random.whole(0, 3)];
  const float max_iou = ordinary ? 0.7f : std::vector<float>{0.0f, 0.3f, 0.7f, 1.0f}[random.whole(0, 3)];
  const rbc::DetectionSettings settings{threshold, max_iou, random.whole(1, 60)};

  Regions expected(images, settings.max_regions);
  rbc::postprocess_detections_cpu(logits.data(), deltas.data(), proposals.data(), counts.data(), images, slots,
                                  class_count, image_hw.data(), frame_hw.data(), settings, expected.boxes.data(),
                                  expected.scores.data(), expected.classes.data(), expected.counts.data(),
                                  expected.flags(), 1);
  check::in_every_order([&](const std::string& order) {
    const auto compare = [&](const std::string& type, const auto* typed_logits, const auto* typed_deltas) {
      const std::string what = "seed " + std::to_string(seed) + ", " + order + ", " + type;
      Regions got(images, settings.max_regions);
      auto workspace = check::garbage<uint8_t>(rbc::postprocess_detections_workspace_bytes(images, slots));
      rbc::launch_postprocess_detections(typed_logits, typed_deltas, proposals.data(), counts.data(), images, slots,
                                         class_count, image_hw.data(), frame_hw.data(), settings, workspace.data(),
                                         got.boxes.data(), got.scores.data(), got.classes.data(), got.counts.data(),
                                         got.flags(), nullptr);
      check::same(what + ", counts", expected.counts, got.counts);
      check::same(what + ", boxes", expected.boxes, got.boxes);
      check::same(what + ", scores", expected.scores, got.scores);
      check::same(what + ", classes", expected.classes, got.classes);
      check::same(what + ", saturated", expected.saturated, got.saturated);
    };
    compare("float", logits.data(), deltas.data());
    compare("fp16", reinterpret_cast<const rbc::Half*>(half_logits.data()),
            reinterpret_cast<const rbc::Half*>(half_deltas.data()));
  });
}

}  // namespace

int main() {
  return check::run([] {
    for (unsigned seed = 0; seed < check::cases(40, 3); ++seed) run_case(seed);
  });
}
