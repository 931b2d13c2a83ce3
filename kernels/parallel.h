#pragma once
#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace rbc {

// Waits for threads at the end of a scope, even if a thread could not be started and an exception
// leaves it.
struct JoinAll {
  std::vector<std::thread>& threads;
  ~JoinAll() {
    for (auto& thread : threads) thread.join();
  }
};

// Calls body(begin, end) over [0, count), cut into at most `threads` contiguous runs, one thread
// each. With one thread (a lane that owns one core) it is a plain call. The first exception is
// rethrown.
template <typename Body>
void parallel_for(int64_t count, int threads, Body&& body) {
  const int64_t runs = std::min<int64_t>(std::max(threads, 1), count);
  if (runs <= 1) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  std::vector<std::thread> workers;
  std::vector<std::exception_ptr> errors(runs);
  auto run = [&](int64_t index) {
    try {
      body(count * index / runs, count * (index + 1) / runs);
    } catch (...) {
      errors[index] = std::current_exception();
    }
  };
  workers.reserve(runs - 1);
  {
    const JoinAll join{workers};
    for (int64_t index = 1; index < runs; ++index) workers.emplace_back(run, index);
    run(0);
  }
  for (auto& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace rbc
