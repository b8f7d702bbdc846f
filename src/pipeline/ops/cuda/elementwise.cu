// Operations on single numbers of channels-last activations, whose rows are whole vectors: a thread takes one vector after the
// other, until all are done. Compiled as norms.cu is.

#include "numbers.cuh"

namespace {

// The vectors of a thread, of so many.
#define FOR_VECTORS(i, count) for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)

// The first half of each row times GELU of the second; a half is `inner` vectors, and there are `count` in the result.
template <typename T>
__device__ void geglu(const T *x, T *y, unsigned count, unsigned inner) {
  constexpr unsigned N = Vector<T>::COUNT;
  FOR_VECTORS(i, count) {
    const T *from = x + ((size_t)(i / inner) * inner + i) * N;
    Vector<T> values = Vector<T>::load(from);
    const Vector<T> gates = Vector<T>::load(from + (size_t)inner * N);
#pragma unroll
    for (unsigned j = 0; j < N; j++) {
      const float gate = wide(gates.at[j]);
      narrow(wide(values.at[j]) * 0.5f * gate * (1 + erff(gate * 0.70710678f)), values.at[j]);
    }
    values.store(y + (size_t)i * N);
  }
}

// Adds to each pixel a number for each of its `channels` vectors and, where there is one, a residual. Of pictures of `picture`
// vectors each has numbers of its own. The result may take the place of x.
template <typename T>
__device__ void add_channels(const T *x, const T *numbers, const T *residual, T *y, unsigned count, unsigned channels,
                             unsigned picture) {
  constexpr unsigned N = Vector<T>::COUNT;
  FOR_VECTORS(i, count) {
    Vector<T> values = Vector<T>::load(x + (size_t)i * N);
    const Vector<T> added = Vector<T>::load(numbers + (size_t)(i / picture * channels + i % channels) * N);
    const Vector<T> more = residual ? Vector<T>::load(residual + (size_t)i * N) : Vector<T>();
#pragma unroll
    for (unsigned j = 0; j < N; j++)
      narrow(wide(values.at[j]) + wide(added.at[j]) + (residual ? wide(more.at[j]) : 0), values.at[j]);
    values.store(y + (size_t)i * N);
  }
}

// Repeats pixels of pictures of `height` x `width` until they are `to_height` x `to_width`. `scale_y` and `scale_x` are an
// output's share of an input's pixel, as torch rounds it.
template <typename T>
__device__ void upsample_nearest(const T *x, T *y, unsigned count, unsigned channels, unsigned height, unsigned width,
                                 unsigned to_height, unsigned to_width, float scale_y, float scale_x) {
  constexpr unsigned N = Vector<T>::COUNT;
  FOR_VECTORS(i, count) {
    const unsigned pixel = i / channels, row = pixel / to_width, picture = row / to_height;
    const unsigned from_row = min((unsigned)((row - picture * to_height) * scale_y), height - 1);
    const unsigned from_column = min((unsigned)((pixel - row * to_width) * scale_x), width - 1);
    const size_t from = ((size_t)picture * height + from_row) * width + from_column;
    Vector<T>::load(x + (from * channels + i % channels) * N).store(y + (size_t)i * N);
  }
}

}  // namespace

#define ELEMENTWISE(T, NAME)                                                                                               \
  extern "C" __global__ void geglu_##NAME(const T *x, T *y, unsigned count, unsigned inner) { geglu(x, y, count, inner); } \
  extern "C" __global__ void add_channels_##NAME(const T *x, const T *numbers, T *y, unsigned count, unsigned channels,    \
                                                 unsigned picture) {                                                       \
    add_channels(x, numbers, (const T *)nullptr, y, count, channels, picture);                                             \
  }                                                                                                                        \
  extern "C" __global__ void add_channels_and_residual_##NAME(const T *x, const T *numbers, const T *residual, T *y,       \
                                                              unsigned count, unsigned channels, unsigned picture) {       \
    add_channels(x, numbers, residual, y, count, channels, picture);                                                       \
  }                                                                                                                        \
  extern "C" __global__ void upsample_nearest_##NAME(const T *x, T *y, unsigned count, unsigned channels, unsigned height, \
                                                     unsigned width, unsigned to_height, unsigned to_width, float scale_y, \
                                                     float scale_x) {                                                      \
    upsample_nearest(x, y, count, channels, height, width, to_height, to_width, scale_y, scale_x);                         \
  }

ELEMENTWISE(float, f32)
ELEMENTWISE(__half, f16)
ELEMENTWISE(__nv_bfloat16, bf16)
