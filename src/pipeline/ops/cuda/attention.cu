// Attention on tensor cores, without a matrix of scores in memory: Dao, FlashAttention-2 (2023). Scores, weights and sums are
// f32; between the two products the weights are rounded to the type of the values. Compiled as norms.cu is.

#ifdef __CUDACC__
#include "warp.cuh"
#endif

#define WARPS 4

namespace {

// Block (part, head, picture) has WARPS warps, each with ROWS times 16 queries, which it goes through all keys with, KEYS at a
// time. A head is `width` numbers wide, a multiple of 8 and not more than WIDTH; heads lie side by side in a token's channels.
// Tokens of the output follow each other, those of the other three are a stride apart, a multiple of 8, through all pictures.
// `scale` is what scores are multiplied with to be powers of two. With `causal`, a query sees the keys of its own place and
// before.
template <typename T, unsigned WIDTH, unsigned ROWS, unsigned KEYS>
__device__ void attention(const T *query, const T *key, const T *value, T *out, unsigned queries, unsigned keys,
                          unsigned width, unsigned query_stride, unsigned key_stride, unsigned value_stride, float scale,
                          int causal) {
  // Eight more than the width put the eight rows of a matrix into different banks.
  __shared__ __align__(16) T shared_keys[2][KEYS][WIDTH + 8];
  __shared__ __align__(16) T shared_values[2][KEYS][WIDTH + 8];

  const unsigned channels = gridDim.y * width;
  const unsigned lane = threadIdx.x % 32, row = lane / 4, column = lane % 4 * 2;
  const unsigned block_start = blockIdx.x * WARPS * ROWS * 16, start = block_start + threadIdx.x / 32 * ROWS * 16;
  const size_t head = blockIdx.y * width;
  query += (size_t)blockIdx.z * queries * query_stride + head;
  key += (size_t)blockIdx.z * keys * key_stride + head;
  value += (size_t)blockIdx.z * keys * value_stride + head;
  out += (size_t)blockIdx.z * queries * channels + head;

  // Keys that any query of the block sees.
  const unsigned block_end = min(queries, block_start + WARPS * ROWS * 16);
  const unsigned seen = causal ? min(keys, block_end) : keys;

  // What is outside is zero: it adds nothing.
  auto load = [&](unsigned first, unsigned buffer) {
    for (unsigned i = threadIdx.x; i < KEYS * WIDTH / 8; i += WARPS * 32) {
      const unsigned token = i / (WIDTH / 8), channel = i % (WIDTH / 8) * 8;
      const bool inside = first + token < keys && channel < width;
      const size_t row = inside ? first + token : 0;
      const unsigned at = inside ? channel : 0;
      cp_async(&shared_keys[buffer][token][channel], key + row * key_stride + at, inside ? 16 : 0);
      cp_async(&shared_values[buffer][token][channel], value + row * value_stride + at, inside ? 16 : 0);
    }
  };
  load(0, 0);

  unsigned q[ROWS][WIDTH / 16][4];
#pragma unroll
  for (unsigned m = 0; m < ROWS; m++)
#pragma unroll
    for (unsigned k = 0; k < WIDTH / 16; k++)
#pragma unroll
      for (unsigned i = 0; i < 4; i++) {
        const unsigned token = start + m * 16 + row + i % 2 * 8, channel = k * 16 + column + i / 2 * 8;
        const bool inside = token < queries && channel < width;
        q[m][k][i] = inside ? *reinterpret_cast<const unsigned *>(query + (size_t)token * query_stride + channel) : 0;
      }

  // Of the two rows that a thread has a part of in each 16: the largest score so far, and its part of the sum of weights.
  float most[ROWS][2], sum[ROWS][2], result[ROWS][WIDTH / 8][4];
#pragma unroll
  for (unsigned m = 0; m < ROWS; m++) {
    most[m][0] = most[m][1] = -INFINITY;
    sum[m][0] = sum[m][1] = 0;
#pragma unroll
    for (unsigned n = 0; n < WIDTH / 8; n++)
#pragma unroll
      for (unsigned i = 0; i < 4; i++) result[m][n][i] = 0;
  }

  for (unsigned first = 0, buffer = 0; first < seen; first += KEYS, buffer ^= 1) {
    cp_async_wait_all();
    // All keys are there, and everybody is done with those before, whose place the next may take.
    __syncthreads();
    if (first + KEYS < seen) load(first + KEYS, buffer ^ 1);

    float score[ROWS][KEYS / 8][4];
#pragma unroll
    for (unsigned n = 0; n < KEYS / 8; n++) {
#pragma unroll
      for (unsigned m = 0; m < ROWS; m++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) score[m][n][i] = 0;
#pragma unroll
      for (unsigned k = 0; k < WIDTH / 16; k += 2) {
        unsigned b[4];
        ldmatrix(b, &shared_keys[buffer][n * 8 + lane % 8][k * 16 + lane / 8 * 8]);
#pragma unroll
        for (unsigned m = 0; m < ROWS; m++) {
          mma<T>(score[m][n], q[m][k], b);
          mma<T>(score[m][n], q[m][k + 1], b + 2);
        }
      }
    }

    if (causal || first + KEYS > keys) {
#pragma unroll
      for (unsigned m = 0; m < ROWS; m++)
#pragma unroll
        for (unsigned n = 0; n < KEYS / 8; n++)
#pragma unroll
          for (unsigned i = 0; i < 4; i++) {
            const unsigned token = first + n * 8 + column + i % 2;
            if (token >= keys || (causal && token > start + m * 16 + row + i / 2 * 8)) score[m][n][i] = -INFINITY;
          }
    }

#pragma unroll
    for (unsigned m = 0; m < ROWS; m++)
#pragma unroll
      for (unsigned half = 0; half < 2; half++) {
        float largest = most[m][half];
#pragma unroll
        for (unsigned n = 0; n < KEYS / 8; n++)
          largest = fmaxf(largest, fmaxf(score[m][n][2 * half], score[m][n][2 * half + 1]));
        largest = fmaxf(largest, shfl_xor(largest, 1));
        largest = fmaxf(largest, shfl_xor(largest, 2));
        const float less = ex2((most[m][half] - largest) * scale), offset = largest * scale;
        most[m][half] = largest;
        sum[m][half] *= less;
#pragma unroll
        for (unsigned n = 0; n < WIDTH / 8; n++) {
          result[m][n][2 * half] *= less;
          result[m][n][2 * half + 1] *= less;
        }
#pragma unroll
        for (unsigned n = 0; n < KEYS / 8; n++)
#pragma unroll
          for (unsigned i = 2 * half; i < 2 * half + 2; i++) {
            score[m][n][i] = ex2(score[m][n][i] * scale - offset);
            sum[m][half] += score[m][n][i];
          }
      }

    // A thread has of the weights, as a product's result, what it must have of them as the next one's first factor.
#pragma unroll
    for (unsigned k = 0; k < KEYS / 16; k++) {
      unsigned weights[ROWS][4];
#pragma unroll
      for (unsigned m = 0; m < ROWS; m++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
          const float *both = &score[m][2 * k + i / 2][i % 2 * 2];
          weights[m][i] = pair<T>(both[0], both[1]);
        }
#pragma unroll
      for (unsigned n = 0; n < WIDTH / 8; n += 2) {
        unsigned b[4];
        ldmatrix_trans(b, &shared_values[buffer][k * 16 + lane % 16][n * 8 + lane / 16 * 8]);
#pragma unroll
        for (unsigned m = 0; m < ROWS; m++) {
          mma<T>(result[m][n], weights[m], b);
          mma<T>(result[m][n + 1], weights[m], b + 2);
        }
      }
    }
  }

#pragma unroll
  for (unsigned m = 0; m < ROWS; m++)
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
      float all = sum[m][half];
      all += shfl_xor(all, 1);
      all += shfl_xor(all, 2);
      const float share = 1 / all;
      const unsigned token = start + m * 16 + row + half * 8;
#pragma unroll
      for (unsigned n = 0; n < WIDTH / 8; n++) {
        const unsigned channel = n * 8 + column;
        if (token < queries && channel < width)
          *reinterpret_cast<unsigned *>(out + (size_t)token * channels + channel) =
              pair<T>(result[m][n][2 * half] * share, result[m][n][2 * half + 1] * share);
      }
    }
}

}  // namespace

// 64 is SDXL's width. 128 has as many numbers in registers with half the queries and keys.
#define ATTENTION(T, NAME, WIDTH, ROWS, KEYS)                                                                              \
  extern "C" __global__ void __launch_bounds__(WARPS * 32)                                                                 \
      attention_##WIDTH##_##NAME(const T *query, const T *key, const T *value, T *out, unsigned queries, unsigned keys,    \
                                 unsigned width, unsigned query_stride, unsigned key_stride, unsigned value_stride,        \
                                 float scale, int causal) {                                                                \
    attention<T, WIDTH, ROWS, KEYS>(query, key, value, out, queries, keys, width, query_stride, key_stride, value_stride,  \
                                    scale, causal);                                                                        \
  }

ATTENTION(__half, f16, 64, 2, 64)
ATTENTION(__nv_bfloat16, bf16, 64, 2, 64)
ATTENTION(__half, f16, 128, 1, 32)
ATTENTION(__nv_bfloat16, bf16, 128, 1, 32)
