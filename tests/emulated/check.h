#pragma once
// What the programs of this folder share: random values, and the comparison of an emulated kernel
// with the CPU's op.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "emulator/emulator.h"

namespace check {

struct Random {
  std::mt19937 engine;

  explicit Random(unsigned seed) : engine(seed) {}

  int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine); }
  float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine); }
  bool chance(double share) { return std::bernoulli_distribution(share)(engine); }

  template <typename T, typename Draw>
  std::vector<T> many(size_t count, Draw draw) {
    std::vector<T> values(count);
    for (T& value : values) value = draw();
    return values;
  }
};

// An output as an op may find it: full of what somebody else left there.
template <typename T>
std::vector<T> garbage(size_t count) {
  std::vector<T> values(count);
  std::fill_n(reinterpret_cast<unsigned char*>(values.data()), count * sizeof(T), 0x5b);
  return values;
}

// Ends the program if a byte differs.
template <typename T>
void same(const std::string& what, const std::vector<T>& expected, const std::vector<T>& got) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::memcmp(&expected[i], &got[i], sizeof(T)) == 0) continue;
    std::printf("%s: element %zu of %zu differs\n", what.c_str(), i, expected.size());
    std::fflush(stdout);
    std::_Exit(1);  // no destructors: a kernel that goes wrong may have written over what they free
  }
}

// Runs a case in several orders of the threads; `RBC_EMULATOR_THREADS` leaves the order to the
// machine.
template <typename Case>
void in_every_order(Case&& run) {
#ifdef RBC_EMULATOR_THREADS
  const std::vector<unsigned> orders{0};
#else
  const std::vector<unsigned> orders{0, 1, 2, 3};
#endif
  for (const unsigned order : orders) {
    emulator::set_order(order);
    run("order " + std::to_string(order));
  }
}

// How many random cases a program tries: fewer where every thread is a real one.
inline unsigned cases(unsigned with_fibers, unsigned with_threads) {
#ifdef RBC_EMULATOR_THREADS
  return (void)with_fibers, with_threads;
#else
  return (void)with_threads, with_fibers;
#endif
}

// main() of a program: an exception of the emulator is a failure with its message.
template <typename Body>
int run(Body&& body) {
  try {
    body();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace check
