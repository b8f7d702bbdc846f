//! The answers: pictures in a list, or one after the other as they come about.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{self, Artifact, Progress};

/// The pictures of a finished prediction.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Images)]
pub struct Images {
    /// When the prediction was made, seconds since 1970.
    created: i64,
    /// The pictures, in order.
    data: Vec<Image>,
    /// Of the files.
    output_format: &'static str,
    /// In pixels, like `1024x1024`.
    size: String,
    /// Always `opaque`.
    background: &'static str,
    /// Always `auto`.
    quality: &'static str,
}

impl Images {
    /// The answer with these pictures, in order.
    pub fn new(prediction: &domain::Prediction, data: Vec<Image>) -> Self {
        let About { output_format, size, background, quality } = About::of(prediction);
        Self { created: prediction.created_at.timestamp(), data, output_format, size, background, quality }
    }
}

/// One picture, either here or where it can be read, and the seed that alone draws it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Image)]
pub struct Image {
    /// The file in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    b64_json: Option<String>,
    /// Where the file can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// What alone draws it again.
    seed: u64,
}

impl Image {
    /// A picture by its bytes.
    pub fn inline(file: &Artifact, bytes: &[u8]) -> Self {
        Self { b64_json: Some(BASE64_STANDARD.encode(bytes)), url: None, seed: file.seed }
    }

    /// A picture by its URL.
    pub fn at(file: &Artifact, url: String) -> Self {
        Self { b64_json: None, url: Some(url), seed: file.seed }
    }
}

/// What there is to say of every picture of a prediction. The model knows nothing of backgrounds and qualities: it draws
/// all of a picture, as well as it can.
struct About {
    output_format: &'static str,
    size: String,
    background: &'static str,
    quality: &'static str,
}

impl About {
    fn of(prediction: &domain::Prediction) -> Self {
        let input = &prediction.input;
        Self {
            output_format: format_name(input.output_format),
            size: format!("{}x{}", input.width, input.height),
            background: "opaque",
            quality: "auto",
        }
    }
}

/// What files are called here.
const fn format_name(format: domain::OutputFormat) -> &'static str {
    match format {
        domain::OutputFormat::Png => "png",
        domain::OutputFormat::Jpg => "jpeg",
        domain::OutputFormat::Webp => "webp",
    }
}

/// Which of a run's previews are sent as partial images: so many, evenly spread, and none twice.
#[derive(Clone, Copy, Debug)]
pub struct PartialPlan {
    wanted: u32,
    sent: u32,
}

impl PartialPlan {
    /// A plan to send at most so many.
    pub const fn new(wanted: u32) -> Self {
        Self { wanted, sent: 0 }
    }

    /// The number of the partial image that this much of progress is, if it is one.
    pub fn next(&mut self, progress: &Progress) -> Option<u32> {
        progress.preview.as_ref()?;
        // The last step's is the picture itself.
        let due = progress.done * (self.wanted + 1) / progress.total.max(1);
        (self.sent < self.wanted && due > self.sent).then(|| {
            self.sent += 1;
            self.sent - 1
        })
    }
}

/// What a stream is of, which is in its events' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A picture out of nothing.
    Generation,
    /// A picture out of another.
    Edit,
}

impl Event {
    /// The name of the event with an unfinished picture.
    pub const fn partial(self) -> &'static str {
        match self {
            Self::Generation => "image_generation.partial_image",
            Self::Edit => "image_edit.partial_image",
        }
    }

    /// The name of the event with a finished picture.
    pub const fn completed(self) -> &'static str {
        match self {
            Self::Generation => "image_generation.completed",
            Self::Edit => "image_edit.completed",
        }
    }
}

/// A picture on its way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Partial)]
pub struct Partial {
    /// The event's name.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The preview in base64.
    b64_json: String,
    /// Which preview this is, from 0.
    partial_image_index: u32,
    /// When the prediction was made, seconds since 1970.
    created_at: i64,
    /// Of the picture in pixels.
    size: String,
    /// Previews are small JPEGs, whatever the picture will be.
    output_format: &'static str,
    /// Always `opaque`.
    background: &'static str,
    /// Always `auto`.
    quality: &'static str,
}

impl Partial {
    /// The event of a preview.
    pub fn new(event: Event, prediction: &domain::Prediction, index: u32, preview: &[u8]) -> Self {
        let About { size, background, quality, .. } = About::of(prediction);
        Self {
            kind: event.partial(),
            b64_json: BASE64_STANDARD.encode(preview),
            partial_image_index: index,
            created_at: prediction.created_at.timestamp(),
            size,
            output_format: format_name(domain::OutputFormat::Jpg),
            background,
            quality,
        }
    }
}

/// A finished picture.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Completed)]
pub struct Completed {
    /// The event's name.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The file in base64.
    b64_json: String,
    /// What alone draws it again.
    seed: u64,
    /// When the prediction was made, seconds since 1970.
    created_at: i64,
    /// In pixels.
    size: String,
    /// Of the file.
    output_format: &'static str,
    /// Always `opaque`.
    background: &'static str,
    /// Always `auto`.
    quality: &'static str,
    /// All zero: no tokens are counted here.
    usage: Usage,
}

/// Clients insist on it. Nothing is counted in tokens here; the cost is in the prediction.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = openai::Usage)]
struct Usage {
    /// Always 0.
    input_tokens: u32,
    /// All zero.
    input_tokens_details: InputTokens,
    /// Always 0.
    output_tokens: u32,
    /// Always 0.
    total_tokens: u32,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = openai::InputTokens)]
struct InputTokens {
    /// Always 0.
    image_tokens: u32,
    /// Always 0.
    text_tokens: u32,
}

impl Completed {
    /// The event of a picture.
    pub fn new(event: Event, prediction: &domain::Prediction, file: &Artifact, bytes: &[u8]) -> Self {
        let About { output_format, size, background, quality } = About::of(prediction);
        Self {
            kind: event.completed(),
            b64_json: BASE64_STANDARD.encode(bytes),
            seed: file.seed,
            created_at: prediction.created_at.timestamp(),
            size,
            output_format,
            background,
            quality,
            usage: Usage::default(),
        }
    }
}

/// The event of a prediction that did not come to a picture.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Failed)]
pub struct Failed {
    /// The event's name.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Why.
    error: super::RefusedError,
}

impl Failed {
    /// Its name.
    pub const NAME: &'static str = "error";

    /// The event of a refusal that comes too late for a status.
    pub fn new(refusal: crate::wire::Refusal) -> Self {
        Self { kind: Self::NAME, error: super::Refused::new(refusal).1.error }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn indexes(wanted: u32, steps: &[u32], total: u32) -> Vec<(u32, u32)> {
        let mut plan = PartialPlan::new(wanted);
        let progress = |done| Progress {
            attempt: 1,
            done,
            total,
            finished_images: 0,
            elapsed: Duration::ZERO,
            preview: Some(vec![1]),
        };
        steps.iter().filter_map(|done| Some((*done, plan.next(&progress(*done))?))).collect()
    }

    #[test]
    fn partial_images_are_as_many_as_wanted_and_spread_over_the_run() {
        let all = [1, 2, 3, 4];
        assert_eq!(indexes(0, &all, 4), []);
        assert_eq!(indexes(1, &all, 4), [(2, 0)]);
        assert_eq!(indexes(3, &all, 4), [(1, 0), (2, 1), (3, 2)]);
        // Who looks seldom gets fewer, and numbers without gaps.
        assert_eq!(indexes(3, &[3], 4), [(3, 0)]);
        assert_eq!(indexes(2, &(1..=8).collect::<Vec<_>>(), 8), [(3, 0), (6, 1)]);
    }
}
