//! The CPU's versions of the operations against the plain ones, over shapes that reach every path.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use fourstep::pipeline::{
    Error,
    noise::TorchCudaRng,
    ops::{
        Activation, Convolution, GroupNorm, Int8Linear, LayerNorm, Linear, Mask, Padding, Projections, add_channels,
        attention, concat_channels, geglu, has_int8, has_matrix_units, multiplies_bf16, reference, upsample_nearest,
    },
    weights::{Source, TensorStore},
};

use crate::support::{assert_close, relative_error};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    let values = TorchCudaRng::new(seed).normal(shape.iter().product());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn bf16(x: &Tensor) -> Tensor {
    x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The same tests in processes that make no use of what the machine has: of matrix units, then of bf16 at all, then of
/// vectors of sixteen, then of AVX-VNNI.
#[test]
fn operations_on_lesser_processors() {
    #[cfg(target_arch = "x86_64")]
    let (avx512, avx_vnni) = (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avxvnni"));
    #[cfg(not(target_arch = "x86_64"))]
    let (avx512, avx_vnni) = (false, false);
    let lesser = [
        ("avx512_bf16", has_matrix_units()),
        ("avx512", multiplies_bf16()),
        ("avx_vnni", avx512 && avx_vnni),
        ("avx2", avx512 || avx_vnni),
    ];
    for (most, _) in lesser.into_iter().filter(|(_, is_less)| *is_less) {
        let tests = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["operations::", "stages::", "--skip", "operations_on_lesser_processors"])
            .env("FOURSTEP_MAX_CPU", most)
            .output()
            .unwrap();
        assert!(tests.status.success(), "{most}: {}", String::from_utf8_lossy(&tests.stdout));
    }
}

#[test]
fn large_products_in_every_order() {
    // Deeper and wider than a panel, with edges on all sides; keys in several blocks, of one head as wide as the VAE's.
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let kept = |x: Tensor| x.to_dtype(dtype).unwrap();
        // What bf16 is multiplied with is bf16.
        let seen = |x: &Tensor| if dtype == DType::BF16 && multiplies_bf16() { bf16(x) } else { x.clone() };
        let layer = Linear::new(kept(random(1, &[550, 2600])), Some(random(2, &[550])));
        let x = random(3, &[1, 70, 2600]);
        let name = format!("large linear, {dtype:?}");
        assert_close(&name, &layer.forward(&x).unwrap(), &reference::linear(&layer, &seen(&x)).unwrap());
        let name = format!("large convolution, {dtype:?}");
        for (height, width, inputs, outputs) in [(9, 21, 500, 300), (70, 70, 40, 70)] {
            let layer =
                Convolution::new(kept(random(1, &[3, 3, inputs, outputs])), random(2, &[outputs]), 1, Padding::same(1));
            let x = random(3, &[1, height, width, inputs]);
            assert_close(&name, &layer.forward(&x).unwrap(), &reference::convolution(&layer, &seen(&x)).unwrap());
        }
        let (query, key, value) = (random(1, &[1, 150, 512]), random(2, &[1, 1100, 512]), random(3, &[1, 1100, 512]));
        let found = attention(&query, &key, &value, (1, Mask::None), dtype).unwrap();
        let expected = reference::attention(&query, &key, &value, 1, Mask::None).unwrap();
        let name = format!("large attention, {dtype:?}");
        if dtype == DType::BF16 {
            // Numbers of eight bits are off by 2^-9 of themselves at worst, scores by both of their factors'.
            let off = relative_error(&values(&found), &values(&expected));
            assert!(off < 2f32.powi(-7), "{name}: off by {off:e}");
        } else {
            assert_close(&name, &found, &expected);
        }
    }
}

#[test]
fn products_with_weights_in_f32_keep_all_24_bits() {
    const DEPTH: usize = 96;
    const OUTPUTS: usize = 48;
    let (x, weight) = (random(1, &[1, 64, DEPTH]), random(2, &[OUTPUTS, DEPTH]));
    let found = values(&Linear::new(weight.clone(), None).forward(&x).unwrap());
    let (x, weight) = (values(&x), values(&weight));
    for (number, found) in found.into_iter().enumerate() {
        let (row, output) = (&x[number / OUTPUTS * DEPTH..][..DEPTH], &weight[number % OUTPUTS * DEPTH..][..DEPTH]);
        let terms = row.iter().zip(output).map(|(&x, &w)| f64::from(x) * f64::from(w));
        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
        // Numbers of 16 bits would be off by 2^-17 of the terms' size at worst.
        let error = (f64::from(found) - sum).abs() / size;
        assert!(error < 2f64.powi(-22), "product {number} is off by 2^{:.1}", error.log2());
    }
}

/// Sums in another order are off by less than this; products of 16 bits by more.
fn assert_all_bits(name: &str, found: &Tensor, expected: &Tensor) {
    let off = relative_error(&values(found), &values(expected));
    assert!(off < 1e-6, "{name} is off by {off:.1e}");
}

#[test]
fn weights_of_a_narrower_type_multiply_as_exactly_as_they_are_asked_to() {
    for dtype in [DType::F16, DType::BF16] {
        let narrow = |x: Tensor| x.to_dtype(dtype).unwrap();
        // Sizes for each way of products.
        for (rows, inputs, outputs) in [(1, 33, 50), (70, 33, 50), (70, 1040, 320)] {
            let (weight, x) = (narrow(random(1, &[outputs, inputs])), random(3, &[1, rows, inputs]));
            let wide = Linear::new(weight.to_dtype(DType::F32).unwrap(), Some(random(2, &[outputs])));
            let layer = Linear { weight: weight.into(), ..wide.clone() };
            let name = format!("linear {rows} rows, {inputs} to {outputs}, {dtype:?}");
            assert_all_bits(&name, &layer.forward(&x).unwrap(), &wide.forward(&x).unwrap());
        }
        for (size, inputs, outputs, stride) in [(9, 5, 7, 1), (70, 5, 7, 1), (20, 80, 96, 1), (20, 80, 96, 2)] {
            let (weight, x) = (narrow(random(1, &[3, 3, inputs, outputs])), random(3, &[1, size, size, inputs]));
            let (wide, bias) = (weight.to_dtype(DType::F32).unwrap(), random(2, &[outputs]));
            let wide = Convolution::new(wide, bias, stride, Padding::same(1));
            let layer = Convolution { weight, ..wide.clone() };
            let name = format!("convolution {size}x{size}, {inputs} to {outputs}, stride {stride}, {dtype:?}");
            assert_all_bits(&name, &layer.forward(&x).unwrap(), &wide.forward(&x).unwrap());
        }
    }
}

#[test]
fn convolution() {
    // (batch, height, width, in, out, stride, padding): the last is large enough to be cut into bands.
    let same = Padding::same(1);
    for (b, h, w, inputs, outputs, stride, padding) in [
        (1, 1, 1, 1, 1, 1, same),
        (2, 5, 7, 3, 4, 1, same),
        (2, 5, 7, 3, 4, 2, same),
        (1, 8, 6, 5, 2, 2, Padding::AFTER),
        (1, 9, 7, 5, 2, 2, Padding::AFTER),
        (1, 70, 66, 4, 8, 1, same),
        (2, 140, 66, 4, 8, 2, same),
    ] {
        for dtype in [DType::F32, DType::F16] {
            let weight = random(1, &[3, 3, inputs, outputs]).to_dtype(dtype).unwrap();
            let layer = Convolution::new(weight, random(2, &[outputs]), stride, padding);
            let x = random(3, &[b, h, w, inputs]);
            let name =
                format!("convolution {b}x{h}x{w}, {inputs} to {outputs}, stride {stride}, {padding:?}, {dtype:?}");
            let expected = reference::convolution(&layer, &x).unwrap();
            assert_close(&name, &layer.forward(&x).unwrap(), &expected);
            let residual = random(4, expected.dims());
            let found = layer.forward_residual(&x, &residual).unwrap();
            assert_close(&format!("{name}, with a residual"), &found, &(expected + residual).unwrap());
        }
    }
}

#[test]
fn convolution_by_tiles_of_outputs() {
    // Channels that Winograd's way is open to: sizes that end within a tile, several parts of the depth and of the
    // outputs, several pictures in a block of tiles and several blocks in a picture, and one that is large whatever the
    // weight's type.
    for (b, h, w, inputs, outputs) in [
        (1, 1, 1, 16, 32),
        (3, 5, 8, 16, 32),
        (1, 7, 4, 80, 288),
        (2, 16, 16, 144, 64),
        (1, 70, 41, 32, 32),
        (1, 66, 67, 16, 32),
    ] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let weight = random(1, &[3, 3, inputs, outputs]).to_dtype(dtype).unwrap();
            let layer = Convolution::new(weight, random(2, &[outputs]), 1, Padding::same(1));
            let x = random(3, &[b, h, w, inputs]);
            let name = format!("convolution {b}x{h}x{w}, {inputs} to {outputs}, {dtype:?}");
            // What bf16 is multiplied with is bf16, but for the pictures that f32's arithmetic is faster for than
            // vectors of bf16.
            let is_of_bf16 = |(height, width)| {
                let saves = (height, width) == (2 * h, 2 * w) || height * width >= 64 * 64;
                dtype == DType::BF16 && multiplies_bf16() && (has_matrix_units() || !saves)
            };
            let assert_convolved = |name: &str, found: &Tensor, expected: &dyn Fn(&Tensor) -> Tensor| {
                let (_, height, width, _) = found.dims4().unwrap();
                let x = if is_of_bf16((height, width)) { bf16(&x) } else { x.clone() };
                assert_close(name, found, &expected(&x));
            };
            assert_convolved(&name, &layer.forward(&x).unwrap(), &|x| reference::convolution(&layer, x).unwrap());
            let residual = random(4, &[b, h, w, outputs]);
            let found = layer.forward_residual(&x, &residual).unwrap();
            assert_convolved(&format!("{name}, with a residual"), &found, &|x| {
                (reference::convolution(&layer, x).unwrap() + &residual).unwrap()
            });
            for (height, width) in [(2 * h, 2 * w), (2 * h - 1, 2 * w)] {
                let found = layer.forward_upsampled(&x, height, width).unwrap();
                assert_convolved(&format!("{name}, enlarged to {height}x{width}"), &found, &|x| {
                    let enlarged = reference::upsample_nearest(x, height, width).unwrap();
                    reference::convolution(&layer, &enlarged).unwrap()
                });
            }
        }
    }
}

#[test]
fn linear_in_every_kept_type() {
    // The last three have sizes that are packed in lanes: the least, several parts of the depth with fewer outputs than
    // cores share, and several parts of both.
    for (rows, inputs, outputs) in
        [(1, 1, 1), (7, 33, 50), (130, 640, 1000), (9, 16, 32), (20, 1040, 32), (65, 1040, 320)]
    {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let weight = random(1, &[outputs, inputs]).to_dtype(dtype).unwrap();
            for bias in [Some(random(2, &[outputs])), None] {
                let layer = Linear::new(weight.clone(), bias);
                let x = random(3, &[2, rows, inputs]);
                let name = format!("linear {rows} rows, {inputs} to {outputs}, {dtype:?}");
                let found = layer.forward(&x).unwrap();
                // With many rows, bf16 is multiplied with bf16.
                let x = if dtype == DType::BF16 && multiplies_bf16() && 2 * rows >= 8 { bf16(&x) } else { x };
                assert_close(&name, &found, &reference::linear(&layer, &x).unwrap());
            }
        }
    }
}

/// The nearest of the 255 integers that reach to the row's largest number, and what one of them stands for.
fn quantized(row: &[f32]) -> (Vec<i64>, f32) {
    let largest = row.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
    (row.iter().map(|number| (number * (127.0 / largest)).round_ties_even() as i64).collect(), largest / 127.0)
}

#[test]
fn linear_in_eight_bit_integers() {
    for (rows, inputs, outputs) in [(1, 1, 1), (7, 33, 50), (130, 640, 1000), (3, 70, 32)] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let weight = random(1, &[outputs, inputs]).to_dtype(dtype).unwrap();
            for bias in [Some(random(2, &[outputs])), None] {
                let layer = Linear::new(weight.clone(), bias.clone());
                if !has_int8() {
                    assert!(matches!(Int8Linear::of(&layer), Err(Error::NoInt8)));
                    continue;
                }
                let x = random(3, &[2, rows, inputs]);
                let found = Int8Linear::of(&layer).unwrap().forward(&x).unwrap();
                let of_outputs = values(&weight.to_dtype(DType::F32).unwrap());
                let of_outputs: Vec<_> = of_outputs.chunks(inputs).map(quantized).collect();
                let bias = bias.map_or(vec![0.0; outputs], |bias| values(&bias));
                let mut expected = Vec::new();
                for (row, scale) in values(&x).chunks(inputs).map(quantized) {
                    for ((output, output_scale), bias) in of_outputs.iter().zip(&bias) {
                        let sum: i64 = row.iter().zip(output).map(|(a, b)| a * b).sum();
                        expected.push(sum as f32 * (scale * output_scale) + bias);
                    }
                }
                let name = format!("int8 linear {rows} rows, {inputs} to {outputs}, {dtype:?}");
                assert_close(&name, &found, &Tensor::from_vec(expected, found.shape(), &Device::Cpu).unwrap());
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_stays_so_in_eight_bits() {
    if !has_int8() {
        return;
    }
    let layer = Int8Linear::of(&Linear::new(random(1, &[4, 40]), None)).unwrap();
    for broken in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Among those that are looked at sixteen at a time, and after them.
        for place in [41, 75] {
            let mut numbers = values(&random(2, &[1, 3, 40]));
            numbers[place] = broken;
            let y = values(&layer.forward(&Tensor::from_vec(numbers, (1, 3, 40), &Device::Cpu).unwrap()).unwrap());
            assert!(y[4..8].iter().all(|y| !y.is_finite()), "the failure is seen");
            assert!(y[..4].iter().chain(&y[8..]).all(|y| y.is_finite()), "and is its row's");
        }
    }
}

#[test]
fn an_output_whose_weights_are_not_finite_stays_so_in_eight_bits() {
    if !has_int8() {
        return;
    }
    let x = random(1, &[1, 3, 40]);
    for broken in [f32::NAN, f32::INFINITY] {
        for place in [41, 75] {
            let mut weights = values(&random(2, &[4, 40]));
            weights[place] = broken;
            let layer = Linear::new(Tensor::from_vec(weights, (4, 40), &Device::Cpu).unwrap(), None);
            let y = values(&Int8Linear::of(&layer).unwrap().forward(&x).unwrap());
            let (of_it, others): (Vec<_>, Vec<_>) = y.into_iter().enumerate().partition(|(number, _)| number % 4 == 1);
            assert!(of_it.iter().all(|(_, y)| !y.is_finite()), "the failure is seen");
            assert!(others.iter().all(|(_, y)| y.is_finite()), "and is its output's");
        }
    }
}

#[test]
fn group_norm() {
    for (shape, groups) in [(vec![2, 3, 5, 8], 4), (vec![1, 40, 40, 32], 32), (vec![2, 700, 6], 2)] {
        let channels = *shape.last().unwrap();
        let layer = GroupNorm { weight: random(1, &[channels]), bias: random(2, &[channels]), groups, eps: 1e-5 };
        // Far from zero: a variance taken carelessly would cancel out.
        let x = (random(3, &shape) + 100.0).unwrap();
        let name = format!("group norm of {shape:?}");
        let shifted = |silu| reference::group_norm(&layer, &x, silu).unwrap();
        assert_close(&name, &layer.forward(&x).unwrap(), &shifted(false));
        assert_close(&name, &layer.forward_silu(&x).unwrap(), &shifted(true));
    }
}

#[test]
fn layer_norm() {
    let layer = LayerNorm { weight: random(1, &[48]), bias: random(2, &[48]), eps: 1e-5 };
    let x = (random(3, &[2, 77, 48]) * 5.0).unwrap();
    assert_close("layer norm", &layer.forward(&x).unwrap(), &reference::layer_norm(&layer, &x).unwrap());
    let residual = random(4, x.dims());
    let (sum, y) = layer.forward_residual(&x, &residual).unwrap();
    let (expected_sum, expected) = reference::residual_layer_norm(&layer, &x, &residual).unwrap();
    assert_close("sum", &sum, &expected_sum);
    assert_close("layer norm of a sum", &y, &expected);
}

#[test]
fn attention_with_and_without_a_mask() {
    for (b, queries, keys, heads, width, mask) in [
        (1, 1, 1, 1, 4, Mask::None),
        (2, 300, 77, 3, 24, Mask::None),
        (2, 77, 77, 4, 40, Mask::Causal),
        // Several blocks of keys, and parts of the queries.
        (1, 1030, 1030, 1, 20, Mask::Causal),
        (1, 1500, 600, 2, 160, Mask::None),
        (1, 400, 400, 1, 32, Mask::None),
    ] {
        let query = (random(1, &[b, queries, width]) * 3.0).unwrap();
        let (key, value) = (random(2, &[b, keys, width]), random(3, &[b, keys, width]));
        let name = format!("attention of {queries} over {keys}, {heads} heads, {mask:?}");
        let expected = reference::attention(&query, &key, &value, heads, mask).unwrap();
        for kept in [DType::F32, DType::F16] {
            assert_close(&name, &attention(&query, &key, &value, (heads, mask), kept).unwrap(), &expected);
        }
    }
}

#[test]
fn attention_of_rows_that_are_further_apart_than_they_are_long() {
    // One token of one picture, which has no next; a few; enough for each way of products.
    for (b, tokens, heads, channels) in [(1, 1, 1, 8), (2, 1, 2, 8), (2, 9, 2, 24), (2, 77, 2, 64)] {
        let all = random(1, &[b, tokens, 3 * channels]).chunk(3, 2).unwrap();
        let [query, key, value] = &all[..] else { panic!("three") };
        for mask in [Mask::None, Mask::Causal] {
            let expected = reference::attention(query, key, value, heads, mask).unwrap();
            for kept in [DType::F32, DType::F16] {
                let found = attention(query, key, value, (heads, mask), kept).unwrap();
                assert_close(&format!("{b} x {tokens} of {channels}, {mask:?}, {kept:?}"), &found, &expected);
            }
        }
    }
    let token = random(1, &[8]).unsqueeze(0).unwrap().unsqueeze(0).unwrap();
    let found = attention(&token, &token, &token, (1, Mask::None), DType::F32).unwrap();
    assert_close("a token that looks at itself", &found, &token);
}

/// Weights by name, in memory.
struct Stored(HashMap<&'static str, Tensor>);

impl TensorStore for Stored {
    fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        self.0.get(name).map(Tensor::dtype)
    }

    fn read(&self, name: &str, _: &[usize], dtype: DType) -> Result<Tensor, Error> {
        Ok(self.0[name].to_dtype(dtype)?)
    }
}

#[test]
fn projections_together_are_as_each_by_itself() {
    let names = ["to_q.weight", "to_k.weight", "to_v.weight"];
    let weights: Vec<_> = (1..4).map(|seed| random(seed, &[33, 70])).collect();
    let x = random(4, &[2, 9, 70]);
    for narrow in [0, 2, 3] {
        // Some in f16: as where a LoRA changed the others.
        let kept = |number| if number < narrow { DType::F16 } else { DType::F32 };
        let weights = weights.iter().enumerate().map(|(number, weight)| weight.to_dtype(kept(number)).unwrap());
        let store = Stored(names.into_iter().zip(weights).collect());
        let source = Source::new(&store, &Device::Cpu, DType::F32);
        let projections =
            |source: &Source<'_>| Projections::load(source, &["to_q", "to_k", "to_v"], 70, 33).unwrap().forward(&x);
        let each = projections(&source).unwrap();
        for (name, found) in names.iter().zip(&each) {
            let expected = reference::linear(&Linear::new(store.0[name].to_dtype(DType::F32).unwrap(), None), &x);
            assert_close(name, found, &expected.unwrap());
        }
        if has_int8() {
            let together = projections(&source.clone().quantized()).unwrap();
            for (name, found) in names.iter().zip(&together) {
                let alone = Int8Linear::of(&Linear::new(store.0[name].clone(), None)).unwrap().forward(&x).unwrap();
                assert_eq!(values(found), values(&alone), "{name}");
            }
        }
    }
}

#[test]
fn activations() {
    let x = (random(1, &[3, 1000]) * 6.0).unwrap();
    for activation in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
        let found = activation.forward(&x).unwrap();
        assert_close(&format!("{activation:?}"), &found, &reference::activation(activation, &x).unwrap());
    }
    assert_close("geglu", &geglu(&x).unwrap(), &reference::geglu(&x).unwrap());
}

#[test]
fn operations_that_only_move_values_are_exact() {
    let x = random(1, &[2, 5, 4, 3]);
    let exact = |found: Tensor, expected: Tensor| {
        assert_eq!(found.dims(), expected.dims());
        let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(found), values(expected));
    };
    for (height, width) in [(10, 8), (9, 7), (5, 4)] {
        let expected = reference::upsample_nearest(&x, height, width).unwrap();
        exact(upsample_nearest(&x, height, width).unwrap(), expected);
    }
    let y = random(2, &[2, 5, 4, 7]);
    exact(concat_channels(&x, &y).unwrap(), reference::concat_channels(&x, &y).unwrap());
    let channels = random(3, &[2, 3]);
    exact(add_channels(&x, &channels).unwrap(), reference::add_channels(&x, &channels).unwrap());
}

#[test]
fn a_layer_refuses_an_input_of_another_width() {
    let layer = Linear::new(random(1, &[4, 3]), None);
    assert!(layer.forward(&random(2, &[2, 5])).is_err());
    let layer = Convolution::new(random(1, &[3, 3, 2, 4]), random(2, &[4]), 1, Padding::same(1));
    assert!(layer.forward(&random(3, &[1, 4, 4, 3])).is_err());
    let x = random(3, &[1, 4, 4, 2]);
    assert!(layer.forward_residual(&x, &random(4, &[1, 4, 4, 4])).is_ok());
    assert!(layer.forward_residual(&x, &random(4, &[1, 4, 1, 4])).is_err());
    for (other, channels) in [(&[1, 4, 1, 2], &[1, 3]), (&[2, 4, 4, 2], &[2, 2])] {
        assert!(concat_channels(&x, &random(4, other)).is_err());
        assert!(add_channels(&x, &random(4, channels)).is_err());
    }
    assert!(geglu(&random(4, &[2, 5])).is_err());
    let (query, keys) = (random(1, &[1, 4, 8]), random(2, &[1, 0, 8]));
    assert!(attention(&query, &keys, &keys, (2, Mask::None), DType::F32).is_err());
    let norm = LayerNorm { weight: random(1, &[2]), bias: random(2, &[2]), eps: 1e-5 };
    assert!(norm.forward_residual(&x, &random(4, &[1, 4, 1, 2])).is_err());
}
