//! One program for all processors: loops are compiled for each width of vectors there is, and the widest that the processor
//! has is chosen when they run.

use std::sync::LazyLock;

use pulp::Arch;

/// Runs loops with the widest vectors. Everything the loops call must be inlined, or it stays narrow.
#[inline(always)]
pub(super) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);
    ARCH.dispatch(loops)
}
