//! The algorithm's three transforms, of as many channels at once as a vector has lanes: two of one dimension make each.

use pulp::Simd;

use super::blocking::Blocking;

/// Rows and columns of a kernel.
pub(super) const KERNEL: usize = 3;

/// The row and the column of a transformed tile that are zero where pixels come in pairs, a tile beginning with the
/// second of one: what belongs to the point -1, since the polynomial of all other points has a factor of `x^2 - x` and
/// else squares of `x` alone.
pub(super) const OF_PAIRS: usize = 2;

// Loops and small functions, instead of what arrays offer, because all of it must be inlined to be compiled for the
// widest vectors.

/// Minimal filtering of `OUTPUTS x OUTPUTS` outputs at a time, which see a tile of `TILE x TILE` under a kernel of 3 x
/// 3. Types name a way; there are no values of them.
pub(super) trait Transforms<const TILE: usize, const OUTPUTS: usize> {
    /// Places of a tile, each of which is a matrix product of its own.
    const PLACES: usize = TILE * TILE;
    /// Where each core transforms the weight for each of its blocks: so many tiles that this is a small part of the
    /// work (about a twentieth), so many outputs that what is read of the weight are long rows, and so few inputs that
    /// what becomes of it stays in the core's cache.
    const FOR_EACH_BLOCK: Blocking;
    /// Where the weight is transformed ahead: so many inputs that sums are seldom laid aside, and so few tiles and
    /// outputs that a block's numbers of one place stay in the cache.
    const AHEAD: Blocking;

    /// `B^T d` of a column of the input.
    fn input_line<S: Simd>(simd: S, line: [S::f32s; TILE]) -> [S::f32s; TILE];

    /// `G g` of a column of a kernel.
    fn kernel_line<S: Simd>(simd: S, line: [S::f32s; KERNEL]) -> [S::f32s; TILE];

    /// `A^T m` of a column of a tile's products.
    fn output_line<S: Simd>(simd: S, line: [S::f32s; TILE]) -> [S::f32s; OUTPUTS];

    /// `B^T d B` of a tile of the input.
    #[inline(always)]
    fn input<S: Simd>(simd: S, tile: [[S::f32s; TILE]; TILE]) -> [[S::f32s; TILE]; TILE] {
        let mut rows = tile;
        for row in &mut rows {
            *row = Self::input_line(simd, *row);
        }
        let mut columns = transposed(simd, rows);
        for column in &mut columns {
            *column = Self::input_line(simd, *column);
        }
        transposed(simd, columns)
    }

    /// `G g G^T` of a kernel.
    #[inline(always)]
    fn kernel<S: Simd>(simd: S, taps: [[S::f32s; KERNEL]; KERNEL]) -> [[S::f32s; TILE]; TILE] {
        let mut rows = [[simd.splat_f32s(0.0); TILE]; KERNEL];
        for (row, taps) in rows.iter_mut().zip(taps) {
            *row = Self::kernel_line(simd, taps);
        }
        let mut columns = [[simd.splat_f32s(0.0); TILE]; TILE];
        for (column, taps) in columns.iter_mut().zip(transposed(simd, rows)) {
            *column = Self::kernel_line(simd, taps);
        }
        transposed(simd, columns)
    }

    /// `A^T m A` of a tile's products.
    #[inline(always)]
    fn output<S: Simd>(simd: S, products: [[S::f32s; TILE]; TILE]) -> [[S::f32s; OUTPUTS]; OUTPUTS] {
        let mut rows = [[simd.splat_f32s(0.0); OUTPUTS]; TILE];
        for (row, products) in rows.iter_mut().zip(products) {
            *row = Self::output_line(simd, products);
        }
        let mut columns = [[simd.splat_f32s(0.0); OUTPUTS]; OUTPUTS];
        for (column, products) in columns.iter_mut().zip(transposed(simd, rows)) {
            *column = Self::output_line(simd, products);
        }
        transposed(simd, columns)
    }
}

/// F(2 x 2, 3 x 3), of the points 0, 1 and -1: 16 multiplications for four outputs. Its factors are 1 and 1/2, so that
/// next to nothing is lost in f32.
pub(super) enum Two {}

impl Transforms<4, 2> for Two {
    const FOR_EACH_BLOCK: Blocking = Blocking { tiles: 196, outputs: 256, inputs: 64 };
    const AHEAD: Blocking = Blocking { tiles: 98, outputs: 128, inputs: 640 };

    #[inline(always)]
    fn input_line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
        [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
    }

    #[inline(always)]
    fn kernel_line<S: Simd>(simd: S, [a, b, c]: [S::f32s; KERNEL]) -> [S::f32s; 4] {
        let (half, outer) = (simd.splat_f32s(0.5), simd.add_f32s(a, c));
        let (sum, difference) = (simd.add_f32s(outer, b), simd.sub_f32s(outer, b));
        [a, simd.mul_f32s(half, sum), simd.mul_f32s(half, difference), c]
    }

    #[inline(always)]
    fn output_line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 2] {
        [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
    }
}

/// F(4 x 4, 3 x 3), of the points 0, 1, -1, 2 and -2: 36 multiplications for sixteen outputs. Its factors go from 1/576
/// to 64, with which f32 keeps 16 to 18 bits of its 24.
pub(super) enum Four {}

impl Transforms<6, 4> for Four {
    const FOR_EACH_BLOCK: Blocking = Blocking { tiles: 98, outputs: 128, inputs: 64 };
    const AHEAD: Blocking = Blocking { tiles: 56, outputs: 64, inputs: 640 };

    #[inline(always)]
    fn input_line<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::f32s; 6]) -> [S::f32s; 6] {
        let (two, four, minus_four) = (simd.splat_f32s(2.0), simd.splat_f32s(4.0), simd.splat_f32s(-4.0));
        let minus_five = simd.splat_f32s(-5.0);
        // Of the points 1 and -1, 2 and -2: what belongs to even powers, and to odd ones.
        let (even, odd) = (simd.mul_add_e_f32s(minus_four, c, e), simd.mul_add_e_f32s(minus_four, b, d));
        let (even_of_two, odd_of_two) = (simd.sub_f32s(e, c), simd.mul_f32s(two, simd.sub_f32s(d, b)));
        [
            simd.mul_add_e_f32s(four, a, simd.mul_add_e_f32s(minus_five, c, e)),
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            simd.add_f32s(even_of_two, odd_of_two),
            simd.sub_f32s(even_of_two, odd_of_two),
            simd.mul_add_e_f32s(four, b, simd.mul_add_e_f32s(minus_five, d, f)),
        ]
    }

    #[inline(always)]
    fn kernel_line<S: Simd>(simd: S, [a, b, c]: [S::f32s; KERNEL]) -> [S::f32s; 6] {
        let (quarter, sixth) = (simd.splat_f32s(1.0 / 4.0), simd.splat_f32s(1.0 / 6.0));
        let (twelfth, of_24) = (simd.splat_f32s(1.0 / 12.0), simd.splat_f32s(1.0 / 24.0));
        let (outer, minus_sixth) = (simd.add_f32s(a, c), simd.splat_f32s(-1.0 / 6.0));
        let even_of_two = simd.mul_add_e_f32s(sixth, c, simd.mul_f32s(of_24, a));
        let odd_of_two = simd.mul_f32s(twelfth, b);
        [
            simd.mul_f32s(quarter, a),
            simd.mul_f32s(minus_sixth, simd.add_f32s(outer, b)),
            simd.mul_f32s(minus_sixth, simd.sub_f32s(outer, b)),
            simd.add_f32s(even_of_two, odd_of_two),
            simd.sub_f32s(even_of_two, odd_of_two),
            c,
        ]
    }

    #[inline(always)]
    fn output_line<S: Simd>(simd: S, [a, b, c, d, e, f]: [S::f32s; 6]) -> [S::f32s; 4] {
        let (even, odd) = (simd.add_f32s(b, c), simd.sub_f32s(b, c));
        let (even_of_two, odd_of_two) = (simd.add_f32s(d, e), simd.sub_f32s(d, e));
        [
            simd.add_f32s(a, simd.add_f32s(even, even_of_two)),
            simd.mul_add_e_f32s(simd.splat_f32s(2.0), odd_of_two, odd),
            simd.mul_add_e_f32s(simd.splat_f32s(4.0), even_of_two, even),
            simd.mul_add_e_f32s(simd.splat_f32s(8.0), odd_of_two, simd.add_f32s(odd, f)),
        ]
    }
}

#[inline(always)]
fn transposed<S: Simd, const ROWS: usize, const COLUMNS: usize>(
    simd: S,
    rows: [[S::f32s; COLUMNS]; ROWS],
) -> [[S::f32s; ROWS]; COLUMNS] {
    let mut columns = [[simd.splat_f32s(0.0); ROWS]; COLUMNS];
    for (number, row) in rows.into_iter().enumerate() {
        for (column, value) in columns.iter_mut().zip(row) {
            column[number] = value;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use pulp::Scalar;

    use super::*;

    fn make_a_convolution<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize>(tolerance: f32) {
        let simd = Scalar;
        let number = |seed: usize| (seed * 37 % 17) as f32 - 8.0;
        let tile: [[f32; TILE]; TILE] = std::array::from_fn(|i| std::array::from_fn(|j| number(4 * i + j)));
        let taps: [[f32; KERNEL]; KERNEL] = std::array::from_fn(|i| std::array::from_fn(|j| number(5 * i + j + 3)));
        let (inputs, kernels) = (F::input(simd, tile), F::kernel(simd, taps));
        let products = std::array::from_fn(|i| std::array::from_fn(|j| inputs[i][j] * kernels[i][j]));
        for (i, row) in F::output(simd, products).into_iter().enumerate() {
            for (j, found) in row.into_iter().enumerate() {
                let terms = (0..KERNEL).flat_map(|k| (0..KERNEL).map(move |l| (k, l)));
                let expected: f32 = terms.map(|(k, l)| tile[i + k][j + l] * taps[k][l]).sum();
                assert!((found - expected).abs() <= tolerance, "output {i}, {j}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn the_transforms_make_a_convolution() {
        // Small integers and halves of them: nothing is rounded.
        make_a_convolution::<Two, 4, 2>(0.0);
        // Sixths are, of sums up to 500.
        make_a_convolution::<Four, 6, 4>(500.0 / (1 << 18) as f32);
    }

    fn are_zero_of_pairs<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize>() {
        let pair = |place: usize| place.div_ceil(2);
        let number = |i: usize, j: usize| ((7 * pair(i) + pair(j)).pow(3) % 101) as f32;
        let tile: [[f32; TILE]; TILE] = std::array::from_fn(|i| std::array::from_fn(|j| number(i, j)));
        for (i, row) in F::input(Scalar, tile).into_iter().enumerate() {
            for (j, found) in row.into_iter().enumerate() {
                assert_eq!(found == 0.0, i == OF_PAIRS || j == OF_PAIRS, "place {i}, {j}: {found}");
            }
        }
    }

    #[test]
    fn a_row_and_a_column_are_zero_where_pixels_come_in_pairs() {
        are_zero_of_pairs::<Two, 4, 2>();
        are_zero_of_pairs::<Four, 6, 4>();
    }
}
