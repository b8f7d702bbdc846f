//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use utoipa::ToSchema;

/// Pictures to be made of a prompt.
#[derive(ToSchema)]
#[schema(as = openai::Generation)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct Generation {
    /// What to draw.
    #[schema(max_length = 10_000)]
    prompt: String,
    /// By any of its names; the first of the list if left out.
    model: Option<String>,
    /// Pictures to draw.
    #[schema(minimum = 1, maximum = 4)]
    n: Option<u32>,
    /// `auto`, or pixels like `1024x1024`.
    size: Option<String>,
    /// `b64_json` (the default) or `url`.
    response_format: Option<String>,
    /// `png`, `webp` or `jpeg`.
    output_format: Option<String>,
    /// How close to what was drawn a jpeg stays.
    #[schema(minimum = 0, maximum = 100)]
    output_compression: Option<u32>,
    /// Answers with server-sent events.
    stream: Option<bool>,
    /// Previews of a stream, at most.
    #[schema(minimum = 0, maximum = 3)]
    partial_images: Option<u32>,
    /// Means nothing here; `transparent` is refused.
    background: Option<String>,
    /// Means nothing here.
    moderation: Option<String>,
    /// Means nothing here.
    quality: Option<String>,
    /// Means nothing here.
    style: Option<String>,
    /// Means nothing here.
    user: Option<String>,
    /// Means nothing here.
    safety_identifier: Option<String>,
    /// The model's own: as in its input.
    negative_prompt: Option<String>,
    /// The model's own: as in its input.
    seed: Option<u64>,
    /// The model's own: as in its input.
    scheduler: Option<String>,
    /// The model's own: as in its input.
    #[schema(minimum = 1, maximum = 10)]
    num_inference_steps: Option<u32>,
    /// The model's own: as in its input.
    #[schema(minimum = 0, maximum = 50)]
    guidance_scale: Option<f64>,
    /// The model's own: as in its input.
    disable_safety_checker: Option<bool>,
    /// The model's own: as in its input.
    embed_metadata: Option<bool>,
}

/// A picture to be made of another and a prompt. All but the picture are texts.
#[derive(ToSchema)]
#[schema(as = openai::Edit)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct Edit {
    /// A PNG, JPEG or WebP; also as `image[]`.
    #[schema(format = Binary)]
    image: String,
    /// What to draw.
    #[schema(max_length = 10_000)]
    prompt: String,
    /// How much of the picture is given up to noise; 1 means all of it, and 0.8 is meant if it is left out.
    #[schema(minimum = 0, maximum = 1)]
    prompt_strength: Option<f64>,
    /// By any of its names; the first of the list if left out.
    model: Option<String>,
    /// Pictures to draw.
    #[schema(minimum = 1, maximum = 4)]
    n: Option<u32>,
    /// `auto` (the picture's own), or pixels like `1024x1024`.
    size: Option<String>,
    /// `b64_json` (the default) or `url`.
    response_format: Option<String>,
    /// `png`, `webp` or `jpeg`.
    output_format: Option<String>,
    /// How close to what was drawn a jpeg stays.
    #[schema(minimum = 0, maximum = 100)]
    output_compression: Option<u32>,
    /// Answers with server-sent events.
    stream: Option<bool>,
    /// Previews of a stream, at most.
    #[schema(minimum = 0, maximum = 3)]
    partial_images: Option<u32>,
    /// Means nothing here.
    quality: Option<String>,
    /// Means nothing here.
    input_fidelity: Option<String>,
    /// Means nothing here.
    user: Option<String>,
    /// The model's own: as in its input.
    seed: Option<u64>,
}
