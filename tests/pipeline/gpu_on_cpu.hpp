// A GPU's block of threads on a CPU, one thread at a time, and what its instructions mean as the PTX ISA has them. A thread runs
// until it must wait for others; which of those that may run is next, and when copies beside a warp's work are made, is as
// early or as late as it may be (`is_late`): whoever forgot to wait for something gets another result.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(threads)

struct Index { unsigned x = 0, y = 0, z = 0; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static bool is_late;

[[noreturn]] static void fail(const char *what) {
  fprintf(stderr, "block %u %u %u, thread %u: %s\n", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, what);
  _exit(3);
}

// --- Threads ---------------------------------------------------------------------------------------------------------------

struct Barrier { unsigned arrived = 0, round = 0; };

struct Copy { void *to; const void *from; unsigned bytes; };

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(1 << 16);
  bool is_done = false;
  const Barrier *barrier = nullptr;
  unsigned round = 0;
  std::vector<Copy> copies;
  bool may_run() const { return !is_done && (!barrier || barrier->round != round); }
};

static std::vector<Thread> threads;
static ucontext_t scheduler;
static std::function<void()> body;
static Barrier block_barrier;

static Thread &self() { return threads[threadIdx.x]; }

static void wait_for(Barrier &barrier, unsigned count) {
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    barrier.round++;
    return;
  }
  Thread &thread = self();
  thread.barrier = &barrier;
  thread.round = barrier.round;
  swapcontext(&thread.context, &scheduler);
}

static void __syncthreads() { wait_for(block_barrier, blockDim.x); }

static void run_thread() {
  body();
  self().is_done = true;
}

static void run_block() {
  threads = std::vector<Thread>(blockDim.x);
  block_barrier = {};
  for (Thread &thread : threads) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = &scheduler;
    makecontext(&thread.context, run_thread, 0);
  }
  for (unsigned i = 0; i < blockDim.x;) {
    const unsigned next = is_late ? blockDim.x - 1 - i : i;
    if (!threads[next].may_run()) {
      i++;
      continue;
    }
    threadIdx.x = next;
    swapcontext(&scheduler, &threads[next].context);
    i = 0;
  }
  for (const Thread &thread : threads)
    if (!thread.is_done) fail("waits for what never comes");
}

// Blocks come one after another.
static void launch(Index grid, unsigned block, std::function<void()> kernel) {
  gridDim = grid;
  blockDim = {block, 1, 1};
  body = std::move(kernel);
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) run_block();
}

// --- Memory ----------------------------------------------------------------------------------------------------------------

// Numbers that end where memory that may be touched does. What was not written is not a number.
template <typename T>
struct Memory {
  T *data;
  size_t size;
  explicit Memory(size_t size) : size(size) {
    const size_t page = sysconf(_SC_PAGESIZE), bytes = size * sizeof(T), room = (bytes + page - 1) / page * page;
    char *start = (char *)mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + room, page, PROT_NONE) != 0) fail("no memory");
    memset(start, 0xff, room);
    data = (T *)(start + room - bytes);
  }
};

// --- Numbers of 16 bits ----------------------------------------------------------------------------------------------------

struct __half { uint16_t bits; };
struct __nv_bfloat16 { uint16_t bits; };

static float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float size = exponent == 31  ? (fraction ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp((float)fraction, -24)
                                     : std::ldexp((float)(fraction + 1024), exponent - 25);
  return x.bits >> 15 ? -size : size;
}

static __half __float2half_rn(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return {0x7fff};
  if (std::fabs(x) >= 65520) return {(uint16_t)(sign | 0x7c00)};
  // Steps of the numbers around it, to the nearest and then to the even. One more step of the largest is the next exponent.
  const int exponent = std::fabs(x) < std::ldexp(1.0f, -14) ? -14 : std::ilogb(x);
  const int steps = (int)std::nearbyint(std::ldexp(std::fabs(x), 10 - exponent));
  return {(uint16_t)(sign | (((exponent + 14) << 10) + steps))};
}

static float __bfloat162float(__nv_bfloat16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}

static __nv_bfloat16 __float2bfloat16_rn(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (std::isnan(x)) return {0x7fff};
  return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

static float rsqrtf(float x) { return 1 / std::sqrt(x); }
static float __fdividef(float x, float y) { return x / y; }
static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }

static float wide_of(__half x) { return __half2float(x); }
static float wide_of(__nv_bfloat16 x) { return __bfloat162float(x); }
static float wide_of(float x) { return x; }
template <typename T> static T narrow_to(float x);
template <> float narrow_to<float>(float x) { return x; }
template <> __half narrow_to<__half>(float x) { return __float2half_rn(x); }
template <> __nv_bfloat16 narrow_to<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// --- What src/pipeline/ops/cuda/warp.cuh has --------------------------------------------------------------------------------

struct Warp {
  Barrier barrier;
  float number[32];
  const void *row[32];
  float a[16][16], b[16][8];
};
static Warp warps[32];

static Warp &warp() { return warps[threadIdx.x / 32]; }
static void warp_sync() { wait_for(warp().barrier, 32); }

template <typename T> static unsigned pair(float first, float second) {
  return narrow_to<T>(first).bits | (unsigned)narrow_to<T>(second).bits << 16;
}
template <typename T> static float of_pair(unsigned pair, unsigned which) {
  return wide_of(T{(uint16_t)(pair >> 16 * which)});
}

// 9.7.14: "Matrix Fragments for mma.m16n8k16 with floating point type".
template <typename T> static void mma(float *d, const unsigned *a, const unsigned *b) {
  const unsigned group = threadIdx.x % 32 / 4, in_group = threadIdx.x % 4;
  for (unsigned i = 0; i < 8; i++) {
    const unsigned row = i < 2 || (4 <= i && i < 6) ? group : group + 8;
    warp().a[row][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = of_pair<T>(a[i / 2], i & 1);
  }
  for (unsigned i = 0; i < 4; i++) warp().b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = of_pair<T>(b[i / 2], i & 1);
  warp_sync();
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = i < 2 ? group : group + 8, column = in_group * 2 + (i & 1);
    for (unsigned k = 0; k < 16; k++) d[i] += warp().a[row][k] * warp().b[k][column];
  }
  warp_sync();
}

static void load_matrices(unsigned *matrices, const void *row, bool is_transposed) {
  const unsigned lane = threadIdx.x % 32;
  warp().row[lane] = row;
  warp_sync();
  for (unsigned i = 0; i < 4; i++) {
    unsigned banks = 0;
    for (unsigned r = 0; r < 8; r++) {
      const uintptr_t address = (uintptr_t)warp().row[8 * i + r];
      if (address % 16) fail("a matrix's row that is not aligned");
      banks |= 1 << address / 16 % 8;
    }
    if (banks != 255) fail("rows of a matrix in one bank");
    auto number = [&](unsigned r, unsigned c) { return (unsigned)((const uint16_t *)warp().row[8 * i + r])[c]; };
    const unsigned group = lane / 4, first = lane % 4 * 2;
    matrices[i] = is_transposed ? number(first, group) | number(first + 1, group) << 16
                                : number(group, first) | number(group, first + 1) << 16;
  }
  warp_sync();
}
static void ldmatrix(unsigned *matrices, const void *row) { load_matrices(matrices, row, false); }
static void ldmatrix_trans(unsigned *matrices, const void *row) { load_matrices(matrices, row, true); }

static void make(const Copy &copy) {
  memset(copy.to, 0, 16);
  memcpy(copy.to, copy.from, copy.bytes);
}
static void cp_async(void *to, const void *from, unsigned bytes) {
  if ((uintptr_t)to % 16 || (uintptr_t)from % 16) fail("a copy that is not aligned");
  if (is_late) self().copies.push_back({to, from, bytes});
  else make({to, from, bytes});
}
static void cp_async_wait_all() {
  for (const Copy &copy : self().copies) make(copy);
  self().copies.clear();
}

static float shfl_xor(float x, unsigned bits) {
  warp().number[threadIdx.x % 32] = x;
  warp_sync();
  const float y = warp().number[threadIdx.x % 32 ^ bits];
  warp_sync();
  return y;
}

static float ex2(float x) { return std::exp2(x); }
