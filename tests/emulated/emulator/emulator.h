#pragma once
// CUDA's execution model on the CPU, so that a machine without a GPU can run the real __global__
// functions and the real launchers. Grown from this project's own prototype; compiled as C++20 by
// the tests, never by nvcc.
//
// Blocks run one after the other. The threads of a block are fibers that take turns at barriers, in
// an order that `set_order` chooses; or, with RBC_EMULATOR_THREADS, real threads, for
// ThreadSanitizer. It knows barriers, warps of 32 with shuffles and ballots, static shared memory,
// atomics and the limits of a launch. It does not know alignment (but of tiles in mma.h), memory
// orders weaker than the CPU's, or how fast anything is.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifdef RBC_EMULATOR_THREADS
#include <barrier>
#include <thread>
#else
#include <ucontext.h>

#include <functional>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__ inline
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

// One block runs at a time, so what is static belongs to the block. AddressSanitizer watches its
// edges; without it, it lies in a section that every block finds full of garbage, as on a GPU.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ __attribute__((section("emulated_shared"))) static
extern char __start_emulated_shared[] __attribute__((weak));
extern char __stop_emulated_shared[] __attribute__((weak));
#endif

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

inline thread_local dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emulator {

constexpr unsigned kWarp = 32;

inline unsigned order_seed = 0;

// The order of blocks, and of threads between barriers: 0 rising, 1 falling, else shuffled.
inline void set_order(unsigned seed) { order_seed = seed; }

inline std::vector<unsigned> order_of(unsigned count) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (order_seed == 1) std::reverse(order.begin(), order.end());
  if (order_seed > 1) std::shuffle(order.begin(), order.end(), std::mt19937(order_seed));
  return order;
}

inline thread_local uint64_t blocks_begun = 0;
inline std::vector<uint64_t> warp_slots;  // one a thread: what it shows to its warp

inline void spoil_shared_memory() {
#if !defined(__SANITIZE_ADDRESS__)
  std::fill(__start_emulated_shared, __stop_emulated_shared, char{0x5b});
#endif
}

inline unsigned thread_number() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

inline void become(unsigned thread, unsigned block) {
  blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y, block / (gridDim.x * gridDim.y)};
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

#ifdef RBC_EMULATOR_THREADS

inline std::unique_ptr<std::barrier<>> block_barrier;
inline std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;

inline void wait_for_block() { block_barrier->arrive_and_wait(); }
inline void wait_for_warp() { warp_barriers[thread_number() / kWarp]->arrive_and_wait(); }

inline void prepare_block(unsigned count) {
  spoil_shared_memory();
  block_barrier = std::make_unique<std::barrier<>>(count);
  warp_barriers.clear();
  for (unsigned first = 0; first < count; first += kWarp) {
    warp_barriers.push_back(std::make_unique<std::barrier<>>(std::min(kWarp, count - first)));
  }
}

// The threads of the first block are those of the next ones, too: to start one takes long under
// ThreadSanitizer.
template <typename Body>
void run_blocks(unsigned count, const std::vector<unsigned>& numbers, Body&& body) {
  prepare_block(count);
  std::barrier between_blocks(count, [count]() noexcept { prepare_block(count); });
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < count; ++thread) {
    threads.emplace_back([&, thread] {
      for (const unsigned number : numbers) {
        ++blocks_begun;
        become(thread, number);
        body();
        block_barrier->arrive_and_drop();
        warp_barriers[thread / kWarp]->arrive_and_drop();
        between_blocks.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

#else

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kReturned };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state;
};

constexpr size_t kStackBytes = 64 << 10;
inline ucontext_t scheduler;
inline std::vector<Fiber> fibers;
inline unsigned running;
inline std::function<void()> kernel_body;

// AddressSanitizer must be notified of every change of stack.
inline void switch_stack(ucontext_t* from, ucontext_t* to, const void* stack, size_t bytes, bool leaves_for_good) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(leaves_for_good ? nullptr : &fake, stack, bytes);
#else
  (void)stack, (void)bytes, (void)leaves_for_good;
#endif
  swapcontext(from, to);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

inline const void* scheduler_stack = nullptr;
inline size_t scheduler_bytes = 0;

inline void leave_as(State state) {
  Fiber& fiber = fibers[running];
  fiber.state = state;
  switch_stack(&fiber.context, &scheduler, scheduler_stack, scheduler_bytes, state == State::kReturned);
}

inline void wait_for_block() { leave_as(State::kAtBlockBarrier); }
inline void wait_for_warp() { leave_as(State::kAtWarpBarrier); }

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_bytes);
#endif
  kernel_body();
  leave_as(State::kReturned);
}

// Lets every warp go on whose threads have all arrived at a barrier of the warp, or returned. True
// if one did.
inline bool release_warps(unsigned count) {
  bool released = false;
  for (unsigned first = 0; first < count; first += kWarp) {
    const auto begin = fibers.begin() + first, end = fibers.begin() + std::min(count, first + kWarp);
    const auto waiting = std::count_if(begin, end, [](auto& f) { return f.state == State::kAtWarpBarrier; });
    const auto returned = std::count_if(begin, end, [](auto& f) { return f.state == State::kReturned; });
    if (waiting == 0 || waiting + returned != end - begin) continue;
    std::for_each(begin, end, [](auto& f) {
      if (f.state == State::kAtWarpBarrier) f.state = State::kReady;
    });
    released = true;
  }
  return released;
}

inline void run_block(unsigned count, unsigned block) {
  spoil_shared_memory();
  ++blocks_begun;
  fibers.resize(count);
  for (Fiber& fiber : fibers) {
    if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
    fiber.state = State::kReady;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  const std::vector<unsigned> order = order_of(count);
  for (;;) {
    for (const unsigned thread : order) {
      if (fibers[thread].state != State::kReady) continue;
      running = thread;
      become(thread, block);
      switch_stack(&scheduler, &fibers[thread].context, fibers[thread].stack.get(), kStackBytes, false);
    }
    if (release_warps(count)) continue;
    unsigned returned = 0, waiting = 0;
    for (const Fiber& fiber : fibers) {
      returned += fiber.state == State::kReturned;
      waiting += fiber.state == State::kAtBlockBarrier;
    }
    if (returned == count) return;
    if (waiting != count) {
      throw std::logic_error("of " + std::to_string(count) + " threads " + std::to_string(waiting) +
                             " wait at __syncthreads(), " + std::to_string(returned) + " have returned and " +
                             std::to_string(count - waiting - returned) + " wait for their warp");
    }
    for (Fiber& fiber : fibers) fiber.state = State::kReady;
  }
}

template <typename Body>
void run_blocks(unsigned count, const std::vector<unsigned>& numbers, Body&& body) {
  kernel_body = body;
  for (const unsigned number : numbers) run_block(count, number);
}

#endif

template <typename Body>
void run_grid(const dim3& grid, const dim3& block, Body&& body) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024) {
    throw std::invalid_argument("a block must have 1..1024 threads (got " + std::to_string(threads) + ")");
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    throw std::invalid_argument("a grid must have 1..2147483647 x 1..65535 x 1..65535 blocks (got " +
                                std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                                std::to_string(grid.z) + ")");
  }
  gridDim = grid, blockDim = block;
  const auto count = static_cast<unsigned>(threads);
  warp_slots.assign(count, 0);
  run_blocks(count, order_of(grid.x * grid.y * grid.z), body);
}

// What thread `lane` of the caller's warp shows, once every thread of the warp shows something.
template <typename T>
T exchange(T value, unsigned lane) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  const unsigned self = thread_number();
  std::memcpy(&warp_slots[self], &value, sizeof(T));
  wait_for_warp();
  T other;
  std::memcpy(&other, &warp_slots[self / kWarp * kWarp + lane % kWarp], sizeof(T));
  wait_for_warp();
  return other;
}

}  // namespace emulator

inline void __syncthreads() { emulator::wait_for_block(); }

// Of the threads of the block, those for which `vote` holds.
inline int __syncthreads_count(int vote) {
  using namespace emulator;
  warp_slots[thread_number()] = vote != 0;
  wait_for_block();
  const auto votes = std::accumulate(warp_slots.begin(), warp_slots.end(), uint64_t{0});
  wait_for_block();
  return static_cast<int>(votes);
}

inline void __syncwarp() { emulator::wait_for_warp(); }
inline void __threadfence() {}

template <typename T>
T __shfl_sync(unsigned, T value, unsigned lane) {
  return emulator::exchange(value, lane);
}

template <typename T>
T __shfl_up_sync(unsigned, T value, unsigned distance) {
  const unsigned lane = emulator::thread_number() % emulator::kWarp;
  return emulator::exchange(value, lane < distance ? lane : lane - distance);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulator::exchange(value, emulator::thread_number() % emulator::kWarp ^ mask);
}

// Every thread of the warp has to take part.
inline unsigned __ballot_sync(unsigned, bool vote) {
  using namespace emulator;
  const unsigned self = thread_number(), first = self / kWarp * kWarp;
  warp_slots[self] = vote;
  wait_for_warp();
  unsigned votes = 0;
  for (unsigned lane = 0; lane < kWarp && first + lane < warp_slots.size(); ++lane) {
    votes |= static_cast<unsigned>(warp_slots[first + lane]) << lane;
  }
  wait_for_warp();
  return votes;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }

template <typename T>
T atomicAdd(T* address, T value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
