//! Files: layouts that load, and files that are wrong.

use std::{collections::HashMap, fs};

use candle_core::{DType, Device, Tensor, safetensors};
use fourstep::pipeline::{Error, Params, Pipeline, Weights, WeightsError};

use crate::support::{Folder, tiny_pipeline};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn load(folder: &Folder) -> Result<Pipeline, Error> {
    Pipeline::load(&Weights::new(&folder.0), &Device::Cpu, DType::F32)
}

fn refusal(folder: &Folder) -> WeightsError {
    match load(folder) {
        Err(Error::Weights(error)) => error,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("a broken model was loaded"),
    }
}

fn tensors(folder: &Folder) -> HashMap<String, Tensor> {
    safetensors::load(folder.0.join(UNET), &Device::Cpu).unwrap()
}

fn save(tensors: &HashMap<String, Tensor>, folder: &Folder, name: &str) {
    safetensors::save(tensors, folder.0.join(name)).unwrap();
}

fn draw(pipeline: &Pipeline) -> Vec<u8> {
    let params = Params { width: 32, height: 32, num_inference_steps: 1, ..Params::new("a cat") };
    let generation = pipeline.generate(&params, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    generation.images[0].to_vec()
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::with_tiny();
    for name in ["vae/config.json", UNET, "text_encoder_2/model.safetensors", "tokenizer_2/merges.txt"] {
        let (path, aside) = (folder.0.join(name), folder.0.join("aside"));
        fs::rename(&path, &aside).unwrap();
        let message = refusal(&folder).to_string();
        assert!(message.contains(name) && message.contains("missing"), "{message}");
        fs::rename(&aside, &path).unwrap();
    }
    load(&folder).unwrap();
}

#[test]
fn a_token_that_an_encoder_lacks_is_refused_with_its_file() {
    for (name, encoder) in [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")] {
        let folder = Folder::with_tiny();
        let path = folder.0.join(name).join("vocab.json");
        let mut words: HashMap<String, u32> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let greatest = words.values().copied().max().unwrap();
        words.insert("one-too-many".to_owned(), greatest + 1);
        fs::write(&path, serde_json::to_vec(&words).unwrap()).unwrap();
        let message = refusal(&folder).to_string();
        let words = [format!("{name}/vocab.json"), encoder.to_owned(), (greatest + 1).to_string()];
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn a_missing_tensor_is_named_with_its_file() {
    let folder = Folder::with_tiny();
    let mut tensors = tensors(&folder);
    let name = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    tensors.remove(name).unwrap();
    save(&tensors, &folder, UNET);
    let message = refusal(&folder).to_string();
    assert!(message.contains(name) && message.contains(UNET), "{message}");
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let folder = Folder::with_tiny();
    let mut tensors = tensors(&folder);
    tensors.insert("conv_in.weight".into(), Tensor::zeros((16, 9, 3, 3), DType::F16, &Device::Cpu).unwrap());
    save(&tensors, &folder, UNET);
    let message = refusal(&folder).to_string();
    for part in ["conv_in.weight", UNET, "[16, 4, 3, 3]", "[16, 9, 3, 3]"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn a_truncated_file_and_one_that_is_none_are_refused() {
    let folder = Folder::with_tiny();
    let whole = fs::read(folder.0.join(UNET)).unwrap();
    for bytes in [&whole[..whole.len() - 1], &whole[..100], &[], b"<html>404</html>"] {
        fs::write(folder.0.join(UNET), bytes).unwrap();
        let refusal = refusal(&folder);
        assert!(matches!(&refusal, WeightsError::Unreadable { .. }), "{refusal}");
        assert!(refusal.to_string().contains(UNET), "{refusal}");
    }
}

#[test]
fn a_setting_the_pipeline_does_not_build_is_refused() {
    let folder = Folder::with_tiny();
    let path = folder.0.join("unet/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["resnet_time_scale_shift"] = "scale_shift".into();
    fs::write(&path, config.to_string()).unwrap();
    let message = refusal(&folder).to_string();
    assert!(message.contains("resnet_time_scale_shift") && message.contains("unet/config.json"), "{message}");
}

#[test]
fn shards_load_like_one_file() {
    let folder = Folder::with_tiny();
    let (mut shards, mut map) = ([HashMap::new(), HashMap::new()], serde_json::Map::new());
    for (number, (name, tensor)) in tensors(&folder).into_iter().enumerate() {
        let shard = number % 2;
        map.insert(name.clone(), format!("shard-{shard}.safetensors").into());
        shards[shard].insert(name, tensor);
    }
    fs::remove_file(folder.0.join(UNET)).unwrap();
    for (number, shard) in shards.iter().enumerate() {
        save(shard, &folder, &format!("unet/shard-{number}.safetensors"));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(folder.0.join(format!("{UNET}.index.json")), index.to_string()).unwrap();
    assert_eq!(draw(&load(&folder).unwrap()), draw(&tiny_pipeline()));
}

#[test]
fn f32_and_bf16_files_load() {
    let folder = Folder::with_tiny();
    let converted = |dtype| tensors(&folder).into_iter().map(|(name, t)| (name, t.to_dtype(dtype).unwrap())).collect();
    let (single, brain): (HashMap<_, _>, HashMap<_, _>) = (converted(DType::F32), converted(DType::BF16));
    save(&single, &folder, UNET);
    assert_eq!(draw(&load(&folder).unwrap()), draw(&tiny_pipeline()));
    save(&brain, &folder, UNET);
    assert_ne!(draw(&load(&folder).unwrap()), draw(&tiny_pipeline()), "bf16 rounds these weights");
}

#[test]
fn matrices_that_cannot_be_read_where_they_are_are_copied() {
    let folder = Folder::with_tiny();
    let load = || Pipeline::load(&Weights::new(&folder.0), &Device::Cpu, DType::F16).unwrap();
    let in_place = draw(&load());
    let path = folder.0.join(UNET);
    let bytes = fs::read(&path).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let length = u64::from_le_bytes(*length);
    assert!(length.is_multiple_of(8), "read in place so far");
    let (header, numbers) = rest.split_at(usize::try_from(length).unwrap());
    // Every number begins at an odd address.
    fs::write(&path, [&(length + 1).to_le_bytes()[..], header, b" ", numbers].concat()).unwrap();
    assert!(draw(&load()) == in_place);
}

#[test]
fn a_file_of_its_own_replaces_the_unet() {
    let folder = Folder::with_tiny();
    let mut other = tensors(&folder);
    other.insert("conv_out.bias".into(), Tensor::ones(4, DType::F16, &Device::Cpu).unwrap());
    save(&other, &folder, "lightning.safetensors");
    let weights = Weights::new(&folder.0).with_unet(folder.0.join("lightning.safetensors"));
    let replaced = Pipeline::load(&weights, &Device::Cpu, DType::F32).unwrap();
    assert_ne!(draw(&replaced), draw(&tiny_pipeline()));
    save(&other, &folder, UNET);
    assert_eq!(draw(&replaced), draw(&load(&folder).unwrap()));
}
