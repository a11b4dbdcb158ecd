//! AVX-512: f32, and the dot products of AVX512-BF16 and AVX512-VNNI. All have 8 × 48 sums in 24 registers, which divide
//! the towers' widths and the 64 tokens of a text.

use std::arch::x86_64::*;

use half::bf16;

use super::{Micro, avx2};

/// f32.
#[derive(Debug, Clone, Copy)]
pub struct F32;

/// bf16 in pairs, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Bf16;

/// Bytes in fours.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// Bytes in fours without AVX512-VNNI; see [`super::avx2::Int8`].
#[derive(Debug, Clone, Copy)]
pub struct PairsInt8;

/// How far ahead of its use B is fetched, in bytes.
const AHEAD: usize = 1536;

/// The loop that the kernels share: they differ in how one register is multiplied and added. `$unit` neighbours along
/// K are the 4 bytes that are broadcast.
macro_rules! kernel {
    ($kernel:ty, $name:ident, $features:literal, ($a:ty, $b:ty, $c:ty), $unit:literal, ($most:expr, $pair:expr),
     $zero:expr, $load:expr, $broadcast:expr, $fused:expr, $fetch:expr, $store:expr) => {
        impl Micro for $kernel {
            type A = $a;
            type B = $b;
            type C = $c;
            const ROWS: usize = 8;
            const COLUMNS: usize = 48;
            const A_UNIT: usize = $unit;
            const B_UNIT: usize = $unit;
            const STEP: usize = $unit;
            const RUN: usize = 96;
            const MOST: u8 = $most;
            const PAIR: u8 = $pair;

            unsafe fn product(
                a: *const $a,
                b: *const $b,
                steps: usize,
                c: *mut $c,
                stride: usize,
                add: bool,
            ) {
                // SAFETY: the caller promises the instructions and the panels.
                unsafe { $name(a, b, steps, c, stride, add) }
            }
        }

        /// # Safety
        /// As [`Micro::product`].
        #[target_feature(enable = $features)]
        unsafe fn $name(a: *const $a, b: *const $b, steps: usize, c: *mut $c, stride: usize, add: bool) {
            let (mut a, mut b) = (a.cast::<i32>(), b.cast::<i32>());
            let mut sums = [[$zero; 3]; 8];
            // SAFETY: a step has 8 times 4 bytes of `a` and 48 times 4 of `b`, which lies on 64 bytes; `c` has 8 rows of
            // 48 values. A prefetch reads nothing.
            unsafe {
                if add {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        for (j, sum) in sums.iter_mut().enumerate() {
                            *sum = $fetch(c.add(i * stride + 16 * j).cast());
                        }
                    }
                }
                for _ in 0..steps {
                    let bs = [$load(b), $load(b.add(16)), $load(b.add(32))];
                    for j in 0..3 {
                        _mm_prefetch::<_MM_HINT_T0>(b.cast::<i8>().wrapping_add(AHEAD + 64 * j));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let a = $broadcast(a.add(i).read_unaligned());
                        for (sum, b) in sums.iter_mut().zip(bs) {
                            *sum = $fused(*sum, a, b);
                        }
                    }
                    a = a.add(8);
                    b = b.add(48);
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (j, sum) in sums.iter().enumerate() {
                        $store(c.add(i * stride + 16 * j).cast(), *sum);
                    }
                }
            }
        }
    };
}

kernel!(
    F32,
    f32_8x48,
    "avx512f",
    (f32, f32, f32),
    1,
    (255, 254),
    _mm512_setzero_ps(),
    |p: *const i32| _mm512_load_ps(p.cast()),
    |x: i32| _mm512_set1_ps(f32::from_bits(x as u32)),
    |sum, a, b| _mm512_fmadd_ps(a, b, sum),
    _mm512_loadu_ps,
    _mm512_storeu_ps
);
kernel!(
    Bf16,
    bf16_8x48,
    "avx512f,avx512bf16",
    (bf16, bf16, f32),
    2,
    (255, 254),
    _mm512_setzero_ps(),
    |p: *const i32| _mm512_load_si512(p.cast()),
    _mm512_set1_epi32,
    // SAFETY: both are 64 bytes of any bits.
    |sum, a, b| _mm512_dpbf16_ps(
        sum,
        std::mem::transmute::<__m512i, __m512bh>(a),
        std::mem::transmute::<__m512i, __m512bh>(b)
    ),
    _mm512_loadu_ps,
    _mm512_storeu_ps
);
kernel!(
    Int8,
    int8_8x48,
    "avx512f,avx512vnni",
    (u8, i8, i32),
    4,
    (255, 254),
    _mm512_setzero_si512(),
    |p: *const i32| _mm512_load_si512(p.cast()),
    _mm512_set1_epi32,
    |sum, a, b| _mm512_dpbusd_epi32(sum, a, b),
    _mm512_loadu_si512,
    _mm512_storeu_si512
);
kernel!(
    PairsInt8,
    pairs_8x48,
    "avx512f,avx512bw",
    (u8, i8, i32),
    4,
    (avx2::MOST, avx2::PAIR),
    _mm512_setzero_si512(),
    |p: *const i32| _mm512_load_si512(p.cast()),
    _mm512_set1_epi32,
    |sum, a, b| {
        let fours = _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1));
        _mm512_add_epi32(sum, fours)
    },
    _mm512_loadu_si512,
    _mm512_storeu_si512
);
