//! AVX2 and FMA.

use std::arch::x86_64::*;

use super::Micro;

/// f32, 6 × 16 sums in twelve registers.
#[derive(Debug, Clone, Copy)]
pub struct F32;

/// Bytes in fours, 6 × 16 sums. `vpmaddubsw` adds two products in 16 bits: so two neighbours of a weight are bounded together.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// The largest byte of activations of `vpmaddubsw`, and what two neighbours of a weight may be together.
pub(super) const MOST: u8 = 215;
/// As [`MOST`].
pub(super) const PAIR: u8 = 152;
const _: () = assert!(MOST as i32 * PAIR as i32 <= i16::MAX as i32);

/// How far ahead of its use B is fetched, in bytes.
pub(super) const AHEAD: usize = 1024;

impl Micro for F32 {
    type A = f32;
    type B = f32;
    type C = f32;
    const ROWS: usize = 6;
    const COLUMNS: usize = 16;
    const A_UNIT: usize = 1;
    const B_UNIT: usize = 1;
    const STEP: usize = 1;
    const RUN: usize = 256;

    unsafe fn product(a: *const f32, b: *const f32, steps: usize, c: *mut f32, stride: usize, add: bool) {
        // SAFETY: the caller promises the instructions and the panels.
        unsafe { f32_6x16(a, b, steps, c, stride, add) }
    }
}

/// # Safety
/// As [`Micro::product`].
#[target_feature(enable = "avx2,fma")]
unsafe fn f32_6x16(
    mut a: *const f32,
    mut b: *const f32,
    steps: usize,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; 6];
    // SAFETY: `a` has 6 and `b` 16 values a step, `b` on 64 bytes; `c` has 6 rows of 16. A prefetch reads nothing.
    unsafe {
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm256_loadu_ps(c.add(i * stride)), _mm256_loadu_ps(c.add(i * stride + 8))];
            }
        }
        for _ in 0..steps {
            _mm_prefetch::<_MM_HINT_T0>(b.cast::<i8>().wrapping_add(AHEAD));
            let (b0, b1) = (_mm256_load_ps(b), _mm256_load_ps(b.add(8)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*a.add(i));
                sums[0] = _mm256_fmadd_ps(a, b0, sums[0]);
                sums[1] = _mm256_fmadd_ps(a, b1, sums[1]);
            }
            a = a.add(6);
            b = b.add(16);
        }
        for (i, sums) in sums.iter().enumerate() {
            _mm256_storeu_ps(c.add(i * stride), sums[0]);
            _mm256_storeu_ps(c.add(i * stride + 8), sums[1]);
        }
    }
}

/// The loop of kernels over bytes in registers of 32 bytes, 6 × 16 sums: they differ in how fours of bytes are multiplied and added
/// (`$dot`), and in how large these may be.
macro_rules! bytes {
    ($kernel:ty, $features:literal, ($most:expr, $pair:expr), $dot:expr) => {
        impl Micro for $kernel {
            type A = u8;
            type B = i8;
            type C = i32;
            const ROWS: usize = 6;
            const COLUMNS: usize = 16;
            const A_UNIT: usize = 4;
            const B_UNIT: usize = 4;
            const STEP: usize = 4;
            const RUN: usize = 256;
            const MOST: u8 = $most;
            const PAIR: u8 = $pair;

            unsafe fn product(
                a: *const u8,
                b: *const i8,
                steps: usize,
                c: *mut i32,
                stride: usize,
                add: bool,
            ) {
                /// # Safety
                /// As [`Micro::product`].
                #[target_feature(enable = $features)]
                unsafe fn bytes_6x16(
                    a: *const u8,
                    mut b: *const i8,
                    steps: usize,
                    c: *mut i32,
                    stride: usize,
                    add: bool,
                ) {
                    let mut a = a.cast::<i32>();
                    let mut sums = [[_mm256_setzero_si256(); 2]; 6];
                    // SAFETY: a step has 6 fours of `a` and 16 of `b`, which lies on 64 bytes at each step; `c` has 6 rows
                    // of 16. A prefetch reads nothing.
                    unsafe {
                        if add {
                            for (i, sums) in sums.iter_mut().enumerate() {
                                let c = c.add(i * stride);
                                *sums = [_mm256_loadu_si256(c.cast()), _mm256_loadu_si256(c.add(8).cast())];
                            }
                        }
                        for _ in 0..steps {
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add($crate::ops::cpu::micro::avx2::AHEAD));
                            let bs = [_mm256_load_si256(b.cast()), _mm256_load_si256(b.add(32).cast())];
                            for (i, sums) in sums.iter_mut().enumerate() {
                                let a = _mm256_set1_epi32(a.add(i).read_unaligned());
                                for (sum, b) in sums.iter_mut().zip(bs) {
                                    *sum = $dot(*sum, a, b);
                                }
                            }
                            a = a.add(6);
                            b = b.add(64);
                        }
                        for (i, sums) in sums.iter().enumerate() {
                            _mm256_storeu_si256(c.add(i * stride).cast(), sums[0]);
                            _mm256_storeu_si256(c.add(i * stride + 8).cast(), sums[1]);
                        }
                    }
                }
                // SAFETY: the caller promises the instructions and the panels.
                unsafe { bytes_6x16(a, b, steps, c, stride, add) }
            }
        }
    };
}

pub(super) use bytes;

bytes!(Int8, "avx2", (MOST, PAIR), |sum, a, b| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
});
