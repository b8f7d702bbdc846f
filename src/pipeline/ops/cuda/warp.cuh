// What the 32 threads of a warp do together on tensor cores, and copies that go on beside it: instructions of PTX (sm_80 and
// after), named as the PTX ISA names them, whose chapters 9.7.14 and 9.7.9 say which thread holds which number of a matrix.
// tests/pipeline/gpu_warp.hpp has the same functions for a CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Two numbers side by side in a register, the first in the low half.
template <typename T> __device__ unsigned pair(float first, float second);
template <> __device__ unsigned pair<__half>(float first, float second) {
  const __half2 both = __floats2half2_rn(first, second);
  return reinterpret_cast<const unsigned &>(both);
}
template <> __device__ unsigned pair<__nv_bfloat16>(float first, float second) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const unsigned &>(both);
}

// mma.m16n8k16: adds the product of a, 16 rows of 16, and b, 16 rows of 8, to d, 16 rows of 8.
#define MMA(TYPE)                                                                                                          \
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"  \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                     \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
template <typename T> __device__ void mma(float *d, const unsigned *a, const unsigned *b);
template <> __device__ void mma<__half>(float *d, const unsigned *a, const unsigned *b) { MMA("f16"); }
template <> __device__ void mma<__nv_bfloat16>(float *d, const unsigned *a, const unsigned *b) { MMA("bf16"); }
#undef MMA

// ldmatrix.x4: four matrices of 8 x 8 from shared memory. Thread 8 i + r says where row r of matrix i is.
__device__ void ldmatrix(unsigned *matrices, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"((unsigned)__cvta_generic_to_shared(row))
               : "memory");
}

// As `ldmatrix`, each matrix transposed.
__device__ void ldmatrix_trans(unsigned *matrices, const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"((unsigned)__cvta_generic_to_shared(row))
               : "memory");
}

// cp.async: 16 bytes to shared memory, of which so many are read, 0 or 16; the rest are zeros.
__device__ void cp_async(void *to, const void *from, unsigned bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"((unsigned)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
}

// Waits until this thread's copies are done. Those of the others are when they say so.
__device__ void cp_async_wait_all() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// The register of the thread whose number differs in these bits.
__device__ float shfl_xor(float x, unsigned bits) { return __shfl_xor_sync(~0u, x, bits); }

// Two to the power of x, as fast as it comes.
__device__ float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
