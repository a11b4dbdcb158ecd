//! Plain loops for any processor, which compilers vectorise; the oracle of the others.

use super::Micro;

/// f32, 8 × 8 sums.
#[derive(Debug, Clone, Copy)]
pub struct F32;

/// Bytes, 4 × 8 sums.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// The loop that both share: they differ in how two values are multiplied and added.
macro_rules! kernel {
    ($kernel:ty, ($a:ty, $b:ty, $c:ty), $rows:literal x $columns:literal, $fused:expr) => {
        impl Micro for $kernel {
            type A = $a;
            type B = $b;
            type C = $c;
            const ROWS: usize = $rows;
            const COLUMNS: usize = $columns;
            const A_UNIT: usize = 1;
            const B_UNIT: usize = 1;
            const STEP: usize = 1;
            const RUN: usize = 512;

            unsafe fn product(
                a: *const $a,
                b: *const $b,
                steps: usize,
                c: *mut $c,
                stride: usize,
                add: bool,
            ) {
                // SAFETY: the caller promises whole panels.
                let (a, b) = unsafe {
                    (
                        std::slice::from_raw_parts(a, steps * $rows),
                        std::slice::from_raw_parts(b, steps * $columns),
                    )
                };
                let mut sums = [[<$c>::default(); $columns]; $rows];
                if add {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller promises `ROWS` rows of `COLUMNS` values.
                        unsafe { sums.as_mut_ptr().copy_from_nonoverlapping(c.add(i * stride), $columns) };
                    }
                }
                for (a, b) in a.as_chunks::<$rows>().0.iter().zip(b.as_chunks::<$columns>().0) {
                    for (sums, &a) in sums.iter_mut().zip(a) {
                        for (sum, &b) in sums.iter_mut().zip(b) {
                            *sum = $fused(a, b, *sum);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    // SAFETY: the caller promises `ROWS` rows of `COLUMNS` values.
                    unsafe { c.add(i * stride).copy_from_nonoverlapping(sums.as_ptr(), $columns) };
                }
            }
        }
    };
}

kernel!(F32, (f32, f32, f32), 8 x 8, multiply_add);
kernel!(Int8, (i16, i8, i32), 4 x 8, |a: i16, b: i8, sum: i32| sum + i32::from(a) * i32::from(b));

/// In one instruction where every processor of the kind has it; elsewhere it would be a function call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
}
