//! AVX-VNNI: dot products of four bytes in registers of AVX2, for processors without AVX-512 or whose hypervisor hides it.

use std::arch::x86_64::*;

use super::Micro;

/// Bytes in fours, 6 × 16 sums in twelve registers.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// How far ahead of its use B is fetched, in bytes.
const AHEAD: usize = 1024;

/// The kernel over one encoding of the instruction: AVX-VNNI's, or that of AVX-512, which computes the same (the tests use it on
/// processors that have no other).
macro_rules! kernel {
    ($kernel:ty, $features:literal, $dot:ident) => {
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
                unsafe fn product(
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
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD));
                            let b0 = _mm256_load_si256(b.cast());
                            let b1 = _mm256_load_si256(b.add(32).cast());
                            for (i, sums) in sums.iter_mut().enumerate() {
                                let a = _mm256_set1_epi32(a.add(i).read_unaligned());
                                sums[0] = $dot(sums[0], a, b0);
                                sums[1] = $dot(sums[1], a, b1);
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
                unsafe { product(a, b, steps, c, stride, add) }
            }
        }
    };
}

kernel!(Int8, "avx2,avxvnni", _mm256_dpbusd_avx_epi32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cpu::micro::tests::sums_are_exact;

    #[derive(Debug, Clone, Copy)]
    struct Twin;

    kernel!(Twin, "avx2,avx512f,avx512vl,avx512vnni", _mm256_dpbusd_epi32);

    #[test]
    fn the_other_encoding_computes_the_same() {
        if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
            sums_are_exact::<Twin>();
        } else {
            println!("this processor has not that encoding");
        }
    }
}
