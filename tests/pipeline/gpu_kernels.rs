//! The GPU's kernels, run on the CPU (`gpu_kernels.cpp`), against the plain operations: what can be known of them without a
//! GPU. On one, the pipeline makes a trial of them by itself.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use candle_core::{Device, Tensor};
use fourstep::pipeline::{
    noise::TorchCudaRng,
    ops::{GroupNorm, LayerNorm, reference},
};

use crate::support::{Folder, assert_close};

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(TorchCudaRng::new(seed).normal(shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// The kernels as a program.
fn program() -> PathBuf {
    static PROGRAM: LazyLock<(Folder, PathBuf)> = LazyLock::new(|| {
        let (root, folder) = (Path::new(env!("CARGO_MANIFEST_DIR")), Folder::new());
        let (program, kernels) = (folder.0.join("kernels"), root.join("src/pipeline/ops/cuda/kernels.cu"));
        let compiled = Command::new("c++")
            .args(["-std=c++20", "-O1", "-pthread", "-o"])
            .args([&program, &root.join("tests/pipeline/gpu_kernels.cpp")])
            .arg(format!("-DSOURCE=\"{}\"", kernels.display()))
            .output()
            .expect("a C++ compiler, as `tools/set-up --tests` installs it");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        (folder, program)
    });
    PROGRAM.1.clone()
}

fn run(name: &str, sizes: &[usize], operands: &[&Tensor], shape: &[usize]) -> Tensor {
    let mut child = Command::new(program())
        .arg(name)
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
    let (values, rest) = done.stdout.as_chunks::<4>();
    assert!(rest.is_empty());
    Tensor::from_vec(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>(), shape, &Device::Cpu)
        .unwrap()
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
    }
}

#[test]
fn gates_and_biases() {
    let x = (random(1, &[37, 2 * 50]) * 2.0).unwrap();
    assert_close("GEGLU", &run("geglu", &[37, 50], &[&x], &[37, 50]), &reference::geglu(&x).unwrap());
    let bias = random(2, &[100]);
    assert_close("bias", &run("add_bias", &[37, 100], &[&x, &bias], &[37, 100]), &x.broadcast_add(&bias).unwrap());
}
