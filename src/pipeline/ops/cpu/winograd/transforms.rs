//! The algorithm's three transforms, of as many channels at once as a vector has lanes.

use pulp::Simd;

/// Rows and columns of a tile: what two outputs see under a kernel of three.
pub(super) const TILE: usize = 4;
/// Places of a tile, each of which is a matrix product of its own.
pub(super) const PLACES: usize = TILE * TILE;
/// Rows and columns of a kernel.
pub(super) const KERNEL: usize = 3;
/// Rows and columns of a tile's outputs.
pub(super) const OUTPUTS: usize = 2;

// Loops and small functions, instead of what arrays offer, because all of it must be inlined to be compiled for the widest
// vectors.

/// `B^T d B` of a tile of the input.
#[inline(always)]
pub(super) fn input<S: Simd>(simd: S, tile: [[S::f32s; TILE]; TILE]) -> [[S::f32s; TILE]; TILE] {
    let [a, b, c, d] = tile;
    let rows = [input_line(simd, a), input_line(simd, b), input_line(simd, c), input_line(simd, d)];
    let [a, b, c, d] = transposed(simd, rows);
    transposed(simd, [input_line(simd, a), input_line(simd, b), input_line(simd, c), input_line(simd, d)])
}

#[inline(always)]
fn input_line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TILE]) -> [S::f32s; TILE] {
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

/// `G g G^T` of a kernel.
#[inline(always)]
pub(super) fn kernel<S: Simd>(simd: S, [a, b, c]: [[S::f32s; KERNEL]; KERNEL]) -> [[S::f32s; TILE]; TILE] {
    let rows = [kernel_line(simd, a), kernel_line(simd, b), kernel_line(simd, c)];
    let [a, b, c, d] = transposed(simd, rows);
    transposed(simd, [kernel_line(simd, a), kernel_line(simd, b), kernel_line(simd, c), kernel_line(simd, d)])
}

#[inline(always)]
fn kernel_line<S: Simd>(simd: S, [a, b, c]: [S::f32s; KERNEL]) -> [S::f32s; TILE] {
    let (half, outer) = (simd.splat_f32s(0.5), simd.add_f32s(a, c));
    let (sum, difference) = (simd.add_f32s(outer, b), simd.sub_f32s(outer, b));
    [a, simd.mul_f32s(half, sum), simd.mul_f32s(half, difference), c]
}

/// `A^T m A` of a tile's products.
#[inline(always)]
pub(super) fn output<S: Simd>(simd: S, [a, b, c, d]: [[S::f32s; TILE]; TILE]) -> [[S::f32s; OUTPUTS]; OUTPUTS] {
    let rows = [output_line(simd, a), output_line(simd, b), output_line(simd, c), output_line(simd, d)];
    let [a, b] = transposed(simd, rows);
    transposed(simd, [output_line(simd, a), output_line(simd, b)])
}

#[inline(always)]
fn output_line<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; TILE]) -> [S::f32s; OUTPUTS] {
    [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)]
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

    #[test]
    fn the_transforms_make_a_convolution() {
        let simd = Scalar;
        let number = |seed: usize| (seed * 37 % 17) as f32 - 8.0;
        let tile: [[f32; TILE]; TILE] = std::array::from_fn(|i| std::array::from_fn(|j| number(4 * i + j)));
        let taps: [[f32; KERNEL]; KERNEL] = std::array::from_fn(|i| std::array::from_fn(|j| number(5 * i + j + 3)));
        let (inputs, kernels) = (input(simd, tile), kernel(simd, taps));
        let products = std::array::from_fn(|i| std::array::from_fn(|j| inputs[i][j] * kernels[i][j]));
        for (i, row) in output(simd, products).into_iter().enumerate() {
            for (j, found) in row.into_iter().enumerate() {
                let terms = (0..KERNEL).flat_map(|k| (0..KERNEL).map(move |l| (k, l)));
                let expected: f32 = terms.map(|(k, l)| tile[i + k][j + l] * taps[k][l]).sum();
                // Small integers and halves of them: nothing is rounded.
                assert_eq!(found, expected, "output {i}, {j}");
            }
        }
    }
}
