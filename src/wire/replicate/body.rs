//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use serde_json::Value;
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
    /// Where to tell the end alone, in the place of `webhook`.
    webhook_completed: Option<String>,
}

/// A form with a file to upload, as Replicate's clients send it.
#[derive(ToSchema)]
#[schema(as = upload::ReplicateForm)]
#[expect(dead_code, reason = "it is read part by part")]
pub struct UploadForm {
    /// A PNG, JPEG or WebP.
    #[schema(format = Binary)]
    content: String,
    /// Its name, if that is not the part's.
    filename: Option<String>,
    /// A JSON object that is kept with it.
    #[schema(value_type = Option<String>)]
    metadata: Option<Value>,
    /// The media type; the bytes tell it as well.
    r#type: Option<String>,
}
