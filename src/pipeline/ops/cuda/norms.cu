// Group norm, layer norm and softmax of channels-last activations, whose rows are whole vectors. Sums are f32. Compiled to PTX, which is
// in the program (norms.ptx): tools/cuda/ptx makes it, and says whether it is up to date.
//
// Every kernel is told apart by the type of its numbers: _f32, _f16, _bf16.

#include "numbers.cuh"
#ifdef __CUDACC__
#include "warp.cuh"
#endif

// Threads of a block at most, and groups.
#define MOST_THREADS 1024
#define MOST_GROUPS 128

namespace {

// As near as its result's rounding to 16 bits needs, and f32 within a few steps.
__device__ float silu_of(float x) { return __fdividef(x, 1 + ex2(-1.44269504f * x)); }

// The sum over a warp, told to all of it.
__device__ float sum_of_warp(float x) {
#pragma unroll
  for (unsigned half = 16; half > 0; half /= 2) x += shfl_xor(x, half);
  return x;
}

// What each group's numbers in `shared` are together, rows of `channels` numbers of which a group has `width`.
__device__ void sum_groups(const float *shared, unsigned rows, unsigned channels, unsigned width, float *sums) {
  __syncthreads();
  for (unsigned group = threadIdx.x / 32; group * width < channels; group += blockDim.x / 32) {
    float sum = 0;
    for (unsigned row = 0; row < rows; row++)
      for (unsigned i = threadIdx.x % 32; i < width; i += 32) sum += shared[row * channels + group * width + i];
    sum = sum_of_warp(sum);
    if (threadIdx.x % 32 == 0) sums[group] = sum;
  }
  __syncthreads();
}

// Of group norm, both passes have blocks (part, picture), which look at `part` pixels of the picture, all channels of them:
// a thread at one vector of channels, of every so many-th pixel.
template <typename T>
struct Place {
  unsigned first, end, channel, row, rows;

  __device__ Place(unsigned pixels, unsigned part, unsigned channels) {
    const unsigned vectors = channels / Vector<T>::COUNT;
    rows = blockDim.x / vectors;
    row = threadIdx.x / vectors;
    channel = threadIdx.x % vectors * Vector<T>::COUNT;
    first = blockIdx.x * part;
    end = min(pixels, first + part);
  }

  // Whether there is a row for the thread: a block need not be a multiple of them.
  __device__ bool takes_part() const { return row < rows; }
};

// Group norm, first pass: writes the mean of each group's numbers in the part, and the sum of their squared distances from it.
template <typename T>
__device__ void group_norm_parts(const T *x, float *means, float *squares, unsigned pixels, unsigned part, unsigned channels,
                                 unsigned groups) {
  constexpr unsigned N = Vector<T>::COUNT;
  __shared__ float shared[MOST_THREADS * N], sums[MOST_GROUPS];
  const Place<T> place(pixels, part, channels);
  const unsigned width = channels / groups, count = place.end - place.first;
  const T *from = x + ((size_t)blockIdx.y * pixels + place.first) * channels + place.channel;

  // Of each channel, how far the thread's numbers are from the first of them: what is small loses nothing when it is squared.
  float start[N], sum[N], square[N];
  unsigned mine = 0;
#pragma unroll
  for (unsigned i = 0; i < N; i++) start[i] = sum[i] = square[i] = 0;
  if (place.takes_part() && place.row < count) {
    const Vector<T> values = Vector<T>::load(from + (size_t)place.row * channels);
    mine = (count - place.row + place.rows - 1) / place.rows;
#pragma unroll
    for (unsigned i = 0; i < N; i++) start[i] = wide(values.at[i]);
  }
#pragma unroll 4
  for (unsigned turn = 1; turn < mine; turn++) {
    const Vector<T> values = Vector<T>::load(from + (size_t)(place.row + turn * place.rows) * channels);
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
      const float off = wide(values.at[i]) - start[i];
      sum[i] += off;
      square[i] += off * off;
    }
  }

  float *to = shared + place.row * channels + place.channel;
  if (place.takes_part())
#pragma unroll
    for (unsigned i = 0; i < N; i++) to[i] = mine * start[i] + sum[i];
  sum_groups(shared, place.rows, channels, width, sums);
  const unsigned numbers = count * width;
  float distances[N];
#pragma unroll
  for (unsigned i = 0; i < N; i++) {
    // Chan, Golub and LeVeque (1979): squared distances from one mean, and how far that is from the other.
    const float average = mine ? sum[i] / mine : 0;
    const float off = start[i] + average - sums[(place.channel + i) / width] / numbers;
    distances[i] = square[i] - sum[i] * average + mine * off * off;
  }
  const unsigned at = blockIdx.y * groups * gridDim.x + blockIdx.x;
  for (unsigned group = threadIdx.x; group < groups; group += blockDim.x) means[at + group * gridDim.x] = sums[group] / numbers;
  __syncthreads();
  if (place.takes_part())
#pragma unroll
    for (unsigned i = 0; i < N; i++) to[i] = distances[i];
  sum_groups(shared, place.rows, channels, width, sums);
  for (unsigned group = threadIdx.x; group < groups; group += blockDim.x) squares[at + group * gridDim.x] = sums[group];
}

// Group norm, second pass: brings the parts of each group together, in every block anew, and normalizes.
template <typename T>
__device__ void group_norm_apply(const T *x, const float *means, const float *squares, const T *weight, const T *bias, T *y,
                                 unsigned pixels, unsigned part, unsigned channels, unsigned groups, float eps, int silu) {
  constexpr unsigned N = Vector<T>::COUNT;
  __shared__ float shared_means[MOST_GROUPS], shared_scales[MOST_GROUPS];
  const unsigned parts = gridDim.x, width = channels / groups, lane = threadIdx.x % 32;
  for (unsigned group = threadIdx.x / 32; group < groups; group += blockDim.x / 32) {
    const unsigned at = (blockIdx.y * groups + group) * parts;
    auto pixels_of = [&](unsigned i) { return (float)min(part, pixels - i * part); };
    float mean = 0, square = 0;
    for (unsigned i = lane; i < parts; i += 32) mean += pixels_of(i) * means[at + i];
    mean = sum_of_warp(mean) / pixels;
    for (unsigned i = lane; i < parts; i += 32) {
      const float off = means[at + i] - mean;
      square += squares[at + i] + pixels_of(i) * width * off * off;
    }
    square = sum_of_warp(square) / ((float)pixels * width);
    if (lane == 0) {
      shared_means[group] = mean;
      shared_scales[group] = rsqrtf(square + eps);
    }
  }
  __syncthreads();

  const Place<T> place(pixels, part, channels);
  if (!place.takes_part()) return;
  float mean[N], factor[N], addend[N];
#pragma unroll
  for (unsigned i = 0; i < N; i++) {
    const unsigned channel = place.channel + i;
    mean[i] = shared_means[channel / width];
    factor[i] = shared_scales[channel / width] * wide(weight[channel]);
    addend[i] = wide(bias[channel]);
  }
  const size_t start = (size_t)blockIdx.y * pixels * channels + place.channel;
#pragma unroll 2
  for (unsigned pixel = place.first + place.row; pixel < place.end; pixel += place.rows) {
    Vector<T> values = Vector<T>::load(x + start + (size_t)pixel * channels);
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
      const float value = (wide(values.at[i]) - mean[i]) * factor[i] + addend[i];
      narrow(silu ? silu_of(value) : value, values.at[i]);
    }
    values.store(y + start + (size_t)pixel * channels);
  }
}

// Layer norm: a warp for each row. Where there is a residual, it is added first, and the sum kept.
template <typename T>
__device__ void layer_norm(const T *x, const T *residual, const T *weight, const T *bias, T *sums, T *y, unsigned rows,
                           unsigned channels, float eps) {
  constexpr unsigned N = Vector<T>::COUNT;
  const unsigned row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const size_t start = (size_t)row * channels;
  float sum = 0;
  for (unsigned channel = lane * N; channel < channels; channel += 32 * N) {
    Vector<T> values = Vector<T>::load(x + start + channel);
    if (residual) {
      const Vector<T> more = Vector<T>::load(residual + start + channel);
#pragma unroll
      for (unsigned i = 0; i < N; i++) narrow(wide(values.at[i]) + wide(more.at[i]), values.at[i]);
      values.store(sums + start + channel);
    }
#pragma unroll
    for (unsigned i = 0; i < N; i++) sum += wide(values.at[i]);
  }
  const float mean = sum_of_warp(sum) / channels;

  // The row once more, and once more: it is as near as memory can be. A thread reads what it wrote itself.
  const T *from = (residual ? sums : x) + start;
  float square = 0;
  for (unsigned channel = lane * N; channel < channels; channel += 32 * N) {
    const Vector<T> values = Vector<T>::load(from + channel);
#pragma unroll
    for (unsigned i = 0; i < N; i++) {
      const float off = wide(values.at[i]) - mean;
      square += off * off;
    }
  }
  const float scale = rsqrtf(sum_of_warp(square) / channels + eps);
  for (unsigned channel = lane * N; channel < channels; channel += 32 * N) {
    Vector<T> values = Vector<T>::load(from + channel);
    const Vector<T> factors = Vector<T>::load(weight + channel), addends = Vector<T>::load(bias + channel);
#pragma unroll
    for (unsigned i = 0; i < N; i++)
      narrow((wide(values.at[i]) - mean) * scale * wide(factors.at[i]) + wide(addends.at[i]), values.at[i]);
    values.store(y + start + channel);
  }
}

// Softmax: a block for each row, which is read twice.
__device__ void softmax(const float *x, float *y, unsigned columns) {
  constexpr unsigned N = Vector<float>::COUNT;
  constexpr float LOG2_E = 1.44269504f;
  __shared__ float shared_most[32], shared_sum[32];
  const size_t start = (size_t)blockIdx.x * columns;
  // Less than any number, and no infinity, whose difference from itself is none.
  float most = -3e38f, sum = 0;
  // Brings in a sum of powers of what is not larger than `other`.
  auto join = [&](float other, float of_other) {
    const float larger = fmaxf(most, other);
    sum = sum * ex2((most - larger) * LOG2_E) + of_other * ex2((other - larger) * LOG2_E);
    most = larger;
  };
  for (unsigned column = threadIdx.x * N; column < columns; column += blockDim.x * N) {
    const Vector<float> values = Vector<float>::load(x + start + column);
    float largest = wide(values.at[0]), powers = 0;
#pragma unroll
    for (unsigned i = 1; i < N; i++) largest = fmaxf(largest, wide(values.at[i]));
#pragma unroll
    for (unsigned i = 0; i < N; i++) powers += ex2((wide(values.at[i]) - largest) * LOG2_E);
    join(largest, powers);
  }
#pragma unroll
  for (unsigned half = 16; half > 0; half /= 2) {
    const float other = shfl_xor(most, half), of_other = shfl_xor(sum, half);
    join(other, of_other);
  }
  if (threadIdx.x % 32 == 0) {
    shared_most[threadIdx.x / 32] = most;
    shared_sum[threadIdx.x / 32] = sum;
  }
  __syncthreads();
  for (unsigned warp = 0; warp < blockDim.x / 32; warp++)
    if (warp != threadIdx.x / 32) join(shared_most[warp], shared_sum[warp]);

  const float share = 1 / sum;
  for (unsigned column = threadIdx.x * N; column < columns; column += blockDim.x * N) {
    Vector<float> values = Vector<float>::load(x + start + column);
#pragma unroll
    for (unsigned i = 0; i < N; i++) narrow(ex2((wide(values.at[i]) - most) * LOG2_E) * share, values.at[i]);
    values.store(y + start + column);
  }
}

}  // namespace

#define NORMS(T, NAME)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(MOST_THREADS)                                                               \
      group_norm_parts_##NAME(const T *x, float *means, float *squares, unsigned pixels, unsigned part, unsigned channels, \
                              unsigned groups) {                                                                           \
    group_norm_parts(x, means, squares, pixels, part, channels, groups);                                                   \
  }                                                                                                                        \
  extern "C" __global__ void __launch_bounds__(MOST_THREADS)                                                               \
      group_norm_apply_##NAME(const T *x, const float *means, const float *squares, const T *weight, const T *bias, T *y,  \
                              unsigned pixels, unsigned part, unsigned channels, unsigned groups, float eps, int silu) {   \
    group_norm_apply(x, means, squares, weight, bias, y, pixels, part, channels, groups, eps, silu);                       \
  }                                                                                                                        \
  extern "C" __global__ void layer_norm_##NAME(const T *x, const T *weight, const T *bias, T *y, unsigned rows,            \
                                               unsigned channels, float eps) {                                             \
    layer_norm(x, (const T *)nullptr, weight, bias, (T *)nullptr, y, rows, channels, eps);                                 \
  }                                                                                                                        \
  extern "C" __global__ void residual_layer_norm_##NAME(const T *x, const T *residual, const T *weight, const T *bias,     \
                                                        T *sums, T *y, unsigned rows, unsigned channels, float eps) {      \
    layer_norm(x, residual, weight, bias, sums, y, rows, channels, eps);                                                   \
  }

NORMS(float, f32)
NORMS(__half, f16)
NORMS(__nv_bfloat16, bf16)

extern "C" __global__ void softmax_f32(const float *x, float *y, unsigned columns) { softmax(x, y, columns); }
