#pragma once
// Copies from global to shared memory that arrive some time before they are waited for. Which time
// shows a kernel that does not wait, or that still reads what they overwrite: even orders of
// threads copy at once, odd ones when waited for, and with RBC_EMULATOR_THREADS both, for
// ThreadSanitizer to see.
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include "emulator.h"

namespace emulator {

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

// Of one thread of the block: groups of copies that were committed and not yet waited for, and the
// group still open.
struct Pipeline {
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
};

#ifdef RBC_EMULATOR_THREADS
constexpr bool kCopyAtOnceAndLater = true;
#else
constexpr bool kCopyAtOnceAndLater = false;
#endif
// by the number of the thread in its block
inline thread_local std::map<unsigned, Pipeline> pipelines;
inline thread_local uint64_t block_of_pipelines = 0;

inline Pipeline& pipeline() {
  if (block_of_pipelines != blocks_begun) pipelines.clear();
  block_of_pipelines = blocks_begun;
  return pipelines[thread_number()];
}

}  // namespace emulator

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) {
  using namespace emulator;
  if ((bytes != 4 && bytes != 8 && bytes != 16) || reinterpret_cast<uintptr_t>(to) % bytes ||
      reinterpret_cast<uintptr_t>(from) % bytes) {
    throw std::logic_error("an asynchronous copy must be of 4, 8 or 16 bytes, aligned to as many");
  }
  const bool at_once = order_seed % 2 == 0;
  if (at_once || kCopyAtOnceAndLater) std::memcpy(to, from, bytes);
  if (!at_once || kCopyAtOnceAndLater) pipeline().open.push_back({to, from, bytes});
}

inline void __pipeline_commit() {
  emulator::Pipeline& own = emulator::pipeline();
  own.groups.push_back(std::move(own.open));
  own.open.clear();
}

// Waits for all groups but the last `newest`.
inline void __pipeline_wait_prior(size_t newest) {
  auto& groups = emulator::pipeline().groups;
  while (groups.size() > newest) {
    for (const emulator::Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    groups.erase(groups.begin());
  }
}
