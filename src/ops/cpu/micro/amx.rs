//! Intel AMX: tiles of 16 rows of 64 bytes. Both kernels keep 2 × 2 tiles of sums, 32 × 32, in tmm0 to tmm3, and load
//! two tiles of A (tmm4, tmm5) and two of B (tmm6, tmm7) a step. Source: Intel's Software Developer's Manual, volume 1,
//! chapter 18, and Intel's Optimization Reference Manual, chapter 20.
//!
//! The intrinsics are not stable in Rust; inline assembly is.

use std::arch::asm;

use half::bf16;

use super::{Float, Micro, Quantized, round_bf16};

/// bf16 in pairs, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Bf16;

/// Bytes in fours.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// The operand of `ldtilecfg`: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// # Safety
/// The processor must have AMX and the operating system must have given it to this process.
unsafe fn configure() {
    // SAFETY: the operand is the 64 bytes that the instruction reads; the tiles that it clears hold nothing of others.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
}

/// # Safety
/// As [`configure`].
unsafe fn release() {
    // SAFETY: it only clears the tiles and their configuration.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// A step reads 2 KiB of A (two tiles, one after another) and 2 KiB of B (16 rows of two tiles side by side).
macro_rules! product {
    ($dot:literal, $a:expr, $b:expr, $steps:expr, $c:expr, $stride:expr) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm7, [{b} + {b_row} + 64]",
            "tileloadd tmm5, [{a} + {a_row} + 1024]",
            concat!($dot, " tmm0, tmm4, tmm6"),
            concat!($dot, " tmm1, tmm4, tmm7"),
            concat!($dot, " tmm2, tmm5, tmm6"),
            concat!($dot, " tmm3, tmm5, tmm7"),
            "add {a}, 2048",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {c_row}], tmm0",
            "tilestored [{c} + {c_row} + 64], tmm1",
            "tilestored [{low} + {c_row}], tmm2",
            "tilestored [{low} + {c_row} + 64], tmm3",
            a = inout(reg) $a => _,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            a_row = in(reg) 64usize,
            b_row = in(reg) 128usize,
            c = in(reg) $c,
            low = in(reg) $c.add(16 * $stride),
            c_row = in(reg) $stride * 4,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Micro for Bf16 {
    type A = bf16;
    type B = bf16;
    type C = f32;
    const ROWS: usize = 32;
    const COLUMNS: usize = 32;
    const A_UNIT: usize = 32;
    const B_UNIT: usize = 2;
    const STEP: usize = 32;
    const BLOCK_BYTES: usize = 1 << 20;

    unsafe fn enter() {
        // SAFETY: the caller promises the instructions.
        unsafe { configure() }
    }

    unsafe fn leave() {
        // SAFETY: the caller promises the instructions.
        unsafe { release() }
    }

    unsafe fn product(a: *const bf16, b: *const bf16, steps: usize, c: *mut f32, stride: usize) {
        // SAFETY: the caller promises the instructions, the configuration, 2 KiB of both operands for each step, and 32
        // rows of 32 values of the result.
        unsafe { product!("tdpbf16ps", a, b, steps, c, stride) }
    }
}

impl Float for Bf16 {
    #[inline(always)]
    fn a(x: f32) -> bf16 {
        round_bf16(x)
    }

    #[inline(always)]
    fn a_of_bf16(x: bf16) -> bf16 {
        x
    }

    #[inline(always)]
    fn b(x: f32) -> bf16 {
        round_bf16(x)
    }
}

impl Micro for Int8 {
    type A = u8;
    type B = i8;
    type C = i32;
    const ROWS: usize = 32;
    const COLUMNS: usize = 32;
    const A_UNIT: usize = 64;
    const B_UNIT: usize = 4;
    const STEP: usize = 64;
    const BLOCK_BYTES: usize = 1 << 20;

    unsafe fn enter() {
        // SAFETY: the caller promises the instructions.
        unsafe { configure() }
    }

    unsafe fn leave() {
        // SAFETY: the caller promises the instructions.
        unsafe { release() }
    }

    unsafe fn product(a: *const u8, b: *const i8, steps: usize, c: *mut i32, stride: usize) {
        // SAFETY: the caller promises the instructions, the configuration, 2 KiB of both operands for each step, and 32
        // rows of 32 values of the result.
        unsafe { product!("tdpbusd", a, b, steps, c, stride) }
    }
}

impl Quantized for Int8 {
    #[inline(always)]
    fn a(x: u8) -> u8 {
        x
    }
}
