//! Convolutions' weights from the order of files to the order of the arithmetic, once, while they are loaded.

use rayon::prelude::*;

/// Inputs and outputs turned together: what they take of both sides stays in a core's first cache.
const BLOCK: usize = 32;

/// `(outputs, inputs, taps)`, as files have it, to `(taps, inputs, outputs)`.
pub(super) fn taps_first<T: Copy + Send + Sync>(
    weight: &[T],
    (outputs, inputs, taps): (usize, usize, usize),
    mut turned: Vec<T>,
) -> Vec<T> {
    assert!(weight.len() == outputs * inputs * taps && turned.len() == weight.len(), "a weight of another shape");
    // A core's share is some inputs of every tap.
    let mut shares: Vec<Vec<&mut [T]>> = (0..inputs.div_ceil(BLOCK)).map(|_| Vec::with_capacity(taps)).collect();
    for tap in turned.chunks_mut(inputs * outputs) {
        shares.iter_mut().zip(tap.chunks_mut(BLOCK * outputs)).for_each(|(share, rows)| share.push(rows));
    }
    shares.into_par_iter().enumerate().for_each(|(number, mut share)| {
        for first in (0..outputs).step_by(BLOCK) {
            let end = (first + BLOCK).min(outputs);
            for (tap, rows) in share.iter_mut().enumerate() {
                for (row, target) in rows.chunks_mut(outputs).enumerate() {
                    let input = number * BLOCK + row;
                    let source = weight[(first * inputs + input) * taps + tap..].iter().step_by(inputs * taps);
                    target[first..end].iter_mut().zip(source).for_each(|(target, source)| *target = *source);
                }
            }
        }
    });
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_finds_its_place_whatever_the_sizes() {
        for (outputs, inputs, taps) in [(1, 1, 9), (4, 320, 9), (70, 33, 9), (32, 64, 1), (3, 5, 4)] {
            let weight: Vec<usize> = (0..outputs * inputs * taps).collect();
            let turned = taps_first(&weight, (outputs, inputs, taps), vec![0; weight.len()]);
            for (place, value) in turned.into_iter().enumerate() {
                let (tap, input, output) = (place / outputs / inputs, place / outputs % inputs, place % outputs);
                assert_eq!(value, (output * inputs + input) * taps + tap, "{outputs} x {inputs} x {taps} at {place}");
            }
        }
    }
}
