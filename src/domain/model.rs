//! The catalog: which models callers can name, what they cost, and what input they take.
//!
//! `config/models.toml` is the data; this file gives it a type and refuses a catalog that contradicts itself.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::PricePerSecond;

/// All models, in the order of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    models: Vec<Model>,
    #[serde(skip)]
    stand_in: Option<String>,
}

/// A model callers can name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name in requests and rows: `sdxl-lightning-4step`.
    pub slug: String,
    /// Owners under which the vendors list it, first the one shown: `bytedance` for `bytedance/sdxl-lightning-4step`.
    pub owners: Vec<String>,
    /// A heading for people.
    pub title: String,
    /// One sentence for people.
    pub description: String,
    /// Our version id, 64 hexadecimal digits: the SHA-256 of the slug, the revision and the pinned weight files that
    /// every picture depends on.
    #[serde(skip)]
    pub version: String,
    /// What tells releases of a model without `files` apart.
    #[serde(default)]
    pub revision: Option<String>,
    /// Version ids of the vendors that mean this model.
    #[serde(default)]
    pub version_aliases: Vec<String>,
    /// Price of a second on the device, in nano-dollars.
    #[serde(rename = "price_nano_usd_per_second")]
    pub price: PricePerSecond,
    /// How long a run usually takes, until this server has measured its own.
    pub average_run_seconds: f64,
    /// How long the device may work on one prediction; what it may cost is held before it runs.
    #[serde(default = "Model::default_time_limit_seconds")]
    pub time_limit_seconds: u32,
    /// How long it may where nothing is held, because its account spends what it likes: a slow device may take its time,
    /// and one that hangs may not take all of it.
    #[serde(default = "Model::default_longest_run_seconds")]
    pub longest_run_seconds: u32,
    /// What input it takes.
    pub limits: InputLimits,
    /// The files of its weights on the hub; none for one that is part of the program.
    #[serde(default)]
    pub files: Vec<WeightFile>,
}

/// A file of a model's weights.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightFile {
    /// Hub repository, `owner/name`.
    pub repository: String,
    /// Pinned revision.
    pub revision: String,
    /// Path in the repository.
    pub path: String,
    /// Path in the model's folder, where it differs: the diffusers layout.
    pub destination: Option<String>,
    /// Whether the model draws without it: the safety checker's files.
    #[serde(default)]
    pub optional: bool,
}

impl WeightFile {
    /// Where the file belongs in the model's folder.
    pub fn destination(&self) -> &str {
        self.destination.as_deref().unwrap_or(&self.path)
    }
}

/// The ranges of a model's input fields.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputLimits {
    /// Least width and height, pixels.
    pub min_size: u32,
    /// Greatest width and height, pixels.
    pub max_size: u32,
    /// Width and height when not given, pixels.
    pub default_size: u32,
    /// Most images of one prediction.
    pub max_outputs: u32,
    /// Steps when not given.
    pub default_steps: u32,
    /// Most steps.
    pub max_steps: u32,
    /// Greatest guidance scale.
    pub max_guidance_scale: f64,
    /// Longest prompt, in characters. The model reads 77 tokens; the rest is cut and the logs say so.
    pub prompt_characters: usize,
}

impl InputLimits {
    /// The hosted model's limits.
    pub const HOSTED: Self = Self {
        min_size: 256,
        max_size: 1280,
        default_size: 1024,
        max_outputs: 4,
        default_steps: 4,
        max_steps: 10,
        max_guidance_scale: 50.0,
        prompt_characters: 10_000,
    };
}

impl Model {
    /// The name with its first owner: `bytedance/sdxl-lightning-4step`.
    pub fn full_name(&self) -> String {
        match self.owners.first() {
            Some(owner) => format!("{owner}/{}", self.slug),
            None => self.slug.clone(),
        }
    }

    /// The same model, without the files that it draws without.
    #[must_use]
    pub fn without_optional_files(mut self) -> Self {
        self.files.retain(|file| !file.optional);
        self
    }

    fn version_id(&self) -> String {
        let mut manifest = Sha256::new();
        manifest.update(&self.slug);
        if let Some(revision) = &self.revision {
            manifest.update(format!("\n{revision}"));
        }
        for file in self.files.iter().filter(|file| !file.optional) {
            manifest.update(format!("\n{} {} {}", file.repository, file.revision, file.path));
        }
        hex::encode(manifest.finalize())
    }

    const fn default_time_limit_seconds() -> u32 {
        60
    }

    const fn default_longest_run_seconds() -> u32 {
        3600
    }

    /// How long the device may work on one prediction that nothing is held for.
    pub fn longest_run(&self) -> Duration {
        Duration::from_secs(self.longest_run_seconds.into())
    }

    /// How long the device may work on one prediction that its price is held for.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs(self.time_limit_seconds.into())
    }

    /// How long a run usually takes, until this server has measured its own.
    pub fn average_run(&self) -> Duration {
        Duration::from_secs_f64(self.average_run_seconds)
    }

    /// Whether `version` means this model as it is: our id, a vendor's id for it.
    pub fn has_version(&self, version: &str) -> bool {
        self.version == version || self.version_aliases.iter().any(|alias| alias == version)
    }
}

/// The catalog contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Not TOML, or not of the catalog's shape.
    #[error("the model catalog cannot be read")]
    Malformed(#[from] toml::de::Error),
    /// A rule across fields is broken.
    #[error("model {slug:?}: {reason}")]
    Model {
        /// Which model.
        slug: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There must be something to run.
    #[error("the model catalog names no model")]
    Empty,
}

impl Catalog {
    /// Reads `models.toml`.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let mut catalog: Self = toml::from_str(text)?;
        for model in &mut catalog.models {
            model.version = model.version_id();
        }
        if catalog.models.is_empty() {
            return Err(CatalogError::Empty);
        }
        let mut slugs = HashSet::new();
        for model in &catalog.models {
            let refuse = |reason| Err(CatalogError::Model { slug: model.slug.clone(), reason });
            let limits = &model.limits;
            if !slugs.insert(&model.slug) {
                return refuse("is named twice");
            }
            if model.slug.is_empty() || model.slug.contains(['/', ':', ' ']) {
                return refuse("a slug is not empty and has no slash, colon or space");
            }
            if model.price.per_second().get() < 0 {
                return refuse("the price is negative");
            }
            if !(model.average_run_seconds > 0.0 && model.average_run_seconds.is_finite()) {
                return refuse("average_run_seconds must be positive");
            }
            if model.time_limit_seconds == 0 {
                return refuse("time_limit_seconds must be at least 1");
            }
            if model.longest_run_seconds < model.time_limit_seconds {
                return refuse("longest_run_seconds must be at least time_limit_seconds");
            }
            if !(limits.min_size..=limits.max_size).contains(&limits.default_size) || limits.min_size < 8 {
                return refuse("sizes must hold 8 <= min_size <= default_size <= max_size");
            }
            if [limits.min_size, limits.max_size, limits.default_size].iter().any(|size| size % 8 != 0) {
                return refuse("sizes must be multiples of 8");
            }
            if !(1..=limits.max_steps).contains(&limits.default_steps) || limits.max_outputs == 0 {
                return refuse("steps must hold 1 <= default_steps <= max_steps, and max_outputs at least 1");
            }
        }
        Ok(catalog)
    }

    /// Lets one model answer for all others, because only its weights are here. Every prediction it answers says so.
    pub fn standing_in(mut self, slug: &str) -> Result<Self, CatalogError> {
        if self.by_slug(slug).is_none() {
            return Err(CatalogError::Model {
                slug: slug.to_owned(),
                reason: "cannot stand in: it is not in the catalog",
            });
        }
        self.stand_in = Some(slug.to_owned());
        Ok(self)
    }

    /// Without this model, unless nothing were left.
    pub fn without(mut self, slug: &str) -> Self {
        if self.models.iter().any(|model| model.slug != slug) {
            self.models.retain(|model| model.slug != slug);
        }
        self
    }

    /// The model that will run what was asked of `asked`: itself, or the one that stands in for it.
    pub fn answering<'a>(&'a self, asked: &'a Model) -> &'a Model {
        self.stand_in.as_deref().and_then(|slug| self.by_slug(slug)).unwrap_or(asked)
    }

    /// All models, the default first.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model used when a caller names none.
    pub fn default_model(&self) -> &Model {
        // `parse` refuses an empty catalog.
        &self.models[0]
    }

    /// The model of exactly this slug.
    pub fn by_slug(&self, slug: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.slug == slug)
    }

    /// The model a caller means by `slug`, `owner/slug`, `owner/slug:version` or a bare version id.
    pub fn find(&self, name: &str) -> Option<&Model> {
        let (path, version) = name.split_once(':').map_or((name, None), |(path, version)| (path, Some(version)));
        let (owner, slug) = path.split_once('/').map_or((None, path), |(owner, slug)| (Some(owner), slug));
        self.models.iter().find(|model| {
            let named = model.slug == slug
                && owner.is_none_or(|owner| model.owners.iter().any(|known| known == owner))
                && version.is_none_or(|version| model.has_version(version));
            named || (owner.is_none() && version.is_none() && model.has_version(path))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../config/models.toml");

    #[test]
    fn the_shipped_catalog_is_valid_and_priced_as_hosted() {
        let catalog = Catalog::parse(SHIPPED).expect("valid");
        let model = catalog.by_slug("sdxl-lightning-4step").expect("present");
        assert_eq!(model.price, PricePerSecond::new(1_540_000));
        assert_eq!(model.limits, InputLimits::HOSTED);
        assert_eq!(model.full_name(), "bytedance/sdxl-lightning-4step");
    }

    #[test]
    fn the_safety_checker_is_the_only_thing_that_the_hosted_model_draws_without() {
        let catalog = Catalog::parse(SHIPPED).expect("valid");
        let model = catalog.default_model();
        let optional = model.files.iter().filter(|file| file.optional).map(WeightFile::destination);
        let expected = ["config.json", "model.safetensors"].map(|name| format!("safety_checker/{name}"));
        assert_eq!(optional.collect::<Vec<_>>(), expected);
        assert_eq!(model.clone().without_optional_files().version_id(), model.version);
    }

    #[test]
    fn a_model_is_found_by_every_name_the_vendors_use() {
        let catalog = Catalog::parse(SHIPPED).expect("valid");
        let model = catalog.by_slug("sdxl-lightning-4step").expect("present");
        let names = [
            "sdxl-lightning-4step".to_owned(),
            "bytedance/sdxl-lightning-4step".to_owned(),
            format!("bytedance/sdxl-lightning-4step:{}", model.version),
            model.version.clone(),
            model.version_aliases[0].clone(),
        ];
        for name in names {
            assert_eq!(catalog.find(&name).map(|found| &found.slug), Some(&model.slug), "{name}");
        }
        for name in ["", "sdxl", "acme/sdxl-lightning-4step", "bytedance/sdxl-lightning-4step:0", "a/b/c", ":"] {
            assert!(catalog.find(name).is_none(), "{name} was found");
        }
    }

    #[test]
    fn a_stand_in_answers_for_every_model() {
        let catalog = Catalog::parse(SHIPPED).expect("valid");
        let asked = catalog.default_model().clone();
        assert_eq!(catalog.answering(&asked).slug, asked.slug);
        let catalog = catalog.standing_in("demo-4step").expect("known");
        assert_eq!(catalog.answering(&asked).slug, "demo-4step");
        assert!(catalog.standing_in("nobody").is_err());
    }

    #[test]
    fn a_catalog_that_contradicts_itself_is_refused() {
        let broken = [
            SHIPPED.replace("min_size = 256", "min_size = 2048"),
            SHIPPED.replace("slug = \"demo-4step\"", "slug = \"sdxl-lightning-4step\""),
            SHIPPED.replace("price_nano_usd_per_second = 1_540_000", "price_nano_usd_per_second = -1"),
            SHIPPED.replace("average_run_seconds = 2.0", "average_run_seconds = nan"),
            format!("{SHIPPED}\nunknown = 1"),
            "models = []".to_owned(),
        ];
        for text in broken {
            assert!(Catalog::parse(&text).is_err());
        }
    }
}
