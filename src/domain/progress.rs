//! How far a running prediction is: what its worker tells while the device works, and nobody can rely on.

use std::time::Duration;

/// The latest finished step of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which attempt; a later one begins anew.
    pub attempt: i32,
    /// Calls of the UNet so far, over all images.
    pub done: u32,
    /// How many there will be.
    pub total: u32,
    /// Images that are finished.
    pub finished_images: u32,
    /// Since the attempt began on the device.
    pub elapsed: Duration,
    /// What the image being drawn looks like by now, or the one just finished: a small JPEG.
    pub preview: Option<Vec<u8>>,
}
