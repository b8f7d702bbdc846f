// Runs the GPU's kernel that the second argument names on the numbers of standard input, and writes the result to standard
// output; those are f32 whatever the kernel takes. The first argument is `early` or `late`, the others are sizes.
#include "gpu_on_cpu.hpp"

#include <string>

#include NORMS_CU
#include ELEMENTWISE_CU
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

// Threads that have vectors of one row's channels, several rows of them where there is room.
template <typename T>
static unsigned threads_for(unsigned channels) {
  unsigned threads = 64;
  while (threads < channels / Vector<T>::COUNT) threads *= 2;
  return threads;
}

template <typename T, typename Parts, typename Apply>
static int group_norm_of(Parts parts, Apply apply, const std::vector<unsigned> &sizes) {
  const unsigned pictures = sizes[0], pixels = sizes[1], channels = sizes[2], groups = sizes[3], part = sizes[4], silu = sizes[5];
  const Index grid{(pixels + part - 1) / part, pictures, 1};
  auto x = read<T>((size_t)pictures * pixels * channels), weight = read<T>(channels), bias = read<T>(channels);
  Memory<float> means(pictures * groups * grid.x), squares(means.size);
  Memory<T> y(x.size);
  const unsigned threads = threads_for<T>(channels);
  launch(grid, threads, [&] { parts(x.data, means.data, squares.data, pixels, part, channels, groups); });
  launch(grid, threads, [&] {
    apply(x.data, means.data, squares.data, weight.data, bias.data, y.data, pixels, part, channels, groups, 1e-5f, silu);
  });
  return write(y);
}

template <typename T, typename Kernel>
static int layer_norm_of(Kernel kernel, const std::vector<unsigned> &sizes) {
  const unsigned rows = sizes[0], channels = sizes[1];
  auto x = read<T>((size_t)rows * channels), weight = read<T>(channels), bias = read<T>(channels);
  Memory<T> y(x.size);
  launch({(rows + 1) / 2, 1, 1}, 64, [&] { kernel(x.data, weight.data, bias.data, y.data, rows, channels, 1e-5f); });
  return write(y);
}

template <typename T, typename Kernel>
static int residual_layer_norm_of(Kernel kernel, const std::vector<unsigned> &sizes) {
  const unsigned rows = sizes[0], channels = sizes[1];
  auto x = read<T>((size_t)rows * channels), residual = read<T>(x.size), weight = read<T>(channels), bias = read<T>(channels);
  Memory<T> both(2 * x.size);
  launch({(rows + 1) / 2, 1, 1}, 64, [&] {
    kernel(x.data, residual.data, weight.data, bias.data, both.data, both.data + x.size, rows, channels, 1e-5f);
  });
  return write(both);
}

static int softmax_of_rows(const std::vector<unsigned> &sizes) {
  const unsigned rows = sizes[0], columns = sizes[1];
  auto x = read((size_t)rows * columns);
  Memory<float> y(x.size);
  launch({rows, 1, 1}, 64, [&] { softmax_f32(x.data, y.data, columns); });
  return write(y);
}

template <typename T, typename Kernel>
static int geglu_of(Kernel kernel, const std::vector<unsigned> &sizes) {
  const unsigned rows = sizes[0], inner = sizes[1];
  auto x = read<T>((size_t)rows * 2 * inner);
  Memory<T> y((size_t)rows * inner);
  const unsigned vector = Vector<T>::COUNT;
  launch({2, 1, 1}, 64, [&] { kernel(x.data, y.data, y.size / vector, inner / vector); });
  return write(y);
}

template <typename T, typename Kernel, typename WithResidual>
static int add_channels_of(Kernel kernel, WithResidual with_residual, const std::vector<unsigned> &sizes) {
  const unsigned pictures = sizes[0], pixels = sizes[1], channels = sizes[2], has_residual = sizes[3];
  auto x = read<T>((size_t)pictures * pixels * channels), numbers = read<T>(pictures * channels);
  Memory<T> y(x.size);
  const unsigned vector = Vector<T>::COUNT, count = x.size / vector, picture = pixels * channels / vector;
  if (has_residual) {
    auto residual = read<T>(x.size);
    launch({2, 1, 1}, 64, [&] {
      with_residual(x.data, numbers.data, residual.data, y.data, count, channels / vector, picture);
    });
  } else {
    launch({2, 1, 1}, 64, [&] { kernel(x.data, numbers.data, y.data, count, channels / vector, picture); });
  }
  return write(y);
}

template <typename T, typename Kernel>
static int upsample_nearest_of(Kernel kernel, const std::vector<unsigned> &sizes) {
  const unsigned pictures = sizes[0], height = sizes[1], width = sizes[2], channels = sizes[3], to_height = sizes[4], to_width = sizes[5];
  auto x = read<T>((size_t)pictures * height * width * channels);
  Memory<T> y((size_t)pictures * to_height * to_width * channels);
  const unsigned vector = Vector<T>::COUNT;
  launch({2, 1, 1}, 64, [&] {
    kernel(x.data, y.data, y.size / vector, channels / vector, height, width, to_height, to_width, (float)height / to_height,
           (float)width / to_width);
  });
  return write(y);
}

#define KERNELS_OF(T, NAME)                                                                                                 \
  if (name == "group_norm_" #NAME) return group_norm_of<T>(group_norm_parts_##NAME, group_norm_apply_##NAME, sizes);        \
  if (name == "layer_norm_" #NAME) return layer_norm_of<T>(layer_norm_##NAME, sizes);                                       \
  if (name == "residual_layer_norm_" #NAME) return residual_layer_norm_of<T>(residual_layer_norm_##NAME, sizes);            \
  if (name == "geglu_" #NAME) return geglu_of<T>(geglu_##NAME, sizes);                                                      \
  if (name == "add_channels_" #NAME)                                                                                        \
    return add_channels_of<T>(add_channels_##NAME, add_channels_and_residual_##NAME, sizes);                                \
  if (name == "upsample_nearest_" #NAME) return upsample_nearest_of<T>(upsample_nearest_##NAME, sizes);

int main(int count, char **arguments) {
  is_late = std::string(arguments[1]) == "late";
  const std::string name = arguments[2];
  std::vector<unsigned> sizes;
  for (int i = 3; i < count; i++) sizes.push_back(atoi(arguments[i]));
  KERNELS_OF(float, f32)
  KERNELS_OF(__half, f16)
  KERNELS_OF(__nv_bfloat16, bf16)
  if (name == "softmax_f32") return softmax_of_rows(sizes);
  if (name == "attention_64_f16") return attention_of<__half>(attention_64_f16, 2, sizes);
  if (name == "attention_64_bf16") return attention_of<__nv_bfloat16>(attention_64_bf16, 2, sizes);
  if (name == "attention_128_f16") return attention_of<__half>(attention_128_f16, 1, sizes);
  if (name == "attention_128_bf16") return attention_of<__nv_bfloat16>(attention_128_bf16, 1, sizes);
  return 2;
}
