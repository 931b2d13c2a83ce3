#pragma once
#include <cstdint>
#include <cstring>

// A function marked RBC_CLONES is also compiled for AVX2, and the processor's own version is chosen
// when the module is loaded. No version contracts a * b + c, so all give the same bits. Not under a
// sanitizer, whose start-up the choice would come before, and only where the loader can choose.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define RBC_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define RBC_CLONES
#endif

// A function that is only called where has_avx2() says so; it may use the intrinsics.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define RBC_AVX2 __attribute__((target("avx2")))
namespace rbc {
inline bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}
}  // namespace rbc
#endif

// Part of a function marked RBC_CLONES: compiled anew for each version of it.
#define RBC_INLINE inline __attribute__((always_inline))

namespace rbc {

// Vectors of the compiler's own: where the processor's are shorter, it takes several.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));

template <typename Vector, typename T>
RBC_INLINE void load(Vector& vector, const T* from) {
  std::memcpy(&vector, from, sizeof(vector));
}

template <typename Vector, typename T>
RBC_INLINE void store(const Vector& vector, T* to) {
  std::memcpy(to, &vector, sizeof(vector));
}

}  // namespace rbc
