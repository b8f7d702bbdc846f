//! The operations that decide how long a picture takes on the CPU, one by one, in the sizes they have at 512 x 512, and
//! attention in those at 1024 x 1024, too: what each reaches. `cargo bench --bench operations` prints the table;
//! `benches/README.md` keeps results.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{hint::black_box, time::Instant};

use candle_core::{DType, Device, Result, Tensor};
use fourstep::pipeline::ops::{Convolution, GroupNorm, Int8Linear, LayerNorm, Linear, Mask, Padding, attention, geglu};

/// How often each is timed, after once for nothing.
const TIMES: usize = 15;

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::rand(-1.0_f32, 1.0, shape, &Device::Cpu)
}

/// Prints the median time of an operation that takes so many multiplications and additions, as usually counted.
fn measure(name: &str, operations: usize, work: impl Fn() -> Result<Tensor>) -> Result<()> {
    black_box(work()?);
    let mut seconds = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = Instant::now();
        black_box(work()?);
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[TIMES / 2];
    let speed = match operations {
        0 => String::new(),
        operations => format!("{:.0}", operations as f64 / median / 1e9),
    };
    println!("| {name} | {:.2} | {speed} |", 1000.0 * median);
    Ok(())
}

fn linear(rows: usize, inputs: usize, outputs: usize) -> Result<()> {
    let weight = random(&[outputs, inputs])?.to_dtype(DType::F16)?;
    let layer = Linear { precision: DType::F32, ..Linear::new(weight, Some(random(&[outputs])?)) };
    let x = random(&[1, rows, inputs])?;
    measure(&format!("linear, {rows} x {inputs} to {outputs}"), 2 * rows * inputs * outputs, || layer.forward(&x))
}

fn int8(rows: usize, inputs: usize, outputs: usize) -> Result<()> {
    // Nothing where the processor has no instructions for it.
    let Ok(layer) = Int8Linear::of(&Linear::new(random(&[outputs, inputs])?, Some(random(&[outputs])?))) else {
        return Ok(());
    };
    let x = random(&[1, rows, inputs])?;
    measure(&format!("int8, {rows} x {inputs} to {outputs}"), 2 * rows * inputs * outputs, || layer.forward(&x))
}

fn convolution(size: usize, inputs: usize, outputs: usize) -> Result<()> {
    let weight = random(&[3, 3, inputs, outputs])?.to_dtype(DType::F16)?;
    let layer = Convolution::new(weight, random(&[outputs])?, 1, Padding::same(1));
    let layer = Convolution { precision: DType::F32, ..layer };
    let x = random(&[1, size, size, inputs])?;
    let operations = 2 * 9 * size * size * inputs * outputs;
    measure(&format!("convolution 3 x 3, {size} x {size}, {inputs} to {outputs}"), operations, || layer.forward(&x))
}

fn attend(queries: usize, keys: usize, heads: usize, width: usize) -> Result<()> {
    let channels = heads * width;
    let (query, key, value) =
        (random(&[1, queries, channels])?, random(&[1, keys, channels])?, random(&[1, keys, channels])?);
    let name = format!("attention, {queries} x {keys}, {heads} heads of {width}");
    measure(&name, 4 * queries * keys * channels, || attention(&query, &key, &value, (heads, Mask::None), DType::F32))
}

fn main() -> Result<()> {
    println!("| f32's arithmetic, weights in f16, or int8 | ms | GFLOP/s |\n| --- | --- | --- |");
    for (rows, inputs, outputs) in [
        (77, 1280, 5120),
        (256, 1280, 1280),
        (256, 1280, 10240),
        (256, 5120, 1280),
        (1024, 640, 640),
        (1024, 640, 5120),
    ] {
        linear(rows, inputs, outputs)?;
    }
    // Query, key and value as three products, above, or as one.
    linear(256, 1280, 3 * 1280)?;
    linear(1024, 640, 3 * 640)?;
    for (rows, inputs, outputs) in [(256, 1280, 1280), (256, 1280, 10240), (256, 5120, 1280), (1024, 640, 5120)] {
        int8(rows, inputs, outputs)?;
    }
    // The UNet's, then the VAE's.
    for (size, inputs, outputs) in
        [(64, 320, 320), (32, 640, 640), (16, 1280, 1280), (64, 512, 512), (256, 256, 256), (512, 128, 128)]
    {
        convolution(size, inputs, outputs)?;
    }
    attend(256, 256, 20, 64)?;
    attend(1024, 1024, 10, 64)?;
    attend(1024, 77, 10, 64)?;
    attend(4096, 4096, 10, 64)?;
    attend(4096, 77, 10, 64)?;
    attend(4096, 4096, 1, 512)?;
    let (x, weight, bias) = (random(&[1, 64, 64, 320])?, random(&[320])?, random(&[320])?);
    let norm = GroupNorm { weight, bias, groups: 32, eps: 1e-5 };
    measure("group norm and SiLU, 64 x 64 x 320", 0, || norm.forward_silu(&x))?;
    let (x, weight, bias) = (random(&[1, 1024, 640])?, random(&[640])?, random(&[640])?);
    let norm = LayerNorm { weight, bias, eps: 1e-5 };
    measure("layer norm, 1024 x 640", 0, || norm.forward(&x))?;
    for rows in [256, 1024] {
        let x = random(&[1, rows, 10240])?;
        measure(&format!("GEGLU, {rows} x 2 x 5120"), 0, || geglu(&x))?;
    }
    Ok(())
}
