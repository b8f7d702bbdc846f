//! The GPU's kernels, run on the CPU (`gpu_kernels.cpp`, `gpu_on_cpu.hpp`), against the plain operations: what can be known of them without a
//! GPU. On one, the pipeline makes a trial of them by itself.

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

use crate::support::{Folder, assert_close, relative_error};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(TorchCudaRng::new(seed).normal(shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// The kernels as a program.
fn program() -> PathBuf {
    static PROGRAM: LazyLock<(Folder, PathBuf)> = LazyLock::new(|| {
        let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), Folder::new());
        let program = folder.0.join("kernels");
        let source = |name: &str, file: &str| {
            format!("-D{name}=\"{}\"", root.join("src/pipeline/ops/cuda").join(file).display())
        };
        let compiled = Command::new("c++")
            .args(["-std=c++20", "-O1", "-o"])
            .args([&program, &root.join("tests/pipeline/gpu_kernels.cpp")])
            .args([source("KERNELS_CU", "kernels.cu"), source("ATTENTION_CU", "attention.cu")])
            .output()
            .expect("a C++ compiler, as `tools/set-up --tests` installs it");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        (folder, program)
    });
    PROGRAM.1.clone()
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

#[test]
fn group_norm_in_parts() {
    // (pictures, pixels, channels, groups, parts): groups narrower and wider than a warp, and more parts than pixels.
    for (pictures, pixels, channels, groups, parts) in
        [(1, 1, 4, 2, 1), (2, 300, 40, 8, 3), (1, 77, 96, 2, 5), (1, 3, 8, 4, 4)]
    {
        let layer = GroupNorm { weight: random(1, &[channels]), bias: random(2, &[channels]), groups, eps: 1e-5 };
        // Far from zero: a variance taken carelessly would cancel out.
        let x = (random(3, &[pictures, pixels, channels]) + 50.0).unwrap();
        for silu in [false, true] {
            let sizes = [pictures, pixels, channels, groups, parts, usize::from(silu)];
            let found = run("group_norm", &sizes, &[&x, &layer.weight, &layer.bias], x.dims());
            let expected = reference::group_norm(&layer, &x, silu).unwrap();
            assert_close(&format!("group norm {sizes:?}"), &found, &expected);
        }
    }
}

#[test]
fn layer_norm_of_rows() {
    for (rows, channels) in [(1, 1), (5, 640), (3, 77)] {
        let layer = LayerNorm { weight: random(1, &[channels]), bias: random(2, &[channels]), eps: 1e-5 };
        let x = random(3, &[rows, channels]);
        let found = run("layer_norm", &[rows, channels], &[&x, &layer.weight, &layer.bias], x.dims());
        assert_close(&format!("layer norm {rows} x {channels}"), &found, &reference::layer_norm(&layer, &x).unwrap());
        let residual = random(4, x.dims());
        let operands = [&x, &residual, &layer.weight, &layer.bias];
        let both = run("residual_layer_norm", &[rows, channels], &operands, &[2, rows, channels]);
        let (sum, y) = reference::residual_layer_norm(&layer, &x, &residual).unwrap();
        assert_close(&format!("sum {rows} x {channels}"), &both.get(0).unwrap(), &sum);
        assert_close(&format!("layer norm of a sum {rows} x {channels}"), &both.get(1).unwrap(), &y);
    }
}

#[test]
fn gates_and_biases() {
    let x = (random(1, &[37, 2 * 50]) * 2.0).unwrap();
    assert_close("GEGLU", &run("geglu", &[37, 50], &[&x], &[37, 50]), &reference::geglu(&x).unwrap());
    let (bias, residual) = (random(2, &[100]), random(3, &[37, 100]));
    let expected = x.broadcast_add(&bias).unwrap();
    assert_close("bias", &run("add_bias", &[37, 100], &[&x, &bias], &[37, 100]), &expected);
    let found = run("add_bias_and_residual", &[37, 100], &[&x, &bias, &residual], &[37, 100]);
    assert_close("bias and residual", &found, &(expected + residual).unwrap());
}

/// How far attention is from the plain operation of the same numbers, as a share of the largest. `size` is what queries are
/// multiplied with.
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
