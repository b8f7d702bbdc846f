//! A network over a picture in tiles that overlap, blended where they do: memory for one tile instead of the picture.
//!
//! Group norms see a tile and not the picture, so the result differs a little from the picture taken whole.
//!
//! diffusers: `models/autoencoders/autoencoder_kl.py`, `AutoencoderKL.tiled_decode`, `_tiled_encode`, `blend_v`,
//! `blend_h`.

use candle_core::{DType, Device, Result, Tensor};

/// Tiles share this part of their side with the next: `tile_overlap_factor` of 0.25.
const PARTS: usize = 4;

/// What the network made of one tile: rows of pixels of channels.
struct Tile {
    height: usize,
    width: usize,
    channels: usize,
    values: Vec<f32>,
}

/// `network` over `x` `(b, h, w, c)`, in tiles of `side` where `x` is larger than one. `side` is given for what goes in
/// and for what comes out. Tiled results are f32 on the host.
pub(super) fn tiled(
    x: &Tensor,
    (side, side_out): (usize, usize),
    network: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (batch, height, width, _) = x.dims4()?;
    if height <= side && width <= side {
        return network(x);
    }
    let one = |number: usize| one_tiled(&x.narrow(0, number, 1)?, (side, side_out), &network);
    Tensor::cat(&(0..batch).map(one).collect::<Result<Vec<_>>>()?, 0)
}

fn one_tiled(
    x: &Tensor,
    (side, side_out): (usize, usize),
    network: &impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    let (stride, blend) = (side - side / PARTS, side_out / PARTS);
    let kept = side_out - blend;
    let mut above: Vec<Tile> = Vec::new();
    let mut rows = Vec::new();
    for top in (0..height).step_by(stride) {
        let mut row: Vec<Tile> = Vec::new();
        for (number, left) in (0..width).step_by(stride).enumerate() {
            let part = x.narrow(1, top, side.min(height - top))?.narrow(2, left, side.min(width - left))?;
            let mut tile = Tile::download(&network(&part.contiguous()?)?)?;
            if let Some(above) = above.get(number) {
                tile.blend_below(above, blend);
            }
            if let Some(left) = row.last() {
                tile.blend_right_of(left, blend);
            }
            row.push(tile);
        }
        let cut: Vec<Tensor> = row.iter().map(|tile| tile.upload(kept)).collect::<Result<_>>()?;
        rows.push(Tensor::cat(&cut, 2)?);
        above = row;
    }
    Tensor::cat(&rows, 1)
}

impl Tile {
    fn download(tensor: &Tensor) -> Result<Self> {
        let (_, height, width, channels) = tensor.dims4()?;
        let values = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        Ok(Self { height, width, channels, values })
    }

    /// So much of it at most, from the first row and column.
    fn upload(&self, most: usize) -> Result<Tensor> {
        let tensor = Tensor::from_slice(&self.values, (1, self.height, self.width, self.channels), &Device::Cpu)?;
        tensor.narrow(1, 0, most.min(self.height))?.narrow(2, 0, most.min(self.width))
    }

    /// Its first rows come out of the last of the tile above.
    fn blend_below(&mut self, above: &Self, most: usize) {
        let extent = most.min(self.height).min(above.height);
        let length = self.width * self.channels;
        for y in 0..extent {
            let from = &above.values[(above.height - extent + y) * length..][..length];
            mix(from, &mut self.values[y * length..][..length], y as f32 / extent as f32);
        }
    }

    /// Its first columns come out of the last of the tile to the left.
    fn blend_right_of(&mut self, left: &Self, most: usize) {
        let extent = most.min(self.width).min(left.width);
        let (row, left_row) = (self.width * self.channels, left.width * left.channels);
        for y in 0..self.height {
            for x in 0..extent {
                let from = &left.values[y * left_row + (left.width - extent + x) * self.channels..][..self.channels];
                let to = &mut self.values[y * row + x * self.channels..][..self.channels];
                mix(from, to, x as f32 / extent as f32);
            }
        }
    }
}

/// `to` becomes `share` of itself and the rest of `from`.
fn mix(from: &[f32], to: &mut [f32], share: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from * (1.0 - share) + *to * share;
    }
}
