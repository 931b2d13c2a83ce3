#pragma once
// Tiles of tensor cores, 16 x 16 x 16, fp16 into float. Every thread of a warp holds the whole of a
// factor and every 32nd element of a sum: which thread holds what is nobody's business but the
// hardware's.
#include <array>
#include <stdexcept>

#include "cuda_fp16.h"
#include "emulator.h"

namespace nvcuda::wmma {

constexpr unsigned kSide = 16, kElements = kSide * kSide;

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
  static_assert(M == kSide && N == kSide && K == kSide);
  std::array<float, kElements> at;  // row by row
};

inline void check_tile(const void* address, unsigned stride, unsigned stride_multiple) {
  if (reinterpret_cast<uintptr_t>(address) % 32 || stride % stride_multiple) {
    throw std::logic_error("a tile must begin at a multiple of 32 bytes and its rows be a multiple of 16 bytes apart");
  }
}

template <typename Use, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, half, Layout>& tile, const half* from, unsigned stride) {
  static_assert(std::is_same_v<Use, matrix_a> ? std::is_same_v<Layout, row_major> : std::is_same_v<Layout, col_major>);
  check_tile(from, stride, 8);
  for (unsigned i = 0; i < kElements; ++i) tile.at[i] = __half2float(from[i / kSide * stride + i % kSide]);
}

inline void fill_fragment(fragment<accumulator, 16, 16, 16, float>& tile, float value) { tile.at.fill(value); }

// sum = a * b + sum; b is kept transposed, as col_major loads it.
inline void mma_sync(fragment<accumulator, 16, 16, 16, float>& sum,
                     const fragment<matrix_a, 16, 16, 16, half, row_major>& a,
                     const fragment<matrix_b, 16, 16, 16, half, col_major>& b,
                     const fragment<accumulator, 16, 16, 16, float>& addend) {
  const unsigned lane = emulator::thread_number() % emulator::kWarp;
  for (unsigned i = lane; i < kElements; i += emulator::kWarp) {
    float total = addend.at[i];
    for (unsigned k = 0; k < kSide; ++k) total += a.at[i / kSide * kSide + k] * b.at[i % kSide * kSide + k];
    sum.at[i] = total;
  }
}

inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& tile, unsigned stride,
                              layout_t layout) {
  if (layout != mem_row_major) throw std::logic_error("the emulator stores row by row only");
  check_tile(to, stride, 4);
  const unsigned lane = emulator::thread_number() % emulator::kWarp;
  for (unsigned i = lane; i < kElements; i += emulator::kWarp) to[i / kSide * stride + i % kSide] = tile.at[i];
}

}  // namespace nvcuda::wmma
