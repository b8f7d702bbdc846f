//! The safety checker: how near a picture is to concepts that were chosen and never named. It was made by `CompVis`.
//!
//! diffusers: `pipelines/stable_diffusion/safety_checker.py`, `StableDiffusionSafetyChecker`. Every size comes from
//! `safety_checker/config.json`.

mod preparation;
mod vision;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;
use serde::Deserialize;

use super::{
    error::{Error, WeightsError},
    ops::Linear,
    weights::{Source, Weights},
};
use preparation::prepare;
pub use vision::VisionConfig;
use vision::VisionModel;

/// Concepts that flag a picture, in every published checker.
const CONCEPTS: usize = 17;
/// Concepts that make the others stricter.
const SPECIAL_CONCEPTS: usize = 3;
/// By so much.
const STRICTER: f32 = 0.01;

/// `safety_checker/config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct SafetyCheckerConfig {
    /// Channels of what pictures and concepts are compared in.
    #[serde(default = "default_projection_dim")]
    pub projection_dim: usize,
    /// The tower that looks at the picture.
    #[serde(default)]
    pub vision_config: VisionConfig,
}

fn default_projection_dim() -> usize {
    512
}

/// The checker.
pub struct SafetyChecker {
    vision_model: VisionModel,
    visual_projection: Linear,
    concepts: Concepts,
    special_care: Concepts,
}

/// What pictures are compared with.
struct Concepts {
    /// Of unit length.
    embeds: Vec<Vec<f32>>,
    /// How near is too near.
    thresholds: Vec<f32>,
}

impl SafetyChecker {
    /// Opens the checker of a model's files, if there is one.
    pub fn open(weights: &Weights, device: &Device, dtype: DType) -> Result<Option<Self>, Error> {
        if !weights.has("safety_checker") {
            return Ok(None);
        }
        let (config, path) = weights.config::<SafetyCheckerConfig>("safety_checker")?;
        config.check(&path)?;
        let store = weights.tensors("safety_checker")?;
        Self::load(&Source::new(&*store, device, dtype), &config).map(Some)
    }

    fn load(source: &Source<'_>, config: &SafetyCheckerConfig) -> Result<Self, Error> {
        let (vision, projection) = (&config.vision_config, config.projection_dim);
        Ok(Self {
            vision_model: VisionModel::load(&source.at("vision_model"), vision)?,
            visual_projection: Linear::load_no_bias(&source.at("visual_projection"), vision.hidden_size, projection)?,
            concepts: Concepts::load(source, "concept_embeds", (CONCEPTS, projection))?,
            special_care: Concepts::load(source, "special_care_embeds", (SPECIAL_CONCEPTS, projection))?,
        })
    }

    /// Whether a picture should not be shown.
    pub fn flags(&self, image: &RgbImage) -> Result<bool, Error> {
        let embeds = self.embed(image)?;
        if !embeds.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite { stage: "the safety checker" });
        }
        let embeds = normalized(embeds);
        let stricter = if self.special_care.any_near(&embeds, 0.0, STRICTER) { STRICTER } else { 0.0 };
        Ok(self.concepts.any_near(&embeds, stricter, 0.0))
    }

    /// The picture where concepts are: `projection_dim` numbers.
    pub fn embed(&self, image: &RgbImage) -> Result<Vec<f32>, Error> {
        let pixels = prepare(image, self.vision_model.image_size());
        let pooled = self.vision_model.forward(&pixels)?; // (1, channels)
        let embeds = self.visual_projection.forward(&pooled)?;
        Ok(embeds.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }

    /// What the tower is given of a picture: `(1, side, side, 3)`, for comparing with others' numbers.
    pub fn prepared(&self, image: &RgbImage) -> Result<Tensor, Error> {
        let side = self.vision_model.image_size();
        Ok(Tensor::from_vec(prepare(image, side), (1, side, side, 3), &Device::Cpu)?)
    }
}

impl Concepts {
    fn load(source: &Source<'_>, name: &str, (count, width): (usize, usize)) -> Result<Self, Error> {
        let embeds = source.numbers(name, &[count, width])?;
        Ok(Self {
            embeds: embeds.chunks(width).map(|embeds| normalized(embeds.to_vec())).collect(),
            thresholds: source.numbers(&format!("{name}_weights"), &[count])?,
        })
    }

    /// Whether a picture is nearer to any concept than its threshold, all of which are lowered by `stricter`, and by
    /// `more` besides after the first that is passed.
    fn any_near(&self, picture: &[f32], stricter: f32, more: f32) -> bool {
        let mut adjustment = stricter;
        let mut any = false;
        for (concept, threshold) in self.embeds.iter().zip(&self.thresholds) {
            let cosine: f32 = concept.iter().zip(picture).map(|(a, b)| a * b).sum();
            // Scores are rounded to three places before they are looked at.
            if ((cosine - threshold + adjustment) * 1000.0).round_ties_even() > 0.0 {
                any = true;
                adjustment = stricter + more;
            }
        }
        any
    }
}

/// `torch.nn.functional.normalize`.
fn normalized(mut values: Vec<f32>) -> Vec<f32> {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
    values.iter_mut().for_each(|value| *value /= length);
    values
}

impl SafetyCheckerConfig {
    fn check(&self, path: &Path) -> Result<(), Error> {
        let what = self.vision_config.fault().or_else(|| (self.projection_dim == 0).then_some("projection_dim is 0"));
        match what {
            Some(what) => Err(WeightsError::Unsupported { path: path.into(), what: what.into() }.into()),
            None => Ok(()),
        }
    }
}
