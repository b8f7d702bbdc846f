//! The bodies of uploads, as the API's document describes them; each is read where its face is.

use serde_json::Value;
use utoipa::ToSchema;

/// A form with a file to upload, and nothing else.
#[derive(ToSchema)]
#[schema(as = upload::NativeForm)]
#[expect(dead_code, reason = "it is read part by part")]
pub struct NativeForm {
    /// A PNG, JPEG or WebP.
    #[schema(format = Binary)]
    file: String,
    /// A JSON object that is kept with it.
    #[schema(value_type = Option<String>)]
    metadata: Option<Value>,
}

/// A form with a file to upload, as Replicate's clients send it.
#[derive(ToSchema)]
#[schema(as = upload::ReplicateForm)]
#[expect(dead_code, reason = "it is read part by part")]
pub struct ReplicateForm {
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
