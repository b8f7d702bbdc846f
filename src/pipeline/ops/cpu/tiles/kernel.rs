//! The innermost loop: 32 x 32 sums in four tiles.

use std::{arch::asm, marker::PhantomData};

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
    /// Only where [`super::available`] says so.
    pub(super) fn configure() -> Self {
        assert!(super::available(), "the processor has no tiles");
        #[expect(unsafe_code, reason = "the instruction is there, and reads this constant only")]
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &EIGHT_TILES, options(nostack, readonly));
        }
        Self { _thread: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "the instruction is there: this thread's tiles were configured")]
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// One call's operands. Strides are bytes between rows.
#[repr(C)]
pub(super) struct Call {
    /// The upper and the lower 16 rows of the left operand's high pieces.
    pub(super) high: [*const u16; 2],
    /// The same of its low pieces; not looked at by [`multiply_bf16`].
    pub(super) low: [*const u16; 2],
    pub(super) left_stride: usize,
    /// Tiles of the right operand, one after another: for each step two of high pieces, then, unless it is for
    /// [`multiply_bf16`], two of low ones.
    pub(super) right: *const u16,
    /// Steps of depth, at least one.
    pub(super) steps: usize,
    /// What the sums begin with, and where they go: the upper and the lower 16 rows of 32 numbers.
    pub(super) start: [*const f32; 2],
    pub(super) start_stride: usize,
    pub(super) sums: [*mut f32; 2],
    pub(super) sums_stride: usize,
}

macro_rules! load_sums {
    () => {
        concat!(
            "mov {t}, [{call} + 56]\n",
            "mov {s}, [{call} + 72]\n",
            "tileloadd tmm0, [{t} + {s}*1]\n",
            "tileloadd tmm1, [{t} + {s}*1 + 64]\n",
            "mov {t}, [{call} + 64]\n",
            "tileloadd tmm2, [{t} + {s}*1]\n",
            "tileloadd tmm3, [{t} + {s}*1 + 64]\n",
            "mov {s}, 64"
        )
    };
}

macro_rules! store_sums {
    () => {
        concat!(
            "mov {t}, [{call} + 80]\n",
            "mov {s}, [{call} + 96]\n",
            "tilestored [{t} + {s}*1], tmm0\n",
            "tilestored [{t} + {s}*1 + 64], tmm1\n",
            "mov {t}, [{call} + 88]\n",
            "tilestored [{t} + {s}*1], tmm2\n",
            "tilestored [{t} + {s}*1 + 64], tmm3"
        )
    };
}

/// `sums = start + high x high + high x low + low x high`, the smaller terms of each step first.
///
/// # Safety
/// The thread's tiles are configured, and every row that the call names may be read or written.
#[expect(unsafe_code, reason = "instructions that Rust has no names for")]
pub(super) unsafe fn multiply_split(_tiles: &Tiles, call: &Call) {
    unsafe {
        asm!(
            load_sums!(),
            "2:",
            "tileloadd tmm6, [{right} + {s}*1 + 2048]",
            "tileloadd tmm4, [{high_0} + {stride}*1]",
            "tileloadd tmm7, [{right} + {s}*1 + 3072]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{high_1} + {stride}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm6, [{right} + {s}*1]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm7, [{right} + {s}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm4, [{low_0} + {stride}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "tileloadd tmm5, [{low_1} + {stride}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {high_0}, 64",
            "add {high_1}, 64",
            "add {low_0}, 64",
            "add {low_1}, 64",
            "add {right}, 4096",
            "dec {steps}",
            "jnz 2b",
            store_sums!(),
            call = in(reg) call,
            high_0 = inout(reg) call.high[0] => _, high_1 = inout(reg) call.high[1] => _,
            low_0 = inout(reg) call.low[0] => _, low_1 = inout(reg) call.low[1] => _,
            stride = in(reg) call.left_stride,
            right = inout(reg) call.right => _,
            steps = inout(reg) call.steps => _,
            t = out(reg) _, s = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// `sums = start + high x high`.
///
/// # Safety
/// As for [`multiply_split`].
#[expect(unsafe_code, reason = "instructions that Rust has no names for")]
pub(super) unsafe fn multiply_bf16(_tiles: &Tiles, call: &Call) {
    unsafe {
        asm!(
            load_sums!(),
            "2:",
            "tileloadd tmm6, [{right} + {s}*1]",
            "tileloadd tmm4, [{high_0} + {stride}*1]",
            "tileloadd tmm7, [{right} + {s}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{high_1} + {stride}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {high_0}, 64",
            "add {high_1}, 64",
            "add {right}, 2048",
            "dec {steps}",
            "jnz 2b",
            store_sums!(),
            call = in(reg) call,
            high_0 = inout(reg) call.high[0] => _, high_1 = inout(reg) call.high[1] => _,
            stride = in(reg) call.left_stride,
            right = inout(reg) call.right => _,
            steps = inout(reg) call.steps => _,
            t = out(reg) _, s = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
