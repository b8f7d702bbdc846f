//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use serde_json::Value;
use utoipa::{ToSchema, openapi::Ref};

/// The input's schema is the model's, and comes from the catalog.
pub(in crate::wire) fn input() -> Ref {
    Ref::from_schema_name("Input")
}

/// A prediction to be made.
#[derive(ToSchema)]
#[schema(as = native::CreatePrediction)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct CreatePrediction {
    /// By any of its names; the first of the list if left out.
    model: Option<String>,
    /// A version of it.
    version: Option<String>,
    #[schema(schema_with = input)]
    input: (),
    /// Where to tell what becomes of it.
    webhook: Option<String>,
    /// Of what to tell: some of `start`, `output`, `logs`, `completed`.
    webhook_events_filter: Option<Vec<String>>,
    /// What signs it, instead of the account's secret.
    webhook_secret: Option<String>,
    /// Those with a smaller number are run first; others have 0. For operators.
    #[schema(minimum = -100, maximum = 100)]
    priority: Option<i16>,
}

/// A form with a file to upload, and nothing else.
#[derive(ToSchema)]
#[schema(as = upload::NativeForm)]
#[expect(dead_code, reason = "it is read part by part")]
pub struct UploadForm {
    /// A PNG, JPEG or WebP.
    #[schema(format = Binary)]
    file: String,
    /// A JSON object that is kept with it.
    #[schema(value_type = Option<String>)]
    metadata: Option<Value>,
}

/// A form of a create: the input's fields, and what stands beside the input.
#[derive(ToSchema)]
#[schema(as = upload::CreateForm)]
#[expect(dead_code, reason = "it is read part by part")]
pub struct CreateForm {
    /// What to draw. Every other field of the input is a part of its own likewise.
    prompt: Option<String>,
    /// A PNG, JPEG or WebP to start from.
    #[schema(format = Binary)]
    image: Option<String>,
    /// By any of its names; the first of the list if left out.
    model: Option<String>,
    /// The input as JSON, or those of its fields that have no part.
    input: Option<String>,
}

/// A file's bytes, and nothing else.
#[derive(ToSchema)]
#[schema(as = upload::Picture, value_type = String, format = Binary)]
#[expect(dead_code, reason = "it is read as it is")]
pub struct Picture(String);
