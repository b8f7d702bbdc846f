// Runs the GPU's kernel that the second argument names on the numbers of standard input, and writes the result to standard
// output; those are f32 whatever the kernel takes. The first argument is `early` or `late`, the others are sizes.
#include "gpu_on_cpu.hpp"

#include <string>

#include KERNELS_CU
#include ATTENTION_CU

template <typename T = float>
static Memory<T> read(size_t count) {
  std::vector<float> values(count);
  if (fread(values.data(), sizeof(float), count, stdin) != count) exit(2);
  Memory<T> memory(count);
  for (size_t i = 0; i < count; i++) memory.data[i] = narrow_to<T>(values[i]);
  return memory;
}

// Rows of `row` numbers that are `stride` apart, up to the last one's end.
template <typename T>
static Memory<T> read(size_t rows, size_t row, size_t stride) {
  const auto numbers = read<T>(rows * row);
  Memory<T> memory((rows - 1) * stride + row);
  for (size_t i = 0; i < numbers.size; i++) memory.data[i / row * stride + i % row] = numbers.data[i];
  return memory;
}

template <typename T>
static int write(const Memory<T> &memory) {
  std::vector<float> values(memory.size);
  for (size_t i = 0; i < memory.size; i++) values[i] = wide_of(memory.data[i]);
  return fwrite(values.data(), sizeof(float), values.size(), stdout) == values.size() ? 0 : 2;
}

template <typename T, typename Kernel>
static int attention_of(Kernel kernel, unsigned rows, const std::vector<unsigned> &sizes) {
  const unsigned batch = sizes[0], queries = sizes[1], keys = sizes[2], heads = sizes[3], width = sizes[4], causal = sizes[5];
  // Rows are further apart than they are long, each of the three otherwise; what is between them is not a number.
  const unsigned channels = heads * width;
  auto query = read<T>(batch * queries, channels, channels + 8), key = read<T>(batch * keys, channels, channels + 16);
  auto value = read<T>(batch * keys, channels, channels + 24);
  Memory<T> out(batch * queries * channels);
  const float scale = 1 / std::sqrt((float)width) * 1.44269504f;
  const unsigned block = WARPS * rows * 16;
  launch({(queries + block - 1) / block, heads, batch}, WARPS * 32, [&] {
    kernel(query.data, key.data, value.data, out.data, queries, keys, width, channels + 8, channels + 16, channels + 24, scale,
           causal);
  });
  return write(out);
}

int main(int count, char **arguments) {
  is_late = std::string(arguments[1]) == "late";
  const std::string name = arguments[2];
  std::vector<unsigned> sizes;
  for (int i = 3; i < count; i++) sizes.push_back(atoi(arguments[i]));
  if (name == "group_norm") {
    const unsigned pictures = sizes[0], pixels = sizes[1], channels = sizes[2], groups = sizes[3], parts = sizes[4], silu = sizes[5];
    const Index grid{parts, groups, pictures};
    auto x = read((size_t)pictures * pixels * channels), weight = read(channels), bias = read(channels);
    Memory<float> means(pictures * groups * parts), squares(means.size), y(x.size);
    launch(grid, THREADS, [&] { group_norm_parts_f32(x.data, means.data, squares.data, pixels, channels, groups); });
    launch(grid, THREADS, [&] {
      group_norm_apply_f32(x.data, means.data, squares.data, weight.data, bias.data, y.data, pixels, channels, groups, 1e-5f,
                           silu);
    });
    return write(y);
  }
  if (name == "layer_norm") {
    const unsigned rows = sizes[0], channels = sizes[1];
    auto x = read((size_t)rows * channels), weight = read(channels), bias = read(channels);
    Memory<float> y(x.size);
    launch({rows, 1, 1}, THREADS, [&] { layer_norm_f32(x.data, weight.data, bias.data, y.data, channels, 1e-5f); });
    return write(y);
  }
  if (name == "residual_layer_norm") {
    const unsigned rows = sizes[0], channels = sizes[1];
    auto x = read((size_t)rows * channels), residual = read(x.size), weight = read(channels), bias = read(channels);
    Memory<float> both(2 * x.size);
    launch({rows, 1, 1}, THREADS, [&] {
      residual_layer_norm_f32(x.data, residual.data, weight.data, bias.data, both.data, both.data + x.size, channels, 1e-5f);
    });
    return write(both);
  }
  if (name == "geglu") {
    const unsigned rows = sizes[0], inner = sizes[1];
    auto x = read((size_t)rows * 2 * inner);
    Memory<float> y((size_t)rows * inner);
    launch({3, 1, 1}, THREADS, [&] { geglu_f32(x.data, y.data, y.size, inner); });
    return write(y);
  }
  if (name == "add_bias") {
    const unsigned rows = sizes[0], channels = sizes[1];
    auto y = read((size_t)rows * channels), bias = read(channels);
    launch({3, 1, 1}, THREADS, [&] { add_bias_f32(y.data, bias.data, y.size, channels); });
    return write(y);
  }
  if (name == "add_bias_and_residual") {
    const unsigned rows = sizes[0], channels = sizes[1];
    auto y = read((size_t)rows * channels), bias = read(channels), residual = read(y.size);
    launch({3, 1, 1}, THREADS, [&] { add_bias_and_residual_f32(y.data, bias.data, residual.data, y.size, channels); });
    return write(y);
  }
  if (name == "attention_64_f16") return attention_of<__half>(attention_64_f16, 2, sizes);
  if (name == "attention_64_bf16") return attention_of<__nv_bfloat16>(attention_64_bf16, 2, sizes);
  if (name == "attention_128_f16") return attention_of<__half>(attention_128_f16, 1, sizes);
  if (name == "attention_128_bf16") return attention_of<__nv_bfloat16>(attention_128_bf16, 1, sizes);
  return 2;
}
