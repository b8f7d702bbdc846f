//! LoRA: small changes to a model's weights, merged into them as they are loaded, so that a run costs nothing more.
//!
//! A layer's change is `scale · alpha / rank · up · down`. Files name layers in several ways, all of which are read:
//! peft's and diffusers' (`unet.….to_q.lora_A.weight`), kohya's with diffusers' block names
//! (`lora_unet_down_blocks_….lora_down. weight`), and kohya's with the original block names
//! (`lora_unet_input_blocks_…`). They are compared with underscores for dots, the only form all of them have.
//!
//! diffusers: `loaders/lora_conversion_utils.py`, `_convert_non_diffusers_lora_to_diffusers`,
//! `_maybe_map_sgm_blocks_to_diffusers`.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use candle_core::{DType, Tensor};

use super::{
    error::{Error, WeightsError},
    weights::{MappedMatrix, SafetensorsFiles, TensorStore},
};

/// What a file calls the two halves of a change, longest first where one ends with another.
const DOWN: [&str; 5] =
    [".lora_linear_layer.down.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight", ".lora_A.weight"];
const UP: [&str; 5] =
    [".lora_linear_layer.up.weight", ".lora_up.weight", ".lora.up.weight", "_lora.up.weight", ".lora_B.weight"];
const ALPHA: &str = ".alpha";

/// The components that have LoRA layers, and how their layers' names begin.
const COMPONENTS: [(&str, [&str; 3]); 3] = [
    ("text_encoder_2", ["text_encoder_2.", "lora_te2_", "text_encoder_2_"]),
    ("text_encoder", ["text_encoder.", "lora_te1_", "lora_te_"]),
    ("unet", ["unet.", "lora_unet_", "unet_"]),
];

/// Residual blocks in each block of the original SDXL UNet, whose names count through.
const LAYERS_PER_BLOCK: usize = 2;

/// One file and how much of it is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraFile {
    /// A safetensors file.
    pub path: PathBuf,
    /// 1 is what its author meant.
    pub scale: f64,
}

/// `FILE` or `FILE:SCALE`. A colon that no number follows is part of the file's name.
impl FromStr for LoraFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scaled = text.rsplit_once(':').and_then(|(path, scale)| Some((path, scale.parse::<f64>().ok()?)));
        let (path, scale) = scaled.unwrap_or((text, 1.0));
        if path.is_empty() || !scale.is_finite() {
            return Err(format!("{text:?} is not FILE or FILE:SCALE, as style.safetensors:0.8"));
        }
        Ok(Self { path: path.into(), scale })
    }
}

/// The parts of one layer's change, by their names in the file.
#[derive(Clone, Debug, Default)]
struct Parts {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

/// A component's tensors with the changes of some files merged in.
pub(super) struct Merged {
    base: SafetensorsFiles,
    loras: Vec<Lora>,
}

/// What one file changes in one component.
struct Lora {
    files: SafetensorsFiles,
    path: PathBuf,
    scale: f64,
    /// By the name of the tensor that is changed.
    layers: BTreeMap<String, Parts>,
}

impl Merged {
    /// Finds the layers of a component that the files change. A layer that the component does not have is an error: a
    /// change that was silently left out would look like a weak one.
    pub(super) fn new(base: SafetensorsFiles, component: &str, loras: &[LoraFile]) -> Result<Self, Error> {
        let tensors: BTreeMap<String, &str> =
            base.names().filter_map(|name| Some((name.strip_suffix(".weight")?.replace('.', "_"), name))).collect();
        let loras = loras.iter().map(|lora| Lora::open(lora, component, &tensors)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { base, loras })
    }

    fn changes(&self, name: &str) -> bool {
        self.loras.iter().any(|lora| lora.layers.contains_key(name))
    }
}

impl TensorStore for Merged {
    fn contains(&self, name: &str) -> bool {
        self.base.contains(name)
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        // What a change is added to needs all the bits there are.
        if self.changes(name) { Some(DType::F32) } else { self.base.dtype(name) }
    }

    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let mut changes = self.loras.iter().filter(|lora| lora.layers.contains_key(name)).peekable();
        if changes.peek().is_none() {
            return self.base.read(name, shape, dtype);
        }
        let mut tensor = self.base.read(name, shape, DType::F32)?;
        for lora in changes {
            tensor = (tensor + lora.change(&lora.layers[name], shape)?)?;
        }
        Ok(tensor.to_dtype(dtype)?)
    }

    fn map(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Option<MappedMatrix>, Error> {
        if self.changes(name) { Ok(None) } else { self.base.map(name, shape, dtype) }
    }
}

impl Lora {
    fn open(lora: &LoraFile, component: &str, tensors: &BTreeMap<String, &str>) -> Result<Self, Error> {
        let files = SafetensorsFiles::open(vec![lora.path.clone()], lora.path.clone())?;
        let unsupported = |what: String| WeightsError::Unsupported { path: lora.path.clone(), what };
        let mut layers: BTreeMap<String, Parts> = BTreeMap::new();
        for name in files.names() {
            let (layer, part) = split(name)
                .ok_or_else(|| unsupported(format!("tensor {name} is not of a kind of LoRA that is read")))?;
            let (its_component, layer) = component_of(layer);
            if its_component != component {
                continue;
            }
            let tensor = find(&layer, tensors).ok_or_else(|| {
                unsupported(format!("tensor {name} changes a layer that the {component} does not have"))
            })?;
            let parts = layers.entry(tensor.to_owned()).or_default();
            *match part {
                Part::Down => &mut parts.down,
                Part::Up => &mut parts.up,
                Part::Alpha => &mut parts.alpha,
            } = Some(name.to_owned());
        }
        Ok(Self { files, path: lora.path.clone(), scale: lora.scale, layers })
    }

    /// What is added to a weight of this shape, in f32.
    fn change(&self, parts: &Parts, shape: &[usize]) -> Result<Tensor, Error> {
        let (Some(down), Some(up)) = (&parts.down, &parts.up) else {
            let there = parts.down.as_ref().or(parts.up.as_ref()).or(parts.alpha.as_ref());
            let what = format!("one of the halves is missing beside tensor {}", there.map_or("", String::as_str));
            return Err(WeightsError::Unsupported { path: self.path.clone(), what }.into());
        };
        let (outputs, inputs) = (shape[0], shape[1..].iter().product::<usize>());
        let rank = self.files.shape(down).and_then(|shape| shape.first().copied()).unwrap_or(0);
        let (down, up) = (self.matrix(down, [rank, inputs])?, self.matrix(up, [outputs, rank])?);
        // Without an alpha it is the rank.
        let alpha = match &parts.alpha {
            Some(name) => f64::from(self.matrix(name, [1, 1])?.flatten_all()?.to_vec1::<f32>()?[0]),
            None => rank as f64,
        };
        Ok((up.matmul(&down)?.reshape(shape)? * (self.scale * alpha / rank as f64))?)
    }

    /// A tensor in f32 as a matrix. A convolution's kernel has its columns spread over several dimensions.
    fn matrix(&self, name: &str, expected: [usize; 2]) -> Result<Tensor, Error> {
        let found = self.files.shape(name).unwrap_or_default().to_vec();
        let [rows, columns] = expected;
        // A single number has no dimensions.
        let fits = found.iter().product::<usize>() == rows * columns && *found.first().unwrap_or(&1) == rows;
        if !fits || rows * columns == 0 {
            let (tensor, path) = (name.to_owned(), self.path.clone());
            return Err(WeightsError::Shape { tensor, path, expected: expected.to_vec(), found }.into());
        }
        Ok(self.files.read(name, &found, DType::F32)?.reshape((rows, columns))?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Down,
    Up,
    Alpha,
}

/// Splits a tensor's name into its layer's and its part.
fn split(name: &str) -> Option<(&str, Part)> {
    let strip = |suffixes: &[&str]| suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
    let down = strip(&DOWN).map(|layer| (layer, Part::Down));
    down.or_else(|| strip(&UP).map(|layer| (layer, Part::Up)))
        .or_else(|| Some((name.strip_suffix(ALPHA)?, Part::Alpha)))
}

/// The component a layer belongs to, and its name there with underscores. A name without a component is the UNet's.
fn component_of(layer: &str) -> (&'static str, String) {
    let found = COMPONENTS.iter().find_map(|(component, prefixes)| {
        prefixes.iter().find_map(|prefix| Some((*component, layer.strip_prefix(prefix)?)))
    });
    let (component, layer) = found.unwrap_or(("unet", layer));
    // Older diffusers kept the matrices in an attention's processor.
    (component, layer.replace(".processor.", ".").replace('.', "_"))
}

/// The tensor that a layer's change is for.
fn find<'a>(layer: &str, tensors: &BTreeMap<String, &'a str>) -> Option<&'a str> {
    let named = |name: &str| tensors.get(name).copied();
    named(layer)
        // `to_out` is a list whose first entry is the matrix.
        .or_else(|| named(&format!("{layer}_0")))
        // transformers 5 leaves the first part of the names away when it saves an encoder without a projection.
        .or_else(|| named(layer.strip_prefix("text_model_")?))
        .or_else(|| named(&from_original(layer)?))
}

/// A layer's name by diffusers, from its name in the original repository: `input_blocks_4_1_proj_in`.
fn from_original(layer: &str) -> Option<String> {
    for (original, ours) in [
        ("input_blocks_0_0", "conv_in"),
        ("out_2", "conv_out"),
        ("time_embed_0", "time_embedding_linear_1"),
        ("time_embed_2", "time_embedding_linear_2"),
        ("label_emb_0_0", "add_embedding_linear_1"),
        ("label_emb_0_2", "add_embedding_linear_2"),
    ] {
        if layer == original {
            return Some(ours.to_owned());
        }
    }
    let number = |text: &str| text.parse::<usize>().ok();
    if let Some(rest) = layer.strip_prefix("middle_block_") {
        let (index, rest) = rest.split_once('_')?;
        return Some(match number(index)? {
            1 => format!("mid_block_attentions_0_{rest}"),
            index => format!("mid_block_resnets_{}_{}", index / 2, inside_resnet(rest)),
        });
    }
    let (side, rest) = match (layer.strip_prefix("input_blocks_"), layer.strip_prefix("output_blocks_")) {
        (Some(rest), _) => ("down", rest),
        (_, Some(rest)) => ("up", rest),
        _ => return None,
    };
    let mut parts = rest.splitn(3, '_');
    let (index, kind, rest) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
    // The first of the way down is `conv_in`.
    let index = if side == "down" { index.checked_sub(1)? } else { index };
    let (block, layer) = (index / (LAYERS_PER_BLOCK + 1), index % (LAYERS_PER_BLOCK + 1));
    Some(match (kind, rest) {
        (0, "op") => format!("down_blocks_{block}_downsamplers_0_conv"),
        (_, "conv") => format!("up_blocks_{block}_upsamplers_0_conv"),
        (0, rest) => format!("{side}_blocks_{block}_resnets_{layer}_{}", inside_resnet(rest)),
        (_, rest) => format!("{side}_blocks_{block}_attentions_{layer}_{rest}"),
    })
}

/// The layers of a residual block, which the original repository numbers.
fn inside_resnet(layer: &str) -> &str {
    match layer {
        "in_layers_0" => "norm1",
        "in_layers_2" => "conv1",
        "emb_layers_1" => "time_emb_proj",
        "out_layers_0" => "norm2",
        "out_layers_3" => "conv2",
        "skip_connection" => "conv_shortcut",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_layer_leads_to_its_tensor() {
        let weights = [
            "conv_in.weight",
            "down_blocks.0.downsamplers.0.conv.weight",
            "down_blocks.0.resnets.1.time_emb_proj.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.weight",
            "mid_block.attentions.0.proj_in.weight",
            "mid_block.resnets.1.conv1.weight",
            "up_blocks.0.upsamplers.0.conv.weight",
            "up_blocks.1.attentions.2.proj_out.weight",
        ];
        let tensors: BTreeMap<String, &str> = weights
            .iter()
            .map(|name| (name.strip_suffix(".weight").expect("a weight").replace('.', "_"), *name))
            .collect();
        let attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1";
        let flat = attention.replace('.', "_");
        let names = [
            (format!("unet.{attention}.to_q.lora_A.weight"), weights[3]),
            (format!("unet.{attention}.processor.to_q_lora.up.weight"), weights[3]),
            (format!("{attention}.to_q.lora.down.weight"), weights[3]),
            (format!("lora_unet_{flat}_to_q.alpha"), weights[3]),
            (format!("unet.{attention}.processor.to_out_lora.down.weight"), weights[4]),
            (format!("unet.{attention}.to_out.0.lora_B.weight"), weights[4]),
            ("lora_unet_input_blocks_0_0.lora_up.weight".into(), weights[0]),
            ("lora_unet_input_blocks_3_0_op.lora_up.weight".into(), weights[1]),
            ("lora_unet_input_blocks_2_0_emb_layers_1.lora_up.weight".into(), weights[2]),
            ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight".into(), weights[3]),
            ("lora_unet_middle_block_1_proj_in.lora_down.weight".into(), weights[5]),
            ("lora_unet_middle_block_2_in_layers_2.lora_down.weight".into(), weights[6]),
            ("lora_unet_output_blocks_2_2_conv.lora_down.weight".into(), weights[7]),
            ("lora_unet_output_blocks_5_1_proj_out.lora_down.weight".into(), weights[8]),
        ];
        for (name, expected) in names {
            let (layer, _) = split(&name).expect("a LoRA's tensor");
            let (component, layer) = component_of(layer);
            assert_eq!((component, find(&layer, &tensors)), ("unet", Some(expected)), "{name}");
        }
        for name in ["lora_unet_input_blocks_0_1_x.alpha", "lora_unet_output_blocks_x_1_proj_out.alpha", "a.alpha"] {
            let (_, layer) = component_of(split(name).expect("a LoRA's tensor").0);
            assert_eq!(find(&layer, &tensors), None, "{name}");
        }
        assert_eq!(split("unet.conv_in.dora_scale"), None);
    }

    #[test]
    fn a_file_has_a_scale_of_one_unless_it_has_another() {
        let lora = |path: &str, scale| Ok(LoraFile { path: path.into(), scale });
        assert_eq!("a.safetensors".parse(), lora("a.safetensors", 1.0));
        assert_eq!("a.safetensors:0.8".parse(), lora("a.safetensors", 0.8));
        assert_eq!("a:b.safetensors:-1".parse(), lora("a:b.safetensors", -1.0));
        assert_eq!("a:b.safetensors".parse(), lora("a:b.safetensors", 1.0));
        for text in ["", ":1", "a:inf", "a:nan"] {
            assert!(text.parse::<LoraFile>().is_err(), "{text}");
        }
    }

    #[test]
    fn text_encoders_are_told_apart() {
        let layer = "text_model_encoder_layers_0_self_attn_q_proj";
        for (name, component) in [
            (format!("lora_te1_{layer}"), "text_encoder"),
            (format!("lora_te2_{layer}"), "text_encoder_2"),
            ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj".to_owned(), "text_encoder"),
            ("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj".to_owned(), "text_encoder_2"),
        ] {
            assert_eq!(component_of(&name), (component, layer.to_owned()));
        }
    }
}
