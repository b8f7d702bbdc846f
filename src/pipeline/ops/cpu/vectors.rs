//! One program for all processors: loops are compiled for each width of vectors there is, and the widest that the
//! processor has is chosen when they run.

use std::sync::LazyLock;

use pulp::{Arch, WithSimd};

#[cfg(target_arch = "x86_64")]
use super::processor::{Level, most};

static ARCH: LazyLock<Arch> = LazyLock::new(|| {
    let arch = Arch::new();
    #[cfg(target_arch = "x86_64")]
    if most() < Level::Avx512
        && let Some(narrower) = pulp::x86::V3::try_new()
    {
        return Arch::V3(narrower);
    }
    arch
});

/// Whether the widest vectors are AVX-512's.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx512() -> bool {
    matches!(*ARCH, Arch::V4(_))
}

/// Whether there are AVX2's vectors at least, and F16C, which came before them.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    matches!(*ARCH, Arch::V3(_) | Arch::V4(_)) && is_x86_feature_detected!("f16c")
}

/// Runs loops with the widest vectors. Everything the loops call must be inlined, or it stays narrow.
#[inline(always)]
pub(super) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    ARCH.dispatch(loops)
}

/// Runs what is written for vectors of any width with the widest. The same holds for what it calls.
#[inline(always)]
pub(super) fn with_lanes<T: WithSimd>(task: T) -> T::Output {
    ARCH.dispatch(task)
}
