//! OpenAI's images API: its JSON, as its own clients read it.
//!
//! A picture is the answer itself there, and nothing is asked for twice: a create waits for its end, and a prediction
//! that fails is a request that fails. What the vendor's clients can say and this model does not have (`quality`, `style`,
//! `user` and the like) is taken and means nothing; what would make another picture than was asked for is refused.

mod answer;
pub mod body;
mod create;
mod model;
mod refused;

use crate::domain::{FaceDefaults, UnknownFields};

pub use answer::{Completed, Event, Failed, Image, Images, Partial, PartialPlan};
pub use create::{Answer, CreateImages, FormValue};
pub use model::{Model, Models};
pub use refused::{Refused, RefusedError};

/// What this face fills in: as the model's authors have it. A prompt is always there.
pub const DEFAULTS: FaceDefaults = FaceDefaults {
    prompt: "",
    negative_prompt: "worst quality, low quality",
    disable_safety_checker: false,
    has_seed_minus_one: false,
    // As the vendor does.
    unknown_fields: UnknownFields::Refuse,
};
