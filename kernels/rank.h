#pragma once
// The order of candidates: higher score first, equal scores by lower index. Both are packed into
// one integer, smallest first, so that any sort of the keys gives the same, total order on every
// device.
#include <cstdint>
#include <cstring>

#include "hd.h"

namespace rbc {

// `score` must not be NaN.
RBC_HD uint64_t rank_key(float score, uint32_t index) {
  const float unsigned_zero = score + 0.0f;  // -0 and +0 are equal scores
  uint32_t bits;
  memcpy(&bits, &unsigned_zero, sizeof bits);
  // Bits of positive floats rise with their value, those of negative ones fall.
  const uint32_t rising = (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~rising) << 32 | index;
}

RBC_HD uint32_t rank_index(uint64_t key) { return static_cast<uint32_t>(key); }

}  // namespace rbc
