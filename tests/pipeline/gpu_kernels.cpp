// The GPU's kernels on a CPU: every thread of a block is a thread, blocks come one after another. Runs the kernel that the first
// argument names on the numbers of standard input, and writes the result to standard output; all is f32. The other arguments are
// sizes. What the types of half precision do is the compiler's business: they are stand-ins that hold a float.
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

struct Index { unsigned x = 0, y = 0, z = 0; };
static thread_local Index threadIdx;
static Index blockIdx, blockDim, gridDim;
static std::barrier<> *block_barrier;
static void __syncthreads() { block_barrier->arrive_and_wait(); }

struct __half { float x; };
struct __nv_bfloat16 { float x; };
static float __half2float(__half x) { return x.x; }
static float __bfloat162float(__nv_bfloat16 x) { return x.x; }
static __half __float2half_rn(float x) { return {x}; }
static __nv_bfloat16 __float2bfloat16_rn(float x) { return {x}; }
static float rsqrtf(float x) { return 1 / std::sqrt(x); }

#define __device__
#define __global__
#define __shared__ static
#include SOURCE

template <typename Kernel>
static void launch(Index grid, Kernel kernel) {
  gridDim = grid;
  blockDim = {THREADS, 1, 1};
  for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
        std::barrier<> barrier(THREADS);
        block_barrier = &barrier;
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < THREADS; i++) threads.emplace_back([&, i] { threadIdx.x = i; kernel(); });
        for (auto &thread : threads) thread.join();
      }
}

static std::vector<float> read(size_t count) {
  std::vector<float> values(count);
  if (fread(values.data(), sizeof(float), count, stdin) != count) exit(2);
  return values;
}

int main(int, char **arguments) {
  const std::string name = arguments[1];
  auto size = [&](int number) { return (unsigned)atoi(arguments[2 + number]); };
  std::vector<float> y;
  if (name == "group_norm") {
    const unsigned pictures = size(0), pixels = size(1), channels = size(2), groups = size(3), parts = size(4), silu = size(5);
    const Index grid{parts, groups, pictures};
    auto x = read((size_t)pictures * pixels * channels), weight = read(channels), bias = read(channels);
    std::vector<float> means(pictures * groups * parts), squares(means);
    y.resize(x.size());
    launch(grid, [&] { group_norm_parts_f32(x.data(), means.data(), squares.data(), pixels, channels, groups); });
    launch(grid, [&] {
      group_norm_apply_f32(x.data(), means.data(), squares.data(), weight.data(), bias.data(), y.data(), pixels, channels,
                           groups, 1e-5f, silu);
    });
  } else if (name == "layer_norm") {
    const unsigned rows = size(0), channels = size(1);
    auto x = read((size_t)rows * channels), weight = read(channels), bias = read(channels);
    y.resize(x.size());
    launch({rows, 1, 1}, [&] { layer_norm_f32(x.data(), weight.data(), bias.data(), y.data(), channels, 1e-5f); });
  } else if (name == "geglu") {
    const unsigned rows = size(0), inner = size(1);
    auto x = read((size_t)rows * 2 * inner);
    y.resize((size_t)rows * inner);
    launch({3, 1, 1}, [&] { geglu_f32(x.data(), y.data(), y.size(), inner); });
  } else if (name == "add_bias") {
    const unsigned rows = size(0), channels = size(1);
    y = read((size_t)rows * channels);
    auto bias = read(channels);
    launch({3, 1, 1}, [&] { add_bias_f32(y.data(), bias.data(), y.size(), channels); });
  } else {
    return 2;
  }
  return fwrite(y.data(), sizeof(float), y.size(), stdout) == y.size() ? 0 : 2;
}
