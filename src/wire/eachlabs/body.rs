//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use utoipa::{ToSchema, openapi::Ref};

fn input() -> Ref {
    Ref::from_schema_name("VendorInput")
}

/// A prediction to be made.
#[derive(ToSchema)]
#[schema(as = eachlabs::CreatePrediction)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct CreatePrediction {
    /// The model's slug.
    #[schema(min_length = 1)]
    model: String,
    /// Of no meaning any more.
    version: Option<String>,
    #[schema(schema_with = input)]
    input: (),
    /// Where to tell the end; empty for nowhere.
    webhook_url: Option<String>,
    /// Sent along in `X-Webhook-Secret`.
    webhook_secret: Option<String>,
}

/// What will be sent.
#[derive(ToSchema)]
#[schema(as = upload::Presign)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct Presign {
    /// Its media type: `image/png`, `image/jpeg` or `image/webp`.
    content_type: String,
    /// `image`, `video`, `audio` or `other`; it changes nothing.
    file_type: Option<String>,
    /// How long to keep it, at most as long as uploads are kept.
    #[schema(minimum = 60, maximum = 31_536_000)]
    expires_in_seconds: Option<u64>,
}
