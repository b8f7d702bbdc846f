// Numbers as they lie in memory, and neighbours among them.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace {

__device__ float wide(float x) { return x; }
__device__ float wide(__half x) { return __half2float(x); }
__device__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void narrow(float x, float &y) { y = x; }
__device__ void narrow(float x, __half &y) { y = __float2half_rn(x); }
__device__ void narrow(float x, __nv_bfloat16 &y) { y = __float2bfloat16_rn(x); }

// What a thread reads or writes at once: 16 bytes, at a multiple of 16.
template <typename T>
struct __align__(16) Vector {
  static constexpr unsigned COUNT = 16 / sizeof(T);
  T at[COUNT];

  __device__ static Vector load(const T *from) { return *reinterpret_cast<const Vector *>(from); }
  __device__ void store(T *to) const { *reinterpret_cast<Vector *>(to) = *this; }
};

}  // namespace
