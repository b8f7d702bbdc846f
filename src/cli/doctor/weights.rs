//! The model's files: whether the folder has the parts a pipeline is loaded from. They are not read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use fourstep::{
    app,
    config::{Config, PredictorKind, WorkerCount},
    hub,
};

use super::{super::options, Finding};

/// Files of the diffusers layout, which no part can do without.
const FILES: [&str; 8] = [
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
];
/// Folders that hold weights, in one file or several.
const PARTS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];

pub(super) fn files(config: &Config) -> Finding {
    let subject = "weights";
    let worker = &config.worker;
    if worker.count == WorkerCount::Exactly(0) || worker.predictor == PredictorKind::Mock {
        return Finding::good(subject, "not needed here: no worker runs the model");
    }
    let Some(folder) = worker.weights.clone().or_else(|| pulled(config)) else {
        return Finding::poor(
            subject,
            "none, so the demo model answers, which draws simple scenes",
            "Fetch SDXL-Lightning (`fourstep pull`), or give its folder in the diffusers layout: --weights DIR.",
        );
    };
    let mut missing: Vec<String> =
        FILES.into_iter().filter(|file| !folder.join(file).is_file()).map(str::to_owned).collect();
    let separate_unet = worker.unet.is_some();
    let without_weights =
        PARTS.into_iter().filter(|part| !(has_weights(&folder.join(part)) || *part == "unet" && separate_unet));
    missing.extend(without_weights.map(|part| format!("{part}/*.safetensors")));
    missing.extend(worker.unet.iter().filter(|file| !file.is_file()).map(|file| file.display().to_string()));
    if missing.is_empty() {
        return Finding::good(subject, format!("{} is complete", folder.display()));
    }
    Finding::bad(
        subject,
        format!("{} lacks {}", folder.display(), missing.join(", ")),
        "Give a whole folder in the diffusers layout (--weights DIR), and the UNet in it or apart (--unet FILE).",
    )
}

/// Where a worker would find the model without being told.
fn pulled(config: &Config) -> Option<PathBuf> {
    let catalog = app::catalog(config).ok()?;
    hub::find_model(catalog.default_model(), &options::hub().ok()?)
}

fn has_weights(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|kind| kind == "safetensors"))
}
