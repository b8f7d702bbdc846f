//! The GPU's kernels, run on the CPU (`gpu_kernels.cpp`, `gpu_on_cpu.hpp`), against the plain operations: what can be
//! known of them without a GPU. On one, the pipeline makes a trial of them by itself.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use candle_core::{DType, Device, Tensor};
use fourstep::pipeline::{
    noise::TorchCudaRng,
    ops::{GroupNorm, LayerNorm, Mask, reference},
};

use crate::support::relative_error;

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(TorchCudaRng::new(seed).normal(shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// The kernels as a program.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gpu_kernels");
        let source = |name: &str, file: &str| {
            format!("-D{name}=\"{}\"", root.join("src/pipeline/ops/cuda").join(file).display())
        };
        let compiled = Command::new("c++")
            .args(["-std=c++20", "-O1", "-o"])
            .args([&program, &root.join("tests/pipeline/gpu_kernels.cpp")])
            .args([source("NORMS_CU", "norms.cu"), source("ELEMENTWISE_CU", "elementwise.cu")])
            .arg(source("ATTENTION_CU", "attention.cu"))
            .output()
            .expect("a C++ compiler, as `tools/set-up --tests` installs it");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        program
    });
    &PROGRAM
}

/// What a kernel makes, which must not depend on which of its threads is ahead of the others.
fn run(name: &str, sizes: &[usize], operands: &[&Tensor], shape: &[usize]) -> Tensor {
    let early = run_once("early", name, sizes, operands);
    assert!(early == run_once("late", name, sizes, operands), "{name} {sizes:?} waits for too little");
    let (values, rest) = early.as_chunks::<4>();
    assert!(rest.is_empty());
    Tensor::from_vec(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>(), shape, &Device::Cpu)
        .unwrap()
}

fn run_once(order: &str, name: &str, sizes: &[usize], operands: &[&Tensor]) -> Vec<u8> {
    let mut child = Command::new(program())
        .args([order, name])
        .args(sizes.iter().map(ToString::to_string))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for operand in operands {
        let values = operand.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        input.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    }
    drop(input);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{name} {sizes:?}");
    done.stdout
}

/// The types kernels take, and how far a result may be off, as a share of the largest: f32 as far as sums in another
/// order bring it, the others half a step.
const TYPES: [(DType, f32); 3] = [(DType::F32, 5e-7), (DType::F16, 1.0 / 2048.0), (DType::BF16, 1.0 / 256.0)];

/// Numbers of the type, in f32.
fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
}

fn assert_near(what: &str, found: &Tensor, expected: &Tensor, tolerance: f32) {
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let off = relative_error(&values(found), &values(expected));
    assert!(off <= tolerance, "{what}: off by {off}");
}

#[test]
fn group_norm_in_parts() {
    // (pictures, pixels, channels, groups, pixels of a part): groups narrower than a vector, of several, across
    // vectors; one pixel, parts that end early, and more threads than there is a row for.
    for (pictures, pixels, channels, groups, part) in [
        (1, 1, 8, 2, 1),
        (2, 300, 40, 4, 128),
        (1, 77, 96, 2, 16),
        (1, 7, 8, 4, 2),
        (1, 9, 320, 32, 4),
        (1, 65, 24, 8, 65),
    ] {
        for (dtype, tolerance) in TYPES {
            let vector = |seed| rounded(&random(seed, &[channels]), dtype);
            let layer = GroupNorm { weight: vector(1), bias: vector(2), groups, eps: 1e-5 };
            // Far from zero: a variance taken carelessly would cancel out.
            let x = rounded(&(random(3, &[pictures, pixels, channels]) + 50.0).unwrap(), dtype);
            for silu in [false, true] {
                let sizes = [pictures, pixels, channels, groups, part, usize::from(silu)];
                let name = format!("group_norm_{}", dtype.as_str());
                let found = run(&name, &sizes, &[&x, &layer.weight, &layer.bias], x.dims());
                let expected = reference::group_norm(&layer, &x, silu).unwrap();
                // f32's numbers around 50 are as coarse.
                assert_near(&format!("{name} {sizes:?}"), &found, &expected, tolerance.max(1e-5));
            }
        }
    }
}

#[test]
fn layer_norm_of_rows() {
    for (rows, channels) in [(1, 8), (5, 640), (3, 72)] {
        for (dtype, tolerance) in TYPES {
            let vector = |seed| rounded(&random(seed, &[channels]), dtype);
            let layer = LayerNorm { weight: vector(1), bias: vector(2), eps: 1e-5 };
            let x = rounded(&random(3, &[rows, channels]), dtype);
            let name = format!("layer_norm_{}", dtype.as_str());
            let found = run(&name, &[rows, channels], &[&x, &layer.weight, &layer.bias], x.dims());
            let expected = reference::layer_norm(&layer, &x).unwrap();
            assert_near(&format!("{name} {rows} x {channels}"), &found, &expected, tolerance);

            let residual = rounded(&random(4, x.dims()), dtype);
            let operands = [&x, &residual, &layer.weight, &layer.bias];
            let both = run(&format!("residual_{name}"), &[rows, channels], &operands, &[2, rows, channels]);
            let sum = rounded(&(&x + &residual).unwrap(), dtype);
            let expected = reference::layer_norm(&layer, &sum).unwrap();
            assert_near(&format!("sum {rows} x {channels}"), &both.get(0).unwrap(), &sum, 0.0);
            assert_near(&format!("residual_{name} {rows} x {channels}"), &both.get(1).unwrap(), &expected, tolerance);
        }
    }
}

#[test]
fn softmax_of_rows() {
    // Fewer vectors than threads, more, and scores whose powers f32 does not have.
    for (rows, columns, size) in [(1, 8, 1.0), (3, 104, 3.0), (2, 1544, 3.0), (2, 520, 1000.0)] {
        let x = (random(1, &[rows, columns]) * size).unwrap();
        let found = run("softmax_f32", &[rows, columns], &[&x], &[rows, columns]);
        // Scores in the thousands are as coarse in f32 as their powers then are.
        let tolerance = 5e-7f32.max(2e-7 * size as f32);
        let expected = candle_nn::ops::softmax_last_dim(&x).unwrap();
        assert_near(&format!("softmax {rows} x {columns}"), &found, &expected, tolerance);
    }
}

#[test]
fn gates_biases_and_repeated_pixels() {
    for (dtype, tolerance) in TYPES {
        let kernel = |name: &str| format!("{name}_{}", dtype.as_str());
        let x = rounded(&(random(1, &[37, 2 * 48]) * 2.0).unwrap(), dtype);
        let found = run(&kernel("geglu"), &[37, 48], &[&x], &[37, 48]);
        assert_near(&kernel("geglu"), &found, &reference::geglu(&x).unwrap(), tolerance);

        let pictures = rounded(&random(2, &[3, 4, 5, 24]), dtype);
        let (channels, residual) = (rounded(&random(3, &[3, 24]), dtype), rounded(&random(4, &[3, 4, 5, 24]), dtype));
        let name = kernel("add_channels");
        let found = run(&name, &[3, 20, 24, 0], &[&pictures, &channels], pictures.dims());
        let expected = reference::add_channels(&pictures, &channels).unwrap();
        assert_near(&name, &found, &rounded(&expected, dtype), 0.0);
        let found = run(&name, &[3, 20, 24, 1], &[&pictures, &channels, &residual], pictures.dims());
        assert_near(&format!("{name} and a residual"), &found, &rounded(&(expected + residual).unwrap(), dtype), 0.0);

        // Twice, three times, and sizes that do not divide.
        for (height, width) in [(8, 10), (12, 10), (7, 11)] {
            let name = kernel("upsample_nearest");
            let found = run(&name, &[3, 4, 5, 24, height, width], &[&pictures], &[3, height, width, 24]);
            let expected = reference::upsample_nearest(&pictures, height, width).unwrap();
            assert_near(&format!("{name} {height} x {width}"), &found, &expected, 0.0);
        }
    }
}

/// How far attention is from the plain operation of the same numbers, as a share of the largest. `size` is what queries
/// are multiplied with.
fn attention_off(
    dtype: DType,
    (batch, queries, keys): (usize, usize, usize),
    (heads, width): (usize, usize),
    mask: Mask,
    size: f64,
) -> f32 {
    // Numbers of the type, in f32.
    let random = |seed, tokens, size: f64| {
        let x = (random(seed, &[batch, tokens, heads * width]) * size).unwrap();
        x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
    };
    let (query, key, value) = (random(1, queries, size), random(2, keys, 1.0), random(3, keys, 1.0));
    let name = format!("attention_{}_{}", if width <= 64 { 64 } else { 128 }, dtype.as_str());
    let sizes = [batch, queries, keys, heads, width, usize::from(mask == Mask::Causal)];
    let found = run(&name, &sizes, &[&query, &key, &value], query.dims());
    let expected = reference::attention(&query, &key, &value, heads, mask).unwrap();
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    relative_error(&values(&found), &values(&expected))
}

#[test]
fn attention_on_tensor_cores() {
    // (batch, queries, keys): one of each, a text, ends within and at the end of what a block and a pass take.
    for (tokens, heads) in [
        ((1, 1, 1), (1, 64)),
        ((2, 40, 77), (3, 64)),
        ((1, 128, 64), (1, 64)),
        ((1, 129, 193), (2, 64)),
        ((2, 9, 130), (2, 16)),
        ((1, 33, 65), (3, 40)),
        ((1, 70, 77), (2, 128)),
        ((2, 65, 97), (1, 80)),
        ((1, 64, 32), (1, 128)),
    ] {
        for mask in [Mask::None, Mask::Causal] {
            // Half a step of the type for the weights, and as much for the result.
            for (dtype, tolerance) in [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)] {
                let off = attention_off(dtype, tokens, heads, mask, 1.0);
                assert!(off < tolerance, "{tokens:?} {heads:?} {mask:?} {dtype:?}: {off}");
            }
        }
    }
}

#[test]
fn attention_of_large_scores() {
    // Scores in the thousands, rising and falling from pass to pass: their powers are outside of what f32 has.
    for size in [300.0, 3000.0] {
        let off = attention_off(DType::F16, (1, 20, 300), (1, 64), Mask::None, size);
        assert!(off < 1.0 / 1024.0, "{size}: {off}");
    }
}
