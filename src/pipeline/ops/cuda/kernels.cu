// The GPU's own versions of operations that candle takes many passes for. Activations are channels-last and contiguous, sums
// are f32. Compiled to PTX, which is in the program (kernels.ptx): tools/cuda/ptx makes it, and says whether it is up to date.
//
// Every kernel is told apart by the type of its numbers: _f32, _f16, _bf16.

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace {

__device__ float wide(float x) { return x; }
__device__ float wide(__half x) { return __half2float(x); }
__device__ float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void keep(float *to, float x) { *to = x; }
__device__ void keep(__half *to, float x) { *to = __float2half_rn(x); }
__device__ void keep(__nv_bfloat16 *to, float x) { *to = __float2bfloat16_rn(x); }

// The sum over a block of threads, a power of two of them, told to all. `shared` has room for a number of each.
__device__ float sum_of_block(float x, float *shared) {
  shared[threadIdx.x] = x;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  const float sum = shared[0];
  __syncthreads();
  return sum;
}

// Group norm, first pass. Block (part, group, picture) looks at some of the picture's pixels and writes the mean of the group's
// numbers there and the sum of their squared distances from it.
template <typename T>
__device__ void group_norm_parts(const T *x, float *means, float *squares, unsigned pixels, unsigned channels,
                                 unsigned groups, float *shared) {
  const unsigned parts = gridDim.x, part = blockIdx.x, group = blockIdx.y, picture = blockIdx.z;
  const unsigned width = channels / groups;
  const unsigned first = (unsigned long long)pixels * part / parts, end = (unsigned long long)pixels * (part + 1) / parts;
  const unsigned count = (end - first) * width;
  const T *from = x + ((size_t)picture * pixels + first) * channels + group * width;
  float sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) sum += wide(from[(size_t)(i / width) * channels + i % width]);
  const float mean = count ? sum_of_block(sum, shared) / count : 0;
  float square = 0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    const float off = wide(from[(size_t)(i / width) * channels + i % width]) - mean;
    square += off * off;
  }
  square = sum_of_block(square, shared);
  if (threadIdx.x == 0) {
    const unsigned at = (picture * groups + group) * parts + part;
    means[at] = mean;
    squares[at] = square;
  }
}

// Group norm, second pass: brings the parts of a group together (Chan, Golub and LeVeque, 1979), in every block anew, and
// normalizes. Block (part, group, picture) as before.
template <typename T>
__device__ void group_norm_apply(const T *x, const float *means, const float *squares, const T *weight, const T *bias, T *y,
                                 unsigned pixels, unsigned channels, unsigned groups, float eps, int silu) {
  const unsigned parts = gridDim.x, part = blockIdx.x, group = blockIdx.y, picture = blockIdx.z;
  const unsigned width = channels / groups;
  const unsigned at = (picture * groups + group) * parts;
  float count = 0, mean = 0, square = 0;
  for (unsigned other = 0; other < parts; other++) {
    const unsigned long long from = (unsigned long long)pixels * other / parts, to = (unsigned long long)pixels * (other + 1) / parts;
    const float more = (float)(to - from) * width;
    if (more == 0) continue;
    const float off = means[at + other] - mean, all = count + more;
    mean += off * (more / all);
    square += squares[at + other] + off * off * (count * (more / all));
    count = all;
  }
  const float scale = rsqrtf(square / count + eps);
  const unsigned first = (unsigned long long)pixels * part / parts, end = (unsigned long long)pixels * (part + 1) / parts;
  const size_t start = ((size_t)picture * pixels + first) * channels + group * width;
  for (unsigned i = threadIdx.x; i < (end - first) * width; i += blockDim.x) {
    const unsigned channel = group * width + i % width;
    const size_t place = start + (size_t)(i / width) * channels + i % width;
    float value = (wide(x[place]) - mean) * scale * wide(weight[channel]) + wide(bias[channel]);
    if (silu) value = value / (1 + expf(-value));
    keep(y + place, value);
  }
}

// Adds a residual: a block for each row, of which a thread writes what it reads in `layer_norm`.
template <typename T>
__device__ void add_row(const T *x, const T *residual, T *sum, unsigned channels) {
  const size_t row = (size_t)blockIdx.x * channels;
  for (unsigned i = threadIdx.x; i < channels; i += blockDim.x) keep(sum + row + i, wide(x[row + i]) + wide(residual[row + i]));
}

// Layer norm: a block for each row.
template <typename T>
__device__ void layer_norm(const T *x, const T *weight, const T *bias, T *y, unsigned channels, float eps, float *shared) {
  const T *row = x + (size_t)blockIdx.x * channels;
  T *to = y + (size_t)blockIdx.x * channels;
  float sum = 0;
  for (unsigned i = threadIdx.x; i < channels; i += blockDim.x) sum += wide(row[i]);
  const float mean = sum_of_block(sum, shared) / channels;
  float square = 0;
  for (unsigned i = threadIdx.x; i < channels; i += blockDim.x) {
    const float off = wide(row[i]) - mean;
    square += off * off;
  }
  const float scale = rsqrtf(sum_of_block(square, shared) / channels + eps);
  for (unsigned i = threadIdx.x; i < channels; i += blockDim.x)
    keep(to + i, (wide(row[i]) - mean) * scale * wide(weight[i]) + wide(bias[i]));
}

// The first half of each row times GELU of the second; `inner` is a half.
template <typename T>
__device__ void geglu(const T *x, T *y, size_t count, unsigned inner) {
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
    const size_t row = i / inner * 2 * inner;
    const float gate = wide(x[row + inner + i % inner]);
    keep(y + i, wide(x[row + i % inner]) * 0.5f * gate * (1 + erff(gate * 0.70710678f)));
  }
}

// Adds a number to each channel and, where there is one, a residual, in place.
template <typename T>
__device__ void add_bias(T *y, const T *bias, const T *residual, size_t count, unsigned channels) {
  for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x)
    keep(y + i, wide(y[i]) + wide(bias[i % channels]) + (residual ? wide(residual[i]) : 0));
}

}  // namespace

#define THREADS 256

#define KERNELS(T, NAME)                                                                                                   \
  extern "C" __global__ void group_norm_parts_##NAME(const T *x, float *means, float *squares, unsigned pixels,            \
                                                     unsigned channels, unsigned groups) {                                 \
    __shared__ float shared[THREADS];                                                                                      \
    group_norm_parts(x, means, squares, pixels, channels, groups, shared);                                                 \
  }                                                                                                                        \
  extern "C" __global__ void group_norm_apply_##NAME(const T *x, const float *means, const float *squares, const T *weight, \
                                                     const T *bias, T *y, unsigned pixels, unsigned channels,              \
                                                     unsigned groups, float eps, int silu) {                               \
    group_norm_apply(x, means, squares, weight, bias, y, pixels, channels, groups, eps, silu);                             \
  }                                                                                                                        \
  extern "C" __global__ void layer_norm_##NAME(const T *x, const T *weight, const T *bias, T *y, unsigned channels,        \
                                               float eps) {                                                                \
    __shared__ float shared[THREADS];                                                                                      \
    layer_norm(x, weight, bias, y, channels, eps, shared);                                                                 \
  }                                                                                                                        \
  extern "C" __global__ void residual_layer_norm_##NAME(const T *x, const T *residual, const T *weight, const T *bias,     \
                                                        T *sum, T *y, unsigned channels, float eps) {                      \
    __shared__ float shared[THREADS];                                                                                      \
    add_row(x, residual, sum, channels);                                                                                   \
    layer_norm(sum, weight, bias, y, channels, eps, shared);                                                               \
  }                                                                                                                        \
  extern "C" __global__ void geglu_##NAME(const T *x, T *y, size_t count, unsigned inner) { geglu(x, y, count, inner); }   \
  extern "C" __global__ void add_bias_##NAME(T *y, const T *bias, size_t count, unsigned channels) {                       \
    add_bias(y, bias, (const T *)nullptr, count, channels);                                                                \
  }                                                                                                                        \
  extern "C" __global__ void add_bias_and_residual_##NAME(T *y, const T *bias, const T *residual, size_t count,            \
                                                          unsigned channels) {                                             \
    add_bias(y, bias, residual, count, channels);                                                                          \
  }

KERNELS(float, f32)
KERNELS(__half, f16)
KERNELS(__nv_bfloat16, bf16)
