//! What the faces say: their JSON to domain values and back, and the few words only they know.
//!
//! Pure translation: no sockets, no database, no decisions. Each face has the same three names, `CreatePrediction`,
//! `Prediction` and its error body made of a [`Refusal`], so that they can be read side by side.

pub mod admin;
mod base_url;
pub mod cursor;
pub mod eachlabs;
mod exact;
mod form;
mod input_schema;
pub mod json;
pub mod mounts;
pub mod native;
pub mod openai;
mod refusal;
pub mod replicate;
pub mod usage;
pub mod webhook;

pub use base_url::{BaseUrl, FaceUrl, MalformedBaseUrl};
pub use form::Part;
pub use input_schema::InputSchema;
pub use refusal::{Refusal, RefusalCode};
