//! 64-bit ARM: NEON, dot products of bytes (FEAT_DotProd), and matrix products of bytes and bf16 (FEAT_I8MM, FEAT_BF16). All have
//! rows of 16 sums. Source: Arm Architecture Reference Manual for A-profile (DDI 0487), C7.2.
//!
//! The intrinsics of the last three are not stable in the oldest Rust that this builds with; inline assembly is.

use std::arch::aarch64::*;
use std::arch::asm;

use half::bf16;

use super::{Byte, Micro};
use crate::ops::cpu::buffer::Plain;

/// f32, 6 × 16 sums in 24 registers.
#[derive(Debug, Clone, Copy)]
pub struct F32;

/// Bytes as 16-bit values, 4 × 16 sums: for processors without dot products.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// Bytes in fours, 6 × 16 sums: `sdot`, of signed bytes.
#[derive(Debug, Clone, Copy)]
pub struct DotProdInt8;

/// Bytes in eights, 6 × 16 sums: `usmmla`, of two rows and two columns.
#[derive(Debug, Clone, Copy)]
pub struct I8mmInt8;

/// bf16 in fours, 6 × 16 sums in f32: `bfmmla`, of two rows and two columns.
#[derive(Debug, Clone, Copy)]
pub struct Bf16;

/// A byte from 0 to 255 less 128: `sdot` knows no product of unsigned and signed bytes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Shifted(i8);

// SAFETY: it is an i8, of which any bits are one.
unsafe impl Plain for Shifted {}

impl From<u8> for Shifted {
    #[inline(always)]
    fn from(byte: u8) -> Self {
        Self((byte ^ 0x80) as i8)
    }
}

impl Byte for Shifted {
    const LESS: i32 = 128;
}

/// A kernel, of a function that has [`Micro::product`]'s arguments.
macro_rules! kernel {
    ($kernel:ty, $product:ident, ($a:ty, $b:ty, $c:ty), rows $rows:literal, unit $unit:literal, run $run:literal) => {
        impl Micro for $kernel {
            type A = $a;
            type B = $b;
            type C = $c;
            const ROWS: usize = $rows;
            const COLUMNS: usize = 16;
            const A_UNIT: usize = $unit;
            const B_UNIT: usize = $unit;
            const STEP: usize = $unit;
            const RUN: usize = $run;

            unsafe fn product(
                a: *const $a,
                b: *const $b,
                steps: usize,
                c: *mut $c,
                stride: usize,
                add: bool,
            ) {
                // SAFETY: the caller promises the instructions and the panels.
                unsafe { $product(a, b, steps, c, stride, add) }
            }
        }
    };
}

kernel!(F32, f32_6x16, (f32, f32, f32), rows 6, unit 1, run 256);
kernel!(Int8, int8_4x16, (i16, i8, i32), rows 4, unit 1, run 1024);
kernel!(DotProdInt8, dot_6x16, (Shifted, i8, i32), rows 6, unit 4, run 256);
kernel!(I8mmInt8, i8mm_6x16, (u8, i8, i32), rows 6, unit 8, run 128);
kernel!(Bf16, bf16_6x16, (bf16, bf16, f32), rows 6, unit 4, run 128);

/// The registers of rows of sums: of `c`, or zeros.
macro_rules! sums {
    ($rows:literal, $zero:expr, $load:ident, $c:expr, $stride:expr, $add:expr) => {{
        let mut sums = [[$zero; 4]; $rows];
        if $add {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = $load($c.add(i * $stride + 4 * j));
                }
            }
        }
        sums
    }};
}

/// Writes them.
macro_rules! store {
    ($sums:expr, $store:ident, $c:expr, $stride:expr) => {
        for (i, sums) in $sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                $store($c.add(i * $stride + 4 * j), *sum);
            }
        }
    };
}

/// # Safety
/// As [`Micro::product`].
#[target_feature(enable = "neon")]
unsafe fn f32_6x16(
    mut a: *const f32,
    mut b: *const f32,
    steps: usize,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    // SAFETY: `a` has 6 and `b` 16 values a step; `c` has 6 rows of 16.
    unsafe {
        let mut sums = sums!(6, vdupq_n_f32(0.0), vld1q_f32, c, stride, add);
        for _ in 0..steps {
            let bs = [vld1q_f32(b), vld1q_f32(b.add(4)), vld1q_f32(b.add(8)), vld1q_f32(b.add(12))];
            let (a0, a1) = (vld1q_f32(a), vld1_f32(a.add(4)));
            for (j, b) in bs.into_iter().enumerate() {
                sums[0][j] = vfmaq_laneq_f32::<0>(sums[0][j], b, a0);
                sums[1][j] = vfmaq_laneq_f32::<1>(sums[1][j], b, a0);
                sums[2][j] = vfmaq_laneq_f32::<2>(sums[2][j], b, a0);
                sums[3][j] = vfmaq_laneq_f32::<3>(sums[3][j], b, a0);
                sums[4][j] = vfmaq_lane_f32::<0>(sums[4][j], b, a1);
                sums[5][j] = vfmaq_lane_f32::<1>(sums[5][j], b, a1);
            }
            a = a.add(6);
            b = b.add(16);
        }
        store!(sums, vst1q_f32, c, stride);
    }
}

/// # Safety
/// As [`Micro::product`].
#[target_feature(enable = "neon")]
unsafe fn int8_4x16(
    mut a: *const i16,
    mut b: *const i8,
    steps: usize,
    c: *mut i32,
    stride: usize,
    add: bool,
) {
    // SAFETY: `a` has 4 and `b` 16 values a step; `c` has 4 rows of 16.
    unsafe {
        let mut sums = sums!(4, vdupq_n_s32(0), vld1q_s32, c, stride, add);
        for _ in 0..steps {
            let bytes = vld1q_s8(b);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            let bs = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
            let a4 = vld1_s16(a);
            for (j, b) in bs.into_iter().enumerate() {
                sums[0][j] = vmlal_lane_s16::<0>(sums[0][j], b, a4);
                sums[1][j] = vmlal_lane_s16::<1>(sums[1][j], b, a4);
                sums[2][j] = vmlal_lane_s16::<2>(sums[2][j], b, a4);
                sums[3][j] = vmlal_lane_s16::<3>(sums[3][j], b, a4);
            }
            a = a.add(4);
            b = b.add(16);
        }
        store!(sums, vst1q_s32, c, stride);
    }
}

/// `$sum` plus the dot product of each four bytes of `$b` with the four in lane `$lane` of `$a`.
macro_rules! sdot {
    ($sum:expr, $b:expr, $a:expr, $lane:literal) => {
        // It changes registers only.
        asm!(
            concat!("sdot {sum:v}.4s, {b:v}.16b, {a:v}.4b[", $lane, "]"),
            sum = inout(vreg) $sum,
            b = in(vreg) $b,
            a = in(vreg) $a,
            options(pure, nomem, nostack, preserves_flags),
        )
    };
}

/// # Safety
/// As [`Micro::product`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_6x16(a: *const Shifted, mut b: *const i8, steps: usize, c: *mut i32, stride: usize, add: bool) {
    let mut a = a.cast::<i8>();
    // SAFETY: `a` has 6 and `b` 16 times four bytes a step; `c` has 6 rows of 16.
    unsafe {
        let mut sums = sums!(6, vdupq_n_s32(0), vld1q_s32, c, stride, add);
        for _ in 0..steps {
            let bs = [vld1q_s8(b), vld1q_s8(b.add(16)), vld1q_s8(b.add(32)), vld1q_s8(b.add(48))];
            let (a0, a1) = (vld1q_s8(a), vld1_s8(a.add(16)));
            for (j, b) in bs.into_iter().enumerate() {
                sdot!(sums[0][j], b, a0, 0);
                sdot!(sums[1][j], b, a0, 1);
                sdot!(sums[2][j], b, a0, 2);
                sdot!(sums[3][j], b, a0, 3);
                sdot!(sums[4][j], b, a1, 0);
                sdot!(sums[5][j], b, a1, 1);
            }
            a = a.add(24);
            b = b.add(64);
        }
        store!(sums, vst1q_s32, c, stride);
    }
}

/// A kernel of an instruction that multiplies two rows by two columns, each of 8 bytes of K, and adds the four products to a
/// register `[row][column]`.
macro_rules! of_pairs {
    ($name:ident, $features:literal, ($a:ty, $b:ty, $c:ty), $instruction:literal,
     $zero:expr, $load:ident, $store:ident, $from_words:ident, $to_words:ident) => {
        /// # Safety
        /// As [`Micro::product`].
        #[target_feature(enable = $features)]
        unsafe fn $name(a: *const $a, b: *const $b, steps: usize, c: *mut $c, stride: usize, add: bool) {
            let (mut a, mut b) = (a.cast::<u8>(), b.cast::<u8>());
            // SAFETY: `a` has 6 and `b` 16 times eight bytes a step; `c` has 6 rows of 16.
            unsafe {
                let rows = sums!(6, $zero, $load, c, stride, add);
                // Of rows 2i and 2i + 1 and columns 2j and 2j + 1.
                let mut sums = [[$zero; 8]; 3];
                for (i, sums) in sums.iter_mut().enumerate() {
                    for j in 0..4 {
                        let (upper, lower) = ($to_words(rows[2 * i][j]), $to_words(rows[2 * i + 1][j]));
                        sums[2 * j] = $from_words(vzip1q_u64(upper, lower));
                        sums[2 * j + 1] = $from_words(vzip2q_u64(upper, lower));
                    }
                }
                for _ in 0..steps {
                    let rows = [vld1q_u8(a), vld1q_u8(a.add(16)), vld1q_u8(a.add(32))];
                    for j in 0..8 {
                        let columns = vld1q_u8(b.add(16 * j));
                        for (sums, rows) in sums.iter_mut().zip(rows) {
                            // It changes registers only.
                            asm!(
                                $instruction,
                                sum = inout(vreg) sums[j],
                                a = in(vreg) rows,
                                b = in(vreg) columns,
                                options(pure, nomem, nostack, preserves_flags),
                            );
                        }
                    }
                    a = a.add(48);
                    b = b.add(128);
                }
                for (i, sums) in sums.iter().enumerate() {
                    for j in 0..4 {
                        let (left, right) = ($to_words(sums[2 * j]), $to_words(sums[2 * j + 1]));
                        let at = c.add(2 * i * stride + 4 * j);
                        $store(at, $from_words(vzip1q_u64(left, right)));
                        $store(at.add(stride), $from_words(vzip2q_u64(left, right)));
                    }
                }
            }
        }
    };
}

of_pairs!(
    i8mm_6x16,
    "neon,i8mm",
    (u8, i8, i32),
    "usmmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
    vdupq_n_s32(0),
    vld1q_s32,
    vst1q_s32,
    vreinterpretq_s32_u64,
    vreinterpretq_u64_s32
);
of_pairs!(
    bf16_6x16,
    "neon,bf16",
    (bf16, bf16, f32),
    "bfmmla {sum:v}.4s, {a:v}.8h, {b:v}.8h",
    vdupq_n_f32(0.0),
    vld1q_f32,
    vst1q_f32,
    vreinterpretq_f32_u64,
    vreinterpretq_u64_f32
);
