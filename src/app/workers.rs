//! What the workers of this process run: which models, with which predictor, from which weights.

use std::{borrow::Cow, path::PathBuf, time::Duration};

use anyhow::{Context, anyhow, bail};
use candle_core::{DType, Device};

use crate::{
    config::{Config, DeviceChoice, DtypeChoice, PredictorKind, Quantization, WorkerCount},
    demo,
    domain::Catalog,
    hub,
    pipeline::{Options, device},
    worker::{
        Load, Settings,
        predictor::{self, Mock, Sdxl, SdxlOptions},
    },
};

const SHIPPED_CATALOG: &str = include_str!("../../config/models.toml");
/// How often the progress of a running prediction is written to its row.
const RECORD_LOGS: Duration = Duration::from_millis(500);
/// No step takes longer than this beyond the time limit, not of a large picture on a slow CPU.
const HANG: Duration = Duration::from_secs(600);

/// Everything needed to start the workers, and the catalog as these workers change it.
pub(super) struct Plan {
    pub(super) catalog: Catalog,
    pub(super) settings: Settings,
    pub(super) loads: Vec<Load>,
    /// For the start's summary.
    pub(super) in_words: String,
}

/// What draws.
enum Source {
    /// No model at all.
    Mock,
    /// The weights in this folder.
    Weights(PathBuf),
    /// The demo model, unpacked under this folder.
    Demo(PathBuf),
}

/// The models callers can name: the configured catalog, or the shipped one.
pub fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    let text = catalog_text(config)?;
    let file = || config.models.catalog.as_ref().map_or("the catalog".to_owned(), |path| path.display().to_string());
    Catalog::parse(&text).with_context(file)
}

/// The same as it is written, in TOML.
pub fn catalog_text(config: &Config) -> anyhow::Result<Cow<'static, str>> {
    let Some(path) = &config.models.catalog else { return Ok(SHIPPED_CATALOG.into()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(text.into())
}

pub(super) fn plan(config: &Config, hub: &hub::Environment) -> anyhow::Result<Plan> {
    let mut catalog = catalog(config)?;
    let workers = match config.worker.count {
        WorkerCount::Auto => 1,
        WorkerCount::Exactly(count) => count,
    };
    let source = source(config, &catalog, hub);
    let models = if workers == 0 { Vec::new() } else { models(config, &catalog, &source)? };
    let in_words = match &source {
        _ if workers == 0 => {
            // Workers elsewhere are there for the real model. Whoever has others says so, or has a catalog of models that are run.
            if config.models.catalog.is_none() && !config.worker.models.iter().any(|slug| slug == demo::SLUG) {
                catalog = catalog.without(demo::SLUG);
            }
            "none in this process".to_owned()
        }
        Source::Mock => "mock: draws gradients, no model".to_owned(),
        Source::Weights(folder) => {
            // Nobody would ever run it.
            if !models.iter().any(|slug| slug == demo::SLUG) {
                catalog = catalog.without(demo::SLUG);
            }
            format!("{} from {}", models.join(", "), folder.display())
        }
        Source::Demo(_) => {
            let wanted = &catalog.default_model().slug;
            tracing::warn!("The weights of {wanted} are not here: {} draws simple scenes in its place", demo::SLUG);
            catalog = catalog.standing_in(demo::SLUG)?;
            format!("{}, draws simple scenes (`fourstep pull` or --weights DIR for the real model)", demo::SLUG)
        }
    };
    let loads = (0..workers).map(|_| load(config, &source)).collect::<anyhow::Result<_>>()?;
    let settings = Settings {
        models,
        device_name: device_in_words(config.worker.device, &source),
        host: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        max_batch: config.worker.max_batch,
        lease: config.queue.lease,
        renew: config.queue.renew,
        poll: config.queue.poll,
        record_logs: RECORD_LOGS,
        hang: HANG,
        sweep: config.queue.sweep,
        max_losses: config.queue.max_losses,
        retention: Some(config.queue.retention),
    };
    Ok(Plan { catalog, settings, loads, in_words })
}

/// The weights given, else those that were pulled, else none.
fn source(config: &Config, catalog: &Catalog, hub: &hub::Environment) -> Source {
    let wanted = config.worker.models.first().and_then(|slug| catalog.by_slug(slug));
    let model = wanted.unwrap_or_else(|| catalog.default_model());
    match (config.worker.predictor, &config.worker.weights) {
        (PredictorKind::Mock, _) => Source::Mock,
        (PredictorKind::Sdxl, Some(folder)) => Source::Weights(folder.clone()),
        (PredictorKind::Sdxl, None) => match hub::find_model(model, hub) {
            Some(folder) => Source::Weights(folder),
            None => Source::Demo(config.data.dir.join("models")),
        },
    }
}

fn models(config: &Config, catalog: &Catalog, source: &Source) -> anyhow::Result<Vec<String>> {
    let named = &config.worker.models;
    if let Some(unknown) = named.iter().find(|slug| catalog.by_slug(slug).is_none()) {
        bail!("worker.models names {unknown:?}, which the catalog does not have");
    }
    Ok(match source {
        Source::Demo(_) if config.worker.require_weights => {
            bail!("the weights of {} are not here: `fourstep pull`, or --weights DIR", catalog.default_model().slug)
        }
        // A stand-in must not be sold under the name of a model that was asked for.
        Source::Demo(_) if named.iter().any(|slug| slug != demo::SLUG) => {
            bail!(
                "worker.models names {}, whose weights are not here: `fourstep pull`, or --weights DIR",
                named.join(", ")
            )
        }
        Source::Demo(_) => vec![demo::SLUG.to_owned()],
        _ if !named.is_empty() => named.clone(),
        Source::Mock => catalog.models().iter().map(|model| model.slug.clone()).collect(),
        Source::Weights(_) => vec![catalog.default_model().slug.clone()],
    })
}

fn load(config: &Config, source: &Source) -> anyhow::Result<Load> {
    let (weights, is_demo) = match source {
        Source::Mock => {
            let step = config.worker.mock_step;
            return Ok(Box::new(move || Ok(Box::new(Mock::new(step)))));
        }
        Source::Weights(folder) => (folder.clone(), false),
        Source::Demo(parent) => (parent.clone(), true),
    };
    let device = open_device(config.worker.device)?;
    let loras = config.worker.loras.iter().map(|lora| lora.parse());
    let mut options = SdxlOptions {
        weights,
        unet: config.worker.unet.clone(),
        loras: loras.collect::<Result<_, String>>().map_err(|reason| anyhow!("worker.loras: {reason}"))?,
        dtype: dtype(config.worker.dtype, &device),
        options: Options {
            low_memory: config.worker.low_memory,
            vae_tile: Some(config.worker.vae_tile).filter(|tile| *tile > 0),
            int8: config.worker.quantize == Quantization::Int8,
            eager: !config.worker.cuda_graphs,
        },
        device,
    };
    Ok(Box::new(move || {
        if is_demo {
            let parent = &options.weights;
            options.weights = demo::unpack(parent)
                .with_context(|| format!("could not write the demo model to {}", parent.display()))?;
        }
        Ok(Box::new(Sdxl::load(&options)?))
    }))
}

/// The device of this choice, if this build can use it.
pub fn open_device(choice: DeviceChoice) -> anyhow::Result<Device> {
    match choice {
        DeviceChoice::Auto => Ok(device::auto()),
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(number) => device::gpu(number).with_context(|| format!("could not use the GPU {choice}")),
    }
}

/// The device that this choice comes to, for the list of workers: `cpu`, `cuda:0`.
fn device_in_words(choice: DeviceChoice, source: &Source) -> String {
    match (choice, source) {
        (DeviceChoice::Auto, Source::Mock) => DeviceChoice::Cpu,
        (DeviceChoice::Auto, _) if device::auto().is_cpu() => DeviceChoice::Cpu,
        (DeviceChoice::Auto, _) => DeviceChoice::Cuda(0),
        (choice, _) => choice,
    }
    .to_string()
}

fn dtype(choice: DtypeChoice, device: &Device) -> DType {
    match choice {
        DtypeChoice::Auto => predictor::best_dtype(device),
        DtypeChoice::F16 => DType::F16,
        DtypeChoice::F32 => DType::F32,
        DtypeChoice::Bf16 => DType::BF16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Override;

    fn slugs(flags: &[(&'static str, &str)]) -> Vec<String> {
        let flags = flags.iter().map(|(key, value)| Override { key, flag: "--flag", value: (*value).to_owned() });
        let home = [("HOME".to_owned(), "/nowhere".to_owned())];
        let config = Config::load(None, home.clone(), flags).expect("a configuration");
        let hub = hub::Environment::from_variables(home).expect("an environment");
        let plan = plan(&config, &hub).expect("a plan");
        plan.catalog.models().iter().map(|model| model.slug.clone()).collect()
    }

    #[test]
    fn without_workers_nobody_is_offered_the_demo_model_unless_it_is_named() {
        let none = ("worker.count", "0");
        assert_eq!(slugs(&[none]), ["sdxl-lightning-4step"]);
        let with_demo = ["sdxl-lightning-4step", demo::SLUG];
        assert_eq!(slugs(&[none, ("worker.models", "demo-4step")]), with_demo);
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/config/models.toml");
        assert_eq!(slugs(&[none, ("models.catalog", own)]), with_demo);
    }
}
