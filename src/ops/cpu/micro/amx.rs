//! Intel AMX: tiles of 16 rows of 64 bytes. Both kernels keep 2 × 2 tiles of sums, 32 × 32, in tmm0 to tmm3, and load
//! two tiles of A (tmm4, tmm5) and two of B (tmm6, tmm7) a step. Source: Intel's Software Developer's Manual, volume 1,
//! chapter 18, and Intel's Optimization Reference Manual, chapter 20.
//!
//! The intrinsics are not stable in Rust; inline assembly is.

use std::arch::asm;

use half::bf16;

use super::Micro;

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
    ($dot:literal, $a:expr, $b:expr, $steps:expr, $c:expr, $stride:expr, $add:expr) => {
        asm!(
            "test {add}, {add}",
            "jnz 4f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 5f",
            "4:",
            "tileloadd tmm0, [{c} + {c_row}]",
            "tileloadd tmm1, [{c} + {c_row} + 64]",
            "tileloadd tmm2, [{low} + {c_row}]",
            "tileloadd tmm3, [{low} + {c_row} + 64]",
            "5:",
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
            add = in(reg) usize::from($add),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Both kernels: rows of A are tiles' rows, 64 bytes of K; B has fours of bytes of K side by side.
macro_rules! kernel {
    ($kernel:ty, $dot:literal, ($a:ty, $b:ty, $c:ty)) => {
        impl Micro for $kernel {
            type A = $a;
            type B = $b;
            type C = $c;
            const ROWS: usize = 32;
            const COLUMNS: usize = 32;
            const A_UNIT: usize = 64 / size_of::<$a>();
            const B_UNIT: usize = 4 / size_of::<$b>();
            const STEP: usize = Self::A_UNIT;
            const RUN: usize = 8;

            unsafe fn enter() {
                // SAFETY: the caller promises the instructions.
                unsafe { configure() }
            }

            unsafe fn leave() {
                // SAFETY: the caller promises the instructions.
                unsafe { release() }
            }

            unsafe fn product(
                a: *const $a,
                b: *const $b,
                steps: usize,
                c: *mut $c,
                stride: usize,
                add: bool,
            ) {
                // SAFETY: the caller promises the instructions, the configuration, 2 KiB of both operands for each step,
                // and 32 rows of 32 values of the result.
                unsafe { product!($dot, a, b, steps, c, stride, add) }
            }
        }
    };
}

kernel!(Bf16, "tdpbf16ps", (bf16, bf16, f32));
kernel!(Int8, "tdpbusd", (u8, i8, i32));
