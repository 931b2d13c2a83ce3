#pragma once
// fp16 by the compiler's own _Float16: IEEE binary16, rounded to nearest even.
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half value) {
  _Float16 number;
  std::memcpy(&number, &value, sizeof number);
  return static_cast<float>(number);
}

inline __half __float2half_rn(float value) {
  const auto number = static_cast<_Float16>(value);
  __half half;
  std::memcpy(&half, &number, sizeof half);
  return half;
}

inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half value) { return value.bits; }

typedef __half half;
