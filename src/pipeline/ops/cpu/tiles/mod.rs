//! Matrix products on the matrix units of recent Xeons (AMX): sums in f32 of products of bf16 numbers, an order of
//! magnitude faster than f32 arithmetic on the same core.
//!
//! An f32 number is the sum of three bf16 pieces of eight bits each: what is nearest to it, what that leaves, and what
//! both leave. Of the nine products of two such numbers' pieces the six large ones make a product of f32's own
//! exactness (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
//! Computations", 2019), in less time than f32 arithmetic takes. So weights asked for in f32 are multiplied. Two pieces
//! and three products keep 16 bits of every factor, more than the 11 of the f16 that weights are published in: they
//! serve weights asked for in f16. For those in bf16 one product does, which is what that choice asks for; that one
//! also pays on processors that multiply bf16 numbers in vectors only (`vectors`).
//!
//! The instructions are Intel's (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18).
//! Rust has no stable names for them yet, so `kernel` spells them out. A tile is 16 rows of 64 bytes: 16 x 32 numbers
//! of the left operand, 32 x 16 of the right one, in pairs of rows, or 16 x 16 sums.

mod aligned;
mod kernel;
mod panel;
mod pieces;
mod product;
mod vectors;

use std::sync::LazyLock;

use super::processor::{Level, most};

pub(super) use panel::{Depth, Order, Panel, Right};
pub(super) use pieces::Pieces;
pub(super) use product::{Product, RowTile, Segments, accumulate, row_tiles};

/// With fewer rows than this most of a tile would be wasted.
pub(super) const FEWEST_ROWS: usize = 8;
/// Rows of a tile, and columns of sums in one.
pub(super) const TILE: usize = 16;
/// Numbers of depth that one instruction takes.
const STEP: usize = 32;

/// How exactly numbers are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// Three pieces a number, six products: f32's 24 bits.
    Exact,
    /// Two pieces, three products: 16 bits.
    Split,
    /// One piece, one product: 8 bits.
    Bf16,
}

/// Pieces of a number at most.
const MOST_PIECES: usize = 3;

impl Precision {
    /// Pieces that a number is split into.
    fn pieces(self) -> usize {
        match self {
            Self::Exact => 3,
            Self::Split => 2,
            Self::Bf16 => 1,
        }
    }
}

/// What multiplies bf16 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Units {
    /// Matrix units.
    Tiles,
    /// Vectors.
    Vectors,
}

/// What this processor has, and the system lets this program use.
pub(super) fn units() -> Option<Units> {
    static UNITS: LazyLock<Option<Units>> = LazyLock::new(|| {
        let has_vectors = is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16");
        if !has_vectors || most() < Level::Avx512Bf16 {
            return None;
        }
        let may_have_tiles = most() == Level::Amx;
        Some(if may_have_tiles && has_tiles() && may_use_tiles() { Units::Tiles } else { Units::Vectors })
    });
    *UNITS
}

/// Whether products are faster here than in f32 arithmetic.
pub(super) fn pay(precision: Precision) -> bool {
    match units() {
        Some(Units::Tiles) => true,
        Some(Units::Vectors) => precision == Precision::Bf16,
        None => false,
    }
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
    // SAFETY: the call asks for a permission, by two numbers, and neither reads nor writes memory of this program.
    #[expect(unsafe_code)]
    let refused = unsafe { nix::libc::syscall(nix::libc::SYS_arch_prctl, REQUEST.0, REQUEST.1) };
    refused == 0
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}
