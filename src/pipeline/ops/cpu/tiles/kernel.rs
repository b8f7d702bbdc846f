//! The innermost loop: 32 x 32 sums in four tiles.

use std::{arch::asm, marker::PhantomData, mem::offset_of};

use super::{MOST_PIECES, Units};

/// `LDTILECFG`'s operand: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

const EIGHT_TILES: Configuration = {
    let (mut bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        bytes[tile] = 64;
        rows[tile] = 16;
        tile += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows }
};

/// This thread's tiles, ready for use until it is dropped.
pub(super) struct Tiles {
    /// Tiles belong to a thread.
    _thread: PhantomData<*const ()>,
}

impl Tiles {
    /// Only where [`super::units`] says so.
    pub(super) fn configure() -> Self {
        assert!(super::units() == Some(Units::Tiles), "the processor has no tiles");
        // SAFETY: the processor has the instruction and the system lets this program use it (`units`). It reads the 64
        // bytes of the constant, and changes tiles only, which the compiler never uses.
        #[expect(unsafe_code)]
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &EIGHT_TILES, options(nostack, readonly));
        }
        Self { _thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the instruction is there, since this thread's tiles were configured, and changes nothing but tiles.
        // This is that thread: the type is not Send.
        #[expect(unsafe_code)]
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// One call's operands. Strides are bytes between rows.
#[repr(C)]
pub(super) struct Call {
    /// For each piece the upper and the lower 16 rows of the left operand; only as many pieces are looked at as the
    /// function takes.
    pub(super) left: [[*const u16; 2]; MOST_PIECES],
    pub(super) left_stride: usize,
    /// Bytes from the end of one segment of the depth to the beginning of the next in the left operand.
    pub(super) left_skip: isize,
    /// Tiles of the right operand, one after another: for each step two of each piece.
    pub(super) right: *const u16,
    /// Steps of depth in a segment, at least one: the loops count down to zero.
    pub(super) steps: usize,
    /// Segments, at least one. Counted down to zero.
    pub(super) segments: usize,
    /// What the sums begin with, and where they go: the upper and the lower 16 rows of 32 numbers.
    pub(super) start: [*const f32; 2],
    pub(super) start_stride: usize,
    pub(super) sums: [*mut f32; 2],
    pub(super) sums_stride: usize,
}

// The instructions below say these places as numbers.
const _: () = assert!(
    offset_of!(Call, left_skip) == 56
        && offset_of!(Call, steps) == 72
        && offset_of!(Call, segments) == 80
        && offset_of!(Call, start) == 88
        && offset_of!(Call, start_stride) == 104
        && offset_of!(Call, sums) == 112
        && offset_of!(Call, sums_stride) == 128
);

macro_rules! load_sums {
    () => {
        concat!(
            "mov {t}, [{call} + 88]\n",
            "mov {s}, [{call} + 104]\n",
            "tileloadd tmm0, [{t} + {s}*1]\n",
            "tileloadd tmm1, [{t} + {s}*1 + 64]\n",
            "mov {t}, [{call} + 96]\n",
            "tileloadd tmm2, [{t} + {s}*1]\n",
            "tileloadd tmm3, [{t} + {s}*1 + 64]\n",
            "mov {s}, 64"
        )
    };
}

macro_rules! store_sums {
    () => {
        concat!(
            "mov {t}, [{call} + 112]\n",
            "mov {s}, [{call} + 128]\n",
            "tilestored [{t} + {s}*1], tmm0\n",
            "tilestored [{t} + {s}*1 + 64], tmm1\n",
            "mov {t}, [{call} + 120]\n",
            "tilestored [{t} + {s}*1], tmm2\n",
            "tilestored [{t} + {s}*1 + 64], tmm3"
        )
    };
}

/// Loads one piece's two tiles of the left operand to `tmm4` and `tmm5`.
macro_rules! left {
    ($upper:literal, $lower:literal) => {
        concat!("tileloadd tmm4, [{", $upper, "} + {stride}*1]\ntileloadd tmm5, [{", $lower, "} + {stride}*1]")
    };
}

/// Loads one piece's two tiles of the right operand, so many bytes after the step's first, to `tmm6` and `tmm7`.
macro_rules! right {
    ($first:literal, $second:literal) => {
        concat!("tileloadd tmm6, [{right} + {s}*1 + ", $first, "]\ntileloadd tmm7, [{right} + {s}*1 + ", $second, "]")
    };
}

/// Adds the products of the loaded tiles.
macro_rules! multiply {
    () => {
        concat!(
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7"
        )
    };
}

/// All steps of all segments: `$step` in a loop, after which the left operand's pointers go on to the next segment.
macro_rules! function {
    ($(#[$doc:meta])* $name:ident, $right_bytes:literal, [$($step:expr),*], [$($pointer:ident = $piece:literal, $half:literal;)*]) => {
        $(#[$doc])*
        #[expect(unsafe_code, reason = "instructions that Rust has no names for")]
        pub(super) unsafe fn $name(_tiles: &Tiles, call: &mut Call) {
            // SAFETY: the tiles are configured as sixteen rows of 64 bytes. `steps` and `segments` are at least 1, so
            // the loops end, and every row that they load and store is one of those that the caller vouches for. Only
            // the registers named here are changed, and `segments`.
            unsafe {
                asm!(
                    load_sums!(),
                    "3:",
                    "mov {t}, [{call} + 72]",
                    "2:",
                    $($step,)*
                    $(concat!("add {", stringify!($pointer), "}, 64"),)*
                    concat!("add {right}, ", $right_bytes),
                    "dec {t}",
                    "jnz 2b",
                    "mov {t}, [{call} + 56]",
                    $(concat!("add {", stringify!($pointer), "}, {t}"),)*
                    "dec qword ptr [{call} + 80]",
                    "jnz 3b",
                    store_sums!(),
                    call = in(reg) call,
                    $($pointer = inout(reg) call.left[$piece][$half] => _,)*
                    stride = in(reg) call.left_stride,
                    right = inout(reg) call.right => _,
                    t = out(reg) _, s = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

function!(
    /// `sums = start + left x right` of three pieces each, without the three smallest of the nine products; of each
    /// step the smaller ones first.
    ///
    /// # Safety
    /// The thread's tiles are configured, the call has a segment and a step at least, and every row that it names may
    /// be read or written: sixteen of each half, for each segment of 64 bytes a step.
    multiply_exact,
    "6144",
    [
        right!("4096", "5120"), left!("high_0", "high_1"), multiply!(),
        right!("2048", "3072"), multiply!(),
        left!("middle_0", "middle_1"), multiply!(),
        right!("0", "1024"), multiply!(),
        left!("low_0", "low_1"), multiply!(),
        left!("high_0", "high_1"), multiply!()
    ],
    [high_0 = 0, 0; high_1 = 0, 1; middle_0 = 1, 0; middle_1 = 1, 1; low_0 = 2, 0; low_1 = 2, 1;]
);

function!(
    /// `sums = start + left x right` of two pieces each, without the smallest of the four products.
    ///
    /// # Safety
    /// As for [`multiply_exact`].
    multiply_split,
    "4096",
    [
        right!("2048", "3072"), left!("high_0", "high_1"), multiply!(),
        right!("0", "1024"), multiply!(),
        left!("low_0", "low_1"), multiply!()
    ],
    [high_0 = 0, 0; high_1 = 0, 1; low_0 = 1, 0; low_1 = 1, 1;]
);

function!(
    /// `sums = start + left x right` of one piece each.
    ///
    /// # Safety
    /// As for [`multiply_exact`].
    multiply_bf16,
    "2048",
    [right!("0", "1024"), left!("high_0", "high_1"), multiply!()],
    [high_0 = 0, 0; high_1 = 0, 1;]
);
