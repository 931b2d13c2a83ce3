#pragma once
// Candidates ranked by one block: the best of many by radix selection, in their order by a bitonic
// sort. Keys are those of rank.h, all different, so that neither atomics nor the order of threads
// show in the result. Every function is called by the whole block.
#include <cuda_runtime.h>

#include <cstdint>

#include "rank.h"

namespace rbc {

#ifndef RBC_CANDIDATE_THREADS
#define RBC_CANDIDATE_THREADS 1024  // the emulator's tests take fewer
#endif
constexpr int32_t kCandidateThreads = RBC_CANDIDATE_THREADS;
constexpr int32_t kMostCandidates = 4096;  // that a block can sort
constexpr uint64_t kNoKey = ~0ull;         // no candidate
constexpr int32_t kWarp = 32;
constexpr int32_t kDigits = 256;

// Each lane of a warp has its own copy of the histogram: logits have few different exponents, and
// additions to one address would wait for each other.
union CandidateSpace {
  uint32_t histogram[kDigits * kWarp];
  uint64_t keys[kMostCandidates];
};

// The sum of `value` over the lanes of a warp up to the caller's own.
__device__ inline uint32_t sum_up_to_lane(uint32_t value) {
  const int32_t lane = threadIdx.x % kWarp;
  for (int32_t distance = 1; distance < kWarp; distance *= 2) {
    const uint32_t below = __shfl_up_sync(~0u, value, distance);
    if (lane >= distance) value += below;
  }
  return value;
}

// The last of the `most` smallest keys, or some key after all of them if they are fewer. Finds it
// digit by digit, 8 bits at a time from the top.
//   each_key  calls its argument with each key of which the calling thread has charge
template <typename EachKey>
__device__ uint64_t last_key_kept(const EachKey& each_key, uint32_t most, uint32_t* histogram) {
  __shared__ uint32_t totals[kDigits];
  __shared__ int32_t digit;
  __shared__ uint32_t smaller;  // keys with the prefix and a smaller digit
  uint64_t prefix = 0;
  uint32_t wanted = most;  // of the keys with this prefix
  for (int32_t shift = 56; shift >= 0; shift -= 8) {
    for (int32_t i = threadIdx.x; i < kDigits * kWarp; i += kCandidateThreads) histogram[i] = 0;
    __syncthreads();
    if (threadIdx.x == 0) digit = -1;
    each_key([&](uint64_t key) {
      if (key >> shift >> 8 != prefix >> shift >> 8) return;
      atomicAdd(&histogram[(key >> shift & 255) * kWarp + threadIdx.x % kWarp], 1u);
    });
    __syncthreads();
    for (int32_t d = threadIdx.x; d < kDigits; d += kCandidateThreads) {
      uint32_t total = 0;
      // each a bank of its own
      for (int32_t k = 0; k < kWarp; ++k) total += histogram[d * kWarp + (k + d) % kWarp];
      totals[d] = total;
    }
    __syncthreads();
    if (threadIdx.x < kWarp) {
      const int32_t first = threadIdx.x * kDigits / kWarp, end = first + kDigits / kWarp;
      uint32_t own = 0;
      for (int32_t d = first; d < end; ++d) own += totals[d];
      uint32_t before = sum_up_to_lane(own) - own;
      for (int32_t d = first; d < end; ++d) {
        if (before < wanted && wanted <= before + totals[d]) digit = d, smaller = before;
        before += totals[d];
      }
    }
    __syncthreads();
    if (digit < 0) return kNoKey - 1;
    prefix |= static_cast<uint64_t>(digit) << shift;
    wanted -= smaller;
    if (totals[digit] == wanted) return prefix | ((1ull << shift) - 1);
  }
  return prefix;
}

// Sorts keys[0 .. count - 1], count a power of two. They have to be written and waited for before.
__device__ inline void sort_keys(uint64_t* keys, int32_t count) {
  for (int32_t run = 2; run <= count; run *= 2) {
    for (int32_t step = run / 2; step > 0; step /= 2) {
      for (int32_t i = threadIdx.x; i < count; i += kCandidateThreads) {
        const int32_t other = i ^ step;
        if (other < i) continue;
        const uint64_t a = keys[i], b = keys[other];
        if ((a > b) == ((i & run) == 0)) keys[i] = b, keys[other] = a;
      }
      __syncthreads();
    }
  }
}

// Puts the keys up to `last`, at most kMostCandidates of them, into `keys` in their order. Returns
// how many they are.
template <typename EachKey>
__device__ int32_t sorted_keys(const EachKey& each_key, uint64_t last, uint64_t* keys) {
  __shared__ int32_t found;
  if (threadIdx.x == 0) found = 0;
  __syncthreads();
  each_key([&](uint64_t key) {
    if (key <= last) keys[atomicAdd(&found, 1)] = key;
  });
  __syncthreads();
  const int32_t candidates = found;
  int32_t padded = 1;
  while (padded < candidates) padded *= 2;
  for (int32_t i = candidates + threadIdx.x; i < padded; i += kCandidateThreads) keys[i] = kNoKey;
  __syncthreads();
  sort_keys(keys, padded);
  return candidates;
}

// Calls body(i) for i = 0 .. count - 1 and keeps its answers, one bit each, in bits[i / 32].
template <typename Body>
__device__ void for_each_bit(int32_t count, uint32_t* bits, const Body& body) {
  const int32_t lane = threadIdx.x % kWarp;
  for (int32_t first = threadIdx.x - lane; first < count; first += kCandidateThreads) {
    const int32_t i = first + lane;
    const uint32_t word = __ballot_sync(~0u, i < count && body(i));
    if (lane == 0) bits[first / kWarp] = word;
  }
}

}  // namespace rbc
