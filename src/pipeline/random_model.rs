//! A tiny SDXL with random weights, written to disk: the real topology, loader and arithmetic, and pictures of noise.
//!
//! It stands in where no trained model is at hand. The networks themselves say which tensors they need: they are loaded
//! from a store that makes up whatever is asked for and remembers it, and what it remembers is the file. The vocabulary is
//! single bytes without merges, so any text tokenizes.

use std::{cell::RefCell, collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

use super::{
    error::{Error, WeightsError},
    noise::TorchCudaRng,
    text_encoder::TextEncoder,
    unet::UNet,
    vae::Vae,
    weights::{Source, TensorStore},
};

/// Writes the model into a folder, in the diffusers layout. The same seed writes the same model.
pub fn write(directory: &Path, seed: u64) -> Result<(), Error> {
    let device = &Device::Cpu;
    write_text(&directory.join("model_index.json"), &model_index().to_string())?;
    write_text(&directory.join("scheduler/scheduler_config.json"), &scheduler_config().to_string())?;
    for (folder, padding) in [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")] {
        write_tokenizer(&directory.join(folder), padding)?;
    }
    for (number, component) in ["text_encoder", "text_encoder_2", "unet", "vae"].into_iter().enumerate() {
        let config = match component {
            "text_encoder" => text_encoder_config("CLIPTextModel", "quick_gelu", 48),
            "text_encoder_2" => text_encoder_config("CLIPTextModelWithProjection", "gelu", 80),
            "unet" => unet_config(),
            _ => vae_config(),
        };
        let path = directory.join(component).join("config.json");
        write_text(&path, &config.to_string())?;
        let unreadable = |error: serde_json::Error| WeightsError::Unreadable { path, reason: error.to_string() };
        let store = RandomTensors::new(seed.wrapping_add(number as u64), component != "text_encoder_2");
        let file = match component {
            "unet" => {
                UNet::load(&store, serde_json::from_value(config).map_err(unreadable)?, device, DType::F32)?;
                "diffusion_pytorch_model.safetensors"
            }
            "vae" => {
                Vae::load(&store, serde_json::from_value(config).map_err(unreadable)?, device, DType::F32)?;
                "diffusion_pytorch_model.safetensors"
            }
            _ => {
                let config = serde_json::from_value(config).map_err(unreadable)?;
                TextEncoder::load(&Source::new(&store, device, DType::F32), &config, DType::F32)?;
                "model.safetensors"
            }
        };
        store.save(&directory.join(component).join(file))?;
    }
    Ok(())
}

fn model_index() -> Value {
    json!({ "_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true })
}

fn scheduler_config() -> Value {
    json!({
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
    })
}

fn text_encoder_config(class: &str, hidden_act: &str, width: usize) -> Value {
    json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "hidden_act": hidden_act,
        "layer_norm_eps": 1e-5,
        "projection_dim": width,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    })
}

fn unet_config() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [32, 64, 64],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 1, 2],
        "attention_head_dim": [2, 4, 4],
        "cross_attention_dim": 48 + 80,
        "norm_num_groups": 16,
        "norm_eps": 1e-5,
        "use_linear_projection": true,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 80 + 6 * 16,
    })
}

fn vae_config() -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "down_block_types": vec!["DownEncoderBlock2D"; 4],
        "up_block_types": vec!["UpDecoderBlock2D"; 4],
        "block_out_channels": [16, 16, 32, 32],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "sample_size": 256,
        "scaling_factor": 0.13025,
        "force_upcast": false,
    })
}

/// 256 bytes, the same at the end of a word, and two special tokens.
const VOCABULARY: usize = 514;
/// CLIP's context.
const CONTEXT: usize = 77;

/// CLIP's vocabulary begins with the printable bytes in order, then the others under stand-in characters from 256 on.
fn byte_symbols() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|byte| !printable(byte)).count() as u32;
    (0..256).filter(printable).chain(256..256 + others).filter_map(char::from_u32).collect()
}

fn write_tokenizer(folder: &Path, padding: &str) -> Result<(), Error> {
    let symbols = byte_symbols();
    let inner = symbols.iter().map(char::to_string);
    let last = symbols.iter().map(|symbol| format!("{symbol}</w>"));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    let tokens = inner.chain(last).chain(special).zip(0..);
    let vocabulary: Map<String, Value> = tokens.map(|(token, id)| (token, Value::from(id))).collect();
    let config = json!({
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": padding,
        "model_max_length": CONTEXT,
        "tokenizer_class": "CLIPTokenizer",
    });
    write_text(&folder.join("vocab.json"), &Value::from(vocabulary).to_string())?;
    write_text(&folder.join("merges.txt"), "#version: 0.2\n")?;
    write_text(&folder.join("tokenizer_config.json"), &config.to_string())
}

fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| WeightsError::Unreadable { path: path.into(), reason: error.to_string() }.into())
}

/// Makes up every tensor it is asked for.
struct RandomTensors {
    made: RefCell<Made>,
    /// Whether to deny having a text projection.
    without_projection: bool,
}

struct Made {
    rng: TorchCudaRng,
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl RandomTensors {
    fn new(seed: u64, without_projection: bool) -> Self {
        Self { made: RefCell::new(Made { rng: TorchCudaRng::new(seed), tensors: BTreeMap::new() }), without_projection }
    }

    fn save(self, path: &Path) -> Result<(), Error> {
        let failed = |reason: String| Error::from(WeightsError::Unreadable { path: path.into(), reason });
        let tensors = self.made.into_inner().tensors;
        let views = tensors
            .iter()
            .map(|(name, (shape, bytes))| Ok((name, TensorView::new(Dtype::F16, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| failed(error.to_string()))?;
        safetensors::serialize_to_file(views, None, path).map_err(|error| failed(error.to_string()))
    }
}

impl TensorStore for RandomTensors {
    fn contains(&self, name: &str) -> bool {
        !(self.without_projection && name.starts_with("text_projection"))
    }

    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let made = &mut *self.made.borrow_mut();
        // Activations keep their size through every layer when weights shrink with the number of inputs.
        let inputs: usize = shape[1..].iter().product();
        let (mean, deviation) = match (shape.len(), name.ends_with("weight")) {
            (1, true) => (1.0, 0.1),
            (1, false) => (0.0, 0.1),
            _ => (0.0, 0.7 / (inputs as f32).sqrt()),
        };
        let values: Vec<f16> = made
            .rng
            .normal(shape.iter().product())
            .into_iter()
            .map(|value| f16::from_f32(mean + deviation * value))
            .collect();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        made.tensors.insert(name.into(), (shape.to_vec(), bytes));
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
    }
}
