//! Text encoders, UNet and VAE, each on its own.

use candle_core::{DType, Device, Tensor};
use fourstep::pipeline::{Options, Params, conditioning::TextEncoders, noise::TorchCudaRng, unet::UNet, vae::Vae};

use crate::support::{Golden, assert_close, tiny};

/// Latent sizes: one divisible by four, one that the UNet's way up has to mend.
const SIZES: [(usize, usize); 2] = [(6, 8), (7, 9)];

fn noise(batch: usize, channels: usize, height: usize, width: usize) -> Tensor {
    let values = TorchCudaRng::new(1234).normal(batch * channels * height * width);
    let tensor = Tensor::from_vec(values, (batch, channels, height, width), &Device::Cpu).unwrap();
    tensor.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

#[test]
fn hidden_states_and_pooled_text_are_those_of_encode_prompt() {
    let golden = Golden::load();
    let encoders = TextEncoders::load(&tiny(), &Device::Cpu, DType::F32).unwrap();
    let params = Params {
        negative_prompt: Some("low quality".into()),
        guidance_scale: 7.5,
        ..Params::new("a photo! of the man and his cats, it's 🙂")
    };
    let (conditioning, notes) = encoders.encode(&params).unwrap();
    assert_close("prompt_embeds", &conditioning.prompt_embeds, golden.get("prompt_embeds"));
    assert_close("pooled", &conditioning.pooled_prompt_embeds, golden.get("pooled"));
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn the_unet_predicts_what_diffusers_does_at_three_timesteps_and_two_sizes() {
    let golden = Golden::load();
    let unet = UNet::open(&tiny(), &Device::Cpu, DType::F32, Options::default()).unwrap();
    for (width, height) in SIZES {
        let sample = noise(2, 4, height, width);
        let (w, h) = (8.0 * width as f32, 8.0 * height as f32);
        let sizes = [h, w, 0.0, 0.0, h, w];
        let conditioning = unet.condition(golden.get("prompt_embeds"), golden.get("pooled"), sizes).unwrap();
        for timestep in [999.0, 249.0, 0.0] {
            let found = unet.forward(&sample, timestep, &conditioning).unwrap();
            let name = format!("unet.{width}x{height}.t{timestep}");
            assert_close(&name, &found, &golden.channels_last(&name));
        }
    }
}

#[test]
fn the_vae_decodes_as_diffusers_does() {
    let golden = Golden::load();
    let vae = Vae::open(&tiny(), &Device::Cpu, DType::F32).unwrap();
    for (width, height) in SIZES {
        // The first of the two latents the UNet was given.
        let latents = noise(2, 4, height, width).narrow(0, 0, 1).unwrap();
        let name = format!("vae.{width}x{height}.decoded");
        assert_close(&name, &vae.decode(&latents).unwrap(), &golden.channels_last(&name));
    }
}

#[test]
fn the_vae_encodes_as_diffusers_does() {
    let golden = Golden::load();
    let vae = Vae::open(&tiny(), &Device::Cpu, DType::F32).unwrap();
    for (width, height) in SIZES {
        let pixels = noise(1, 3, 8 * height, 8 * width).clamp(-1f32, 1f32).unwrap();
        let distribution = vae.encode(&pixels).unwrap();
        let name = |part| format!("vae.{width}x{height}.{part}");
        assert_close(&name("mean"), &distribution.mean, &golden.channels_last(&name("mean")));
        assert_close(&name("logvar"), &distribution.logvar, &golden.channels_last(&name("logvar")));
    }
}
