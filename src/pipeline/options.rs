//! How a model is held: what is given up to save memory or time.

/// Savings, none of which is made unless asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Loads the text encoders anew for every prompt, one after the other, and lets them go: 1.6 GB less in f16 while
    /// the UNet runs, for a second or so each time. What is drawn stays the same.
    pub low_memory: bool,
    /// Has the VAE see pictures that are larger than this many pixels in tiles of that size, whose seams are blended.
    /// Its memory is then that of a tile; the picture changes a little.
    pub vae_tile: Option<usize>,
    /// Holds the linear layers of the UNet's transformers in eight-bit integers, which a CPU that has them multiplies
    /// several times as fast as f32, and which take half of what f16 does. The picture changes.
    pub int8: bool,
    /// Has a GPU do the UNet's operations one by one in every call. Else it records them for a size of picture that
    /// comes again, and does them all at once, with memory for their activations beside what it needs anyway; never
    /// with `low_memory`.
    pub eager: bool,
}
