#pragma once
#include <cstdint>

namespace rbc {

// IEEE fp16 as it lies in memory, for signatures that need no CUDA header.
struct Half {
  uint16_t bits;
};

}  // namespace rbc
