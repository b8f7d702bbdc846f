//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use utoipa::{ToSchema, openapi::Ref};

fn input() -> Ref {
    Ref::from_schema_name("VendorInput")
}

/// A prediction to be made.
#[derive(ToSchema)]
#[schema(as = replicate::CreatePrediction)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct CreatePrediction {
    /// A version, `owner/name:version` or `owner/name`. Needed where the URL names no model.
    version: Option<String>,
    #[schema(schema_with = input, required)]
    input: (),
    /// Taken, and there are no streams.
    stream: Option<bool>,
    /// Where to tell what becomes of it.
    webhook: Option<String>,
    /// Of what to tell: some of `start`, `output`, `logs`, `completed`.
    webhook_events_filter: Option<Vec<String>>,
}
