//! Sizes for people: `5.14 GB`, in the powers of ten that the hub's own pages use.

use std::fmt;

/// A number of bytes, shown with three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(formatter, "{} B", self.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        // 999.5 would be shown as 1000.
        while value >= 999.5 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        write!(formatter, "{value:.decimals$} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_three_digits_and_a_unit() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (524_619, "525 kB"),
            (999_600, "1.00 MB"),
            (246_144_152, "246 MB"),
            (5_135_151_440, "5.14 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, shown) in sizes {
            assert_eq!(ByteSize(bytes).to_string(), shown);
        }
    }
}
