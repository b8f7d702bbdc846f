//! How much of what the processor can do is made use of.

use std::sync::LazyLock;

/// Instructions that ways of multiplying need, in the order in which [`most`] leaves more and more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Vectors of eight numbers.
    Avx2,
    /// Products of eight-bit integers in vectors of eight sums.
    AvxVnni,
    /// Vectors of sixteen.
    Avx512,
    /// Vectors of 32 bf16 numbers.
    Avx512Bf16,
    /// All there are.
    Amx,
}

/// The most that this program's own loops may use: all, unless `FOURSTEP_MAX_CPU` makes less of the processor, for
/// comparisons and tests. It is `avx512_bf16`, `avx512` (AVX512-VNNI with it), `avx_vnni` or `avx2`; anything else
/// changes nothing. The products that go to `gemm` are left to what that finds.
pub(super) fn most() -> Level {
    static MOST: LazyLock<Level> = LazyLock::new(|| match std::env::var("FOURSTEP_MAX_CPU").as_deref() {
        Ok("avx2") => Level::Avx2,
        Ok("avx_vnni") => Level::AvxVnni,
        Ok("avx512") => Level::Avx512,
        Ok("avx512_bf16") => Level::Avx512Bf16,
        _ => Level::Amx,
    });
    *MOST
}
