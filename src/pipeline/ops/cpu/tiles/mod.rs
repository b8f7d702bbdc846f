//! Matrix products on the matrix units of recent Xeons (AMX): sums in f32 of products of bf16 numbers, an order of
//! magnitude faster than f32 arithmetic on the same core.
//!
//! An f32 number is split into two bf16 pieces, its `high` half and what that leaves, `low`. Three products,
//! high x high + high x low + low x high, keep 16 bits of every factor, more than the 11 of the f16 that weights are
//! published in. So weights kept in f16 are multiplied; for those kept in bf16 one product does, which is what that choice
//! asks for. Weights kept in f32 ask for all 24 bits and stay with f32 arithmetic.
//!
//! The instructions are Intel's (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18). Rust has
//! no stable names for them yet, so `kernel` spells them out. A tile is 16 rows of 64 bytes: 16 x 32 numbers of the left
//! operand, 32 x 16 of the right one, in pairs of rows, or 16 x 16 sums.

mod aligned;
mod kernel;
mod panel;
mod pieces;
mod product;

use std::sync::LazyLock;

pub(super) use panel::{Number, Order, Panel, Right};
pub(super) use pieces::Pieces;
pub(super) use product::{Product, RowTile, Segment, Start, accumulate, row_tiles};

/// With fewer rows than this most of a tile would be wasted.
pub(super) const FEWEST_ROWS: usize = 8;
/// Rows of a tile, and columns of sums in one.
pub(super) const TILE: usize = 16;
/// Numbers of depth that one instruction takes.
const STEP: usize = 32;

/// How exactly numbers are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// Two pieces a number, three products.
    Split,
    /// One piece, one product.
    Bf16,
}

/// Whether this processor has the units, and the system lets this program use them. `FOURSTEP_MAX_CPU=avx512` says no
/// whatever there is, for comparisons.
pub(super) fn available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        std::env::var_os("FOURSTEP_MAX_CPU").is_none_or(|most| most != "avx512")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16")
            && has_tiles()
            && may_use_tiles()
    });
    *AVAILABLE
}

/// CPUID leaf 7: bit 22 of EDX is AMX-BF16, bit 24 AMX-TILE.
fn has_tiles() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.edx & (1 << 22) != 0 && leaf.edx & (1 << 24) != 0
}

/// Linux gives a process the tiles' eight kilobytes of state when it asks for them.
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    /// `ARCH_REQ_XCOMP_PERM`, and the number of the tiles' state (Linux: Documentation/arch/x86/xstate.rst).
    const REQUEST: (i64, i64) = (0x1023, 18);
    #[expect(unsafe_code, reason = "asks for a permission and changes no memory")]
    let refused = unsafe { nix::libc::syscall(nix::libc::SYS_arch_prctl, REQUEST.0, REQUEST.1) };
    refused == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}
