//! Where the program keeps files: a folder, or a bucket.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt};

use anyhow::Context;

use crate::{
    artifacts::{Artifacts, Bucket, Credentials},
    config::Config,
    metrics, postgres,
};

/// The store that the configuration names. A bucket is not asked for anything.
pub fn open(config: &Config) -> anyhow::Result<Artifacts> {
    let Some((name, prefix)) = config.bucket() else {
        let folder = config.artifacts_folder();
        if config.artifacts.folder.is_none() {
            postgres::make_passable(&config.data.dir)?;
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.with_context(|| format!("could not make {}", folder.display()))?;
        }
        return Ok(Artifacts::in_folder(&folder, config.artifacts.fsync)?);
    };
    let options = &config.artifacts;
    let credentials = options.access_key_id.clone().zip(options.secret_access_key.as_ref());
    let credentials = credentials.map(|(id, secret)| Credentials {
        id,
        secret: secret.expose().to_owned(),
        token: options.session_token.as_ref().map(|token| token.expose().to_owned()),
    });
    Ok(Artifacts::in_bucket(&Bucket {
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: options.endpoint.clone(),
        region: options.region.clone(),
        credentials,
    })?)
}

/// Opens it and looks whether it answers. One that is away may come back; one that refuses us does not change its mind.
pub(super) async fn open_checked(config: &Config) -> anyhow::Result<Artifacts> {
    let artifacts = open(config)?;
    if config.bucket().is_none() {
        metrics::watch_disk("outputs", &config.artifacts_folder());
    }
    match artifacts.check().await {
        Ok(()) => {}
        Err(error) if error.is_passing() => tracing::warn!(%error, "The artifact store does not answer yet"),
        Err(error) => {
            let place = config.artifacts.url.as_deref().unwrap_or("artifacts.folder");
            return Err(error).with_context(|| format!("{place} cannot be used; see artifacts.* in the configuration"));
        }
    }
    Ok(artifacts)
}
