#pragma once
// Random frames with rows further apart than they are long, as a view into a larger image has.
#include <vector>

#include "check.h"
#include "frame_view.h"

struct Frames {
  std::vector<std::vector<uint8_t>> pixels;
  std::vector<rbc::FrameView> views;

  Frames(check::Random& random, int count, int most_side) {
    for (int n = 0; n < count; ++n) {
      const int height = random.whole(1, most_side), width = random.whole(1, most_side);
      const int row_bytes = 3 * width + random.whole(0, 7);
      // Ends with the last pixel of the last row, so that AddressSanitizer sees a read beyond it.
      const size_t bytes = static_cast<size_t>(height - 1) * row_bytes + 3 * width;
      pixels.push_back(random.many<uint8_t>(bytes, [&] { return random.whole(0, 255); }));
      views.push_back({pixels.back().data(), height, width, row_bytes});
    }
  }
};
