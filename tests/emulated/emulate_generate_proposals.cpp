// generate_proposals on the emulator gives the CPU's boxes, to the bit and in the CPU's order, from
// float and from fp16.
#define RBC_CANDIDATE_THREADS 64
#include <cmath>

#include "check.h"
#include "kernels/generate_proposals.cpp"
#include "kernels/generate_proposals.cu"
#include "kernels/nms.cpp"

namespace {

struct Level {
  std::vector<_Float16> half_logits, half_deltas;
  std::vector<float> logits, deltas;
  std::vector<rbc::Box> anchors;
  int height, width, stride_px;

  Level(check::Random& random, int images, int anchor_count, int stride, double spoilt, bool ties)
      : height(random.whole(1, 9)), width(random.whole(1, 9)), stride_px(stride) {
    const size_t cells = static_cast<size_t>(images) * anchor_count * height * width;
    const auto draw = [&](float spread) {
      const float bad[] = {NAN, INFINITY, -INFINITY, 6e4f, -0.0f};
      return random.chance(spoilt) ? bad[random.whole(0, 4)] : random.real(-spread, spread);
    };
    half_logits = random.many<_Float16>(cells, [&] {
      const float logit = draw(5);
      return static_cast<_Float16>(ties ? std::round(logit / 2) : logit);
    });
    half_deltas = random.many<_Float16>(4 * cells, [&] { return static_cast<_Float16>(draw(1.5f)); });
    logits.assign(half_logits.begin(), half_logits.end());
    deltas.assign(half_deltas.begin(), half_deltas.end());
    for (int a = 0; a < anchor_count; ++a) {
      const float half_width = random.real(1, 8), half_height = random.real(1, 8);
      anchors.push_back({-half_width, -half_height, half_width, half_height});
    }
  }
};

void run_case(unsigned seed) {
  check::Random random(seed);
  // the first case has several levels, and all candidates are sound
  const bool ordinary = seed == 0;
  const int images = random.whole(1, 2), level_count = random.whole(ordinary ? 3 : 1, 3), anchors = random.whole(1, 3);
  const double spoilt = ordinary ? 0.0 : std::vector<double>{0.0, 0.1, 1.0}[random.whole(0, 2)];
  const bool ties = random.chance(0.5);
  std::vector<Level> data;
  std::vector<rbc::ProposalLevel> levels;
  std::vector<rbc::ProposalLevelOf<rbc::Half>> half_levels;
  for (int l = 0; l < level_count; ++l) data.emplace_back(random, images, anchors, 4 << l, spoilt, ties);
  for (const Level& level : data) {
    levels.push_back({level.logits.data(), level.deltas.data(), level.anchors.data(), anchors, level.height,
                      level.width, level.stride_px});
    half_levels.push_back({reinterpret_cast<const rbc::Half*>(level.half_logits.data()),
                           reinterpret_cast<const rbc::Half*>(level.half_deltas.data()), level.anchors.data(),
                           anchors, level.height, level.width, level.stride_px});
  }
  const auto image_hw = random.many<int32_t>(2 * images, [&] { return random.whole(1, 50); });
  const float max_iou = ordinary ? 0.7f : std::vector<float>{0.0f, 0.3f, 0.7f, 1.0f}[random.whole(0, 3)];
  const int fewest = ordinary ? 60 : 1;  // more than two tiles of boxes
  const rbc::ProposalSettings settings{random.whole(fewest, 200), random.whole(fewest, 100), max_iou};

  const size_t slots = static_cast<size_t>(images) * settings.keep;
  auto expected_boxes = check::garbage<rbc::Box>(slots);
  auto expected_counts = check::garbage<int32_t>(images);
  rbc::generate_proposals_cpu(levels.data(), level_count, images, image_hw.data(), settings, expected_boxes.data(),
                              expected_counts.data(), 1);
  check::in_every_order([&](const std::string& order) {
    const auto compare = [&](const std::string& type, const auto* typed_levels) {
      const std::string what = "seed " + std::to_string(seed) + ", " + order + ", " + type;
      auto boxes = check::garbage<rbc::Box>(slots);
      auto counts = check::garbage<int32_t>(images);
      auto workspace =
          check::garbage<uint8_t>(rbc::generate_proposals_workspace_bytes(level_count, images, settings));
      rbc::launch_generate_proposals(typed_levels, level_count, images, image_hw.data(), settings, workspace.data(),
                                     boxes.data(), counts.data(), nullptr);
      check::same(what + ", counts", expected_counts, counts);
      check::same(what + ", boxes", expected_boxes, boxes);
    };
    compare("float", levels.data());
    compare("fp16", half_levels.data());
  });
}

}  // namespace

int main() {
  return check::run([] {
    for (unsigned seed = 0; seed < check::cases(25, 3); ++seed) run_case(seed);
  });
}
