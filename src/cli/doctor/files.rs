//! Where outputs and uploads are kept.

use fourstep::{app, config::Config};

use super::Finding;

/// A folder is looked at with the data folder; a bucket is asked for a list.
pub(super) async fn store(config: &Config) -> Finding {
    let subject = "files";
    let Some(url) = &config.artifacts.url else {
        return Finding::good(subject, format!("in {}", config.artifacts_folder().display()));
    };
    let artifacts = match app::open_artifacts(config) {
        Ok(artifacts) => artifacts,
        Err(error) => {
            return Finding::bad(subject, format!("{url}: {error:#}"), "See artifacts.* in the configuration.");
        }
    };
    match artifacts.check().await {
        Ok(()) => Finding::good(subject, format!("in {url}")),
        Err(error) if error.is_passing() => Finding::bad(
            subject,
            format!("{url}: {error}"),
            "See that artifacts.endpoint is right, and that it can be reached from here.",
        ),
        Err(error) if error.is_missing() => Finding::bad(
            subject,
            format!("{url}: {error}"),
            "Create the bucket, or see that artifacts.url and artifacts.endpoint are right.",
        ),
        Err(error) => Finding::bad(
            subject,
            format!("{url}: {error}"),
            "See that artifacts.access_key_id and artifacts.secret_access_key are right, and may list, read, write and delete there.",
        ),
    }
}
