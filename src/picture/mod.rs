//! Picture files: what people send as pixels, and pixels as what they get. It knows of files what the pipeline knows of
//! pixels, and neither needs the other.

mod exif;
mod made;
mod read;
mod webp;
mod write;

pub use made::Made;
pub use read::{MAX_BYTES, MAX_SIDE, MEDIA_TYPES, Unreadable, extension, media_type, read};
pub use write::{Format, Provenance, write};
