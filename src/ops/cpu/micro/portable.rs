//! Plain loops for any processor, which compilers vectorise (NEON on ARM); the oracle of the others.

use half::bf16;

use super::{Float, Micro, Quantized};

/// f32, 8 × 8 sums.
#[derive(Debug, Clone, Copy)]
pub struct F32;

/// Bytes, 4 × 8 sums.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

impl Micro for F32 {
    type A = f32;
    type B = f32;
    type C = f32;
    const ROWS: usize = 8;
    const COLUMNS: usize = 8;
    const A_UNIT: usize = 1;
    const B_UNIT: usize = 1;
    const STEP: usize = 1;

    unsafe fn product(a: *const f32, b: *const f32, steps: usize, c: *mut f32, stride: usize) {
        // SAFETY: the caller promises whole panels.
        let (a, b) = unsafe {
            (
                std::slice::from_raw_parts(a, steps * Self::ROWS),
                std::slice::from_raw_parts(b, steps * Self::COLUMNS),
            )
        };
        let mut sums = [[0.0f32; Self::COLUMNS]; Self::ROWS];
        for (a, b) in a.chunks_exact(Self::ROWS).zip(b.chunks_exact(Self::COLUMNS)) {
            for (sums, &a) in sums.iter_mut().zip(a) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum = multiply_add(a, b, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: the caller promises `ROWS` rows of `COLUMNS` values.
            unsafe { c.add(i * stride).copy_from_nonoverlapping(sums.as_ptr(), Self::COLUMNS) };
        }
    }
}

/// In one instruction where every processor of the kind has it; elsewhere it would be a function call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}

impl Float for F32 {
    #[inline(always)]
    fn a(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn a_of_bf16(x: bf16) -> f32 {
        f32::from_bits(u32::from(x.to_bits()) << 16)
    }

    #[inline(always)]
    fn b(x: f32) -> f32 {
        x
    }
}

impl Micro for Int8 {
    type A = i16;
    type B = i8;
    type C = i32;
    const ROWS: usize = 4;
    const COLUMNS: usize = 8;
    const A_UNIT: usize = 1;
    const B_UNIT: usize = 1;
    const STEP: usize = 1;

    unsafe fn product(a: *const i16, b: *const i8, steps: usize, c: *mut i32, stride: usize) {
        // SAFETY: the caller promises whole panels.
        let (a, b) = unsafe {
            (
                std::slice::from_raw_parts(a, steps * Self::ROWS),
                std::slice::from_raw_parts(b, steps * Self::COLUMNS),
            )
        };
        let mut sums = [[0i32; Self::COLUMNS]; Self::ROWS];
        for (a, b) in a.chunks_exact(Self::ROWS).zip(b.chunks_exact(Self::COLUMNS)) {
            for (sums, &a) in sums.iter_mut().zip(a) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum += i32::from(a) * i32::from(b);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: the caller promises `ROWS` rows of `COLUMNS` values.
            unsafe { c.add(i * stride).copy_from_nonoverlapping(sums.as_ptr(), Self::COLUMNS) };
        }
    }
}

impl Quantized for Int8 {
    #[inline(always)]
    fn a(x: u8) -> i16 {
        i16::from(x)
    }
}
