//! Attention by vectors: each core takes some queries of a head through all of its keys, in blocks that stay in the
//! core's cache. There is no more of the scores than a few queries' with a block of keys.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    super::{
        super::Mask,
        lanes::{Place, Rows, columns, load, multiply, rows},
        shared::{Shared, Start},
        turns::in_turns,
        vectors::with_lanes,
    },
    Geometry,
    softmax::Softmax,
};

/// Queries that a core takes at a time, at most: so many that to pack the keys is a small part of the work, and so few
/// that the sums of a head as wide as the UNet's stay in its second cache.
const QUERIES: usize = 1024;
/// Keys of a block, at most: so few that some queries' scores with it stay in the first cache.
const KEYS: usize = 256;
/// Numbers of a block of keys, at most: a quarter of a megabyte.
const BLOCK: usize = 1 << 16;

/// As [`super::attend`].
pub(super) fn attend(query: Rows<'_>, key: Rows<'_>, value: Rows<'_>, geometry: &Geometry) -> Vec<f32> {
    let Geometry { batch, queries, keys, heads, head_dim, .. } = *geometry;
    let channels = heads * head_dim;
    let threads = rayon::current_num_threads();
    // Parts of each head's queries: the same number for each core, or many.
    let of_batch = batch * heads;
    let mut parts = queries.div_ceil(QUERIES).max(1);
    while parts < queries && !(of_batch * parts).is_multiple_of(threads) && of_batch * parts < 4 * threads {
        parts += 1;
    }
    let part = queries.div_ceil(parts);
    let mut y = Vec::new();
    let target = Shared::after(&mut y, batch * queries, channels);
    in_turns(of_batch * parts, Scratch::default, |scratch, number| {
        let (head, first) = (number / parts, number % parts * part);
        let (picture, head) = (head / heads, head % heads);
        let of_head = |rows, tokens| Tokens { rows, first: picture * tokens, offset: head * head_dim };
        with_lanes(Part {
            query: of_head(query, queries),
            key: of_head(key, keys),
            value: of_head(value, keys),
            queries: first.min(queries)..(first + part).min(queries),
            geometry,
            scratch,
            target,
        });
    });
    // SAFETY: `Shared::after` has made room for so many. `parts` times `part` are no fewer than the queries, and a part
    // has written all `head_dim` channels of its head of each of its queries.
    #[expect(unsafe_code)]
    unsafe {
        y.set_len(batch * queries * channels);
    }
    y
}

/// One head of a picture's tokens.
#[derive(Clone, Copy)]
struct Tokens<'a> {
    /// All pictures' tokens.
    rows: Rows<'a>,
    /// The picture's first one.
    first: usize,
    /// Where the head begins in each.
    offset: usize,
}

impl<'a> Tokens<'a> {
    /// From one of the picture's on.
    fn from(&self, token: usize) -> Rows<'a> {
        Rows { values: &self.rows.values[(self.first + token) * self.rows.stride + self.offset..], ..self.rows }
    }
}

/// Memory that a core uses again and again.
#[derive(Default)]
struct Scratch {
    /// `(panels, head_dim, columns)`: a block's keys, side by side.
    keys: Vec<f32>,
    /// `(panels, keys, columns)`: its values, one after the other.
    values: Vec<f32>,
    /// Of a few queries with the block, then the softmax of these.
    scores: Vec<f32>,
    /// Of all of the part's queries.
    sums: Vec<f32>,
    softmax: Vec<Softmax>,
}

/// Some queries of a head.
struct Part<'a> {
    query: Tokens<'a>,
    key: Tokens<'a>,
    value: Tokens<'a>,
    queries: Range<usize>,
    geometry: &'a Geometry,
    scratch: &'a mut Scratch,
    /// All of the output, of which these queries of this head are nobody else's.
    target: Shared,
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.queries.is_empty() {
            return;
        }
        let Geometry { keys, head_dim, .. } = *self.geometry;
        let (width, count) = (self.width(columns::<S>()), self.queries.len());
        let block = (BLOCK / width).clamp(columns::<S>(), KEYS) / columns::<S>() * columns::<S>();
        self.scratch.keys.resize(block * head_dim, 0.0);
        self.scratch.values.resize(block * width, 0.0);
        self.scratch.scores.resize(rows::<S>() * block, 0.0);
        self.scratch.sums.resize(count * width, 0.0);
        self.scratch.softmax.clear();
        self.scratch.softmax.resize(count, Softmax::EMPTY);
        for first in (0..keys).step_by(block) {
            let block = first..(first + block).min(keys);
            self.pack_keys(columns::<S>(), block.clone());
            self.pack_values(columns::<S>(), block.clone());
            for query in (0..count).step_by(rows::<S>()) {
                self.attend(simd, query..(query + rows::<S>()).min(count), block.clone());
            }
        }
        self.write(simd);
    }
}

impl Part<'_> {
    /// Columns of a query's sums: the head's, in whole panels.
    fn width(&self, columns: usize) -> usize {
        self.geometry.head_dim.next_multiple_of(columns)
    }

    /// Panels of so many keys; those that are not there are zero.
    #[inline(always)]
    fn pack_keys(&mut self, columns: usize, block: Range<usize>) {
        let head_dim = self.geometry.head_dim;
        for (first, panel) in block.clone().step_by(columns).zip(self.scratch.keys.chunks_exact_mut(head_dim * columns))
        {
            let count = columns.min(block.end - first);
            if count < columns {
                panel.fill(0.0);
            }
            for column in 0..count {
                let key = &self.key.from(first + column).values[..head_dim];
                panel[column..].iter_mut().step_by(columns).zip(key).for_each(|(place, number)| *place = *number);
            }
        }
    }

    /// Panels of so many channels; those that are not there are zero.
    #[inline(always)]
    fn pack_values(&mut self, columns: usize, block: Range<usize>) {
        let head_dim = self.geometry.head_dim;
        let panels = self.scratch.values.chunks_exact_mut(block.len() * columns);
        for (first, panel) in (0..head_dim).step_by(columns).zip(panels) {
            let count = columns.min(head_dim - first);
            for (value, panel) in block.clone().zip(panel.chunks_exact_mut(columns)) {
                panel[..count].copy_from_slice(&self.value.from(value).values[first..][..count]);
                panel[count..].fill(0.0);
            }
        }
    }

    /// Adds what a few queries see in a block of keys, which is packed, to their sums.
    #[inline(always)]
    fn attend<S: Simd>(&mut self, simd: S, queries: Range<usize>, block: Range<usize>) {
        let Geometry { head_dim, mask, .. } = *self.geometry;
        let columns = columns::<S>();
        let (count, width) = (queries.len(), self.width(columns));
        let Scratch { keys, values, scores, sums, softmax } = &mut *self.scratch;
        let stride = block.len().next_multiple_of(columns);
        let left = self.query.from(self.queries.start + queries.start);
        let matrix = Shared::of(scores, stride);
        for (number, panel) in keys.chunks_exact(head_dim * columns).take(stride / columns).enumerate() {
            let place = Place { matrix, row: 0, column: number * columns };
            // SAFETY: the scores are borrowed, and touched by nobody else until this returns.
            #[expect(unsafe_code)]
            unsafe {
                multiply(simd, count, left, panel, Start::Zero, place);
            }
        }
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (query, scores) in queries.clone().zip(scores.chunks_exact_mut(stride)) {
            let visible = match mask {
                Mask::None => block.len(),
                Mask::Causal => (self.queries.start + query + 1).saturating_sub(block.start).min(block.len()),
            };
            if visible == 0 {
                scores.fill(0.0);
                continue;
            }
            let shrinks = softmax[query].take(simd, scores, visible, scale);
            if block.start > 0 && shrinks != 1.0 {
                sums[query * width..][..width].iter_mut().for_each(|sum| *sum *= shrinks);
            }
        }
        let start = if block.start == 0 { Start::Zero } else { Start::Target };
        let left = Rows { values: scores, stride };
        let matrix = Shared::of(sums, width);
        for (number, panel) in values.chunks_exact(block.len() * columns).take(width / columns).enumerate() {
            let place = Place { matrix, row: queries.start, column: number * columns };
            // SAFETY: the sums are borrowed, and touched by nobody else until this returns. All are numbers from the
            // beginning.
            #[expect(unsafe_code)]
            unsafe {
                multiply(simd, count, left, panel, start, place);
            }
        }
    }

    /// The queries' sums, by the sums of their weights, to where they belong.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S) {
        let Tokens { first, offset, .. } = self.query;
        let head_dim = self.geometry.head_dim;
        let width = self.width(columns::<S>());
        let in_vectors = head_dim / S::F32_LANES * S::F32_LANES;
        let sums = self.scratch.sums.chunks_exact(width);
        for ((query, sums), softmax) in self.queries.clone().zip(sums).zip(&self.scratch.softmax) {
            let (row, inverse) = (first + query, softmax.inverse());
            // SAFETY: whoever made the target keeps it until all parts are done, and this head of these queries is this
            // part's alone.
            #[expect(unsafe_code)]
            unsafe {
                for channel in (0..in_vectors).step_by(S::F32_LANES) {
                    let attended = simd.mul_f32s(load::<S>(sums, channel), simd.splat_f32s(inverse));
                    self.target.write(row, offset + channel, attended);
                }
                for (channel, sum) in sums.iter().enumerate().take(head_dim).skip(in_vectors) {
                    self.target.write(row, offset + channel, sum * inverse);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use pulp::Scalar;

    use super::*;

    const GEOMETRY: Geometry =
        Geometry { batch: 2, queries: 540, keys: 530, heads: 3, head_dim: 40, mask: Mask::None, precision: DType::F32 };

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|number| ((number * 7919 + seed * 104_729) % 1000) as f32 / 250.0 - 2.0).collect()
    }

    /// All heads of all pictures, whose rows are as far apart as `stride` says.
    fn attended<S: Simd>(simd: S, [query, key, value]: [Rows<'_>; 3], geometry: &Geometry) -> Vec<f32> {
        let Geometry { batch, queries, keys, heads, head_dim, .. } = *geometry;
        let mut y = vec![f32::NAN; batch * queries * heads * head_dim];
        let target = Shared::of(&mut y, heads * head_dim);
        let mut scratch = Scratch::default();
        for number in 0..batch * heads {
            let of_head =
                |rows, tokens| Tokens { rows, first: number / heads * tokens, offset: number % heads * head_dim };
            for queries_of_part in [0..37, 37..queries] {
                let (query, key, value) = (of_head(query, queries), of_head(key, keys), of_head(value, keys));
                let scratch = &mut scratch;
                Part { query, key, value, queries: queries_of_part, geometry, scratch, target }.with_simd(simd);
            }
        }
        y
    }

    /// One head of a token, the token counted through all pictures.
    fn wide(x: Rows<'_>, token: usize, head: usize) -> impl Iterator<Item = f64> {
        let numbers = &x.values[token * x.stride + head * GEOMETRY.head_dim..][..GEOMETRY.head_dim];
        numbers.iter().map(|&x| f64::from(x))
    }

    /// As the definition has it, in f64.
    fn plainly([query, key, value]: [Rows<'_>; 3], geometry: &Geometry) -> Vec<f32> {
        let Geometry { batch, queries, keys, heads, head_dim, mask, .. } = *geometry;
        let mut y = Vec::new();
        for (picture, query_number) in (0..batch * queries).map(|number| (number / queries, number % queries)) {
            for head in 0..heads {
                let visible = if mask == Mask::Causal { (query_number + 1).min(keys) } else { keys };
                let weights: Vec<f64> = (0..visible)
                    .map(|key_number| {
                        let query = wide(query, picture * queries + query_number, head);
                        let score: f64 =
                            query.zip(wide(key, picture * keys + key_number, head)).map(|(q, k)| q * k).sum();
                        (score / (head_dim as f64).sqrt()).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                let mut sums = vec![0.0; head_dim];
                for (number, weight) in weights.iter().enumerate() {
                    let value = wide(value, picture * keys + number, head);
                    sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += weight / total * value);
                }
                y.extend(sums.into_iter().map(|sum| sum as f32));
            }
        }
        y
    }

    #[test]
    fn vectors_of_every_width_attend_alike() {
        for mask in [Mask::None, Mask::Causal] {
            let geometry = Geometry { mask, ..GEOMETRY };
            let Geometry { batch, queries, keys, heads, head_dim, .. } = geometry;
            let channels = heads * head_dim;
            // Rows that are further apart than they are long, but for the values'.
            let query = numbers((batch * queries - 1) * (channels + 8) + channels, 1);
            let key = numbers((batch * keys - 1) * 2 * channels + channels, 2);
            let value = numbers(batch * keys * channels, 3);
            let rows = [(&query, channels + 8), (&key, 2 * channels), (&value, channels)];
            let rows = rows.map(|(values, stride)| Rows { values, stride });
            let mut found = vec![("scalar", attended(Scalar, rows, &geometry))];
            #[cfg(target_arch = "x86_64")]
            {
                found.extend(pulp::x86::V3::try_new().map(|simd| ("AVX2", attended(simd, rows, &geometry))));
                found.extend(pulp::x86::V4::try_new().map(|simd| ("AVX-512", attended(simd, rows, &geometry))));
            }
            found.push(("all cores", attend(rows[0], rows[1], rows[2], &geometry)));
            let expected = plainly(rows, &geometry);
            for (name, found) in found {
                assert_eq!(found.len(), expected.len());
                for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert!((found - expected).abs() < 1e-5, "{name}, {mask:?}, at {place}: {found} for {expected}");
                }
            }
        }
    }
}
