//! Picture files: what people send, as pixels. It knows of files what the pipeline knows of pixels, and neither needs the
//! other.

mod read;

pub use read::{MAX_BYTES, MAX_SIDE, Unreadable, read};
