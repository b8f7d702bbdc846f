//! What the faces say: their JSON to domain values and back, and the few words only they know.
//!
//! Pure translation: no sockets, no database, no decisions. Each face is one file with the same three names in it,
//! `CreatePrediction`, `Prediction` and its error body, so that the files can be read side by side.

mod base_url;
pub mod cursor;
mod exact;
mod input_schema;
pub mod native;

pub use base_url::{BaseUrl, MalformedBaseUrl};
pub use input_schema::InputSchema;
