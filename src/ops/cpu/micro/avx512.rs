//! AVX-512: f32, and the dot products of AVX512-BF16 and AVX512-VNNI. All have 8 × 48 sums in 24 registers, which divide
//! the towers' widths and the 64 tokens of a text.

use std::arch::x86_64::*;

use half::bf16;

use super::{Float, Micro, Quantized, round_bf16};

/// f32.
#[derive(Debug, Clone, Copy)]
pub struct F32;

/// bf16 in pairs, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Bf16;

/// Bytes in fours.
#[derive(Debug, Clone, Copy)]
pub struct Int8;

/// How far ahead of its use B is fetched, in bytes.
const AHEAD: usize = 1536;

/// The loop that the three kernels share: they differ in how one register is multiplied and added.
macro_rules! kernel {
    ($name:ident, $features:literal, $a:ty, $b:ty, $c:ty, $zero:expr, $load:expr, $broadcast:expr, $fused:expr, $store:expr) => {
        /// # Safety
        /// As [`Micro::product`].
        #[target_feature(enable = $features)]
        unsafe fn $name(a: *const $a, b: *const $b, steps: usize, c: *mut $c, stride: usize) {
            let (mut a, mut b) = (a.cast::<i32>(), b.cast::<i32>());
            let mut sums = [[$zero; 3]; 8];
            // SAFETY: a step has 8 times 4 bytes of `a` and 48 times 4 of `b`, which lies on 64 bytes; `c` has 8 rows of
            // 48 values. A prefetch reads nothing.
            unsafe {
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
    f32_8x48,
    "avx512f",
    f32,
    f32,
    f32,
    _mm512_setzero_ps(),
    |p: *const i32| _mm512_load_ps(p.cast()),
    |x: i32| _mm512_set1_ps(f32::from_bits(x as u32)),
    |sum, a, b| _mm512_fmadd_ps(a, b, sum),
    _mm512_storeu_ps
);
kernel!(
    bf16_8x48,
    "avx512f,avx512bf16",
    bf16,
    bf16,
    f32,
    _mm512_setzero_ps(),
    |p: *const i32| _mm512_load_si512(p.cast()),
    _mm512_set1_epi32,
    // SAFETY: both are 64 bytes of any bits.
    |sum, a, b| _mm512_dpbf16_ps(
        sum,
        std::mem::transmute::<__m512i, __m512bh>(a),
        std::mem::transmute::<__m512i, __m512bh>(b)
    ),
    _mm512_storeu_ps
);
kernel!(
    int8_8x48,
    "avx512f,avx512vnni",
    u8,
    i8,
    i32,
    _mm512_setzero_si512(),
    |p: *const i32| _mm512_load_si512(p.cast()),
    _mm512_set1_epi32,
    |sum, a, b| _mm512_dpbusd_epi32(sum, a, b),
    _mm512_storeu_si512
);

impl Micro for F32 {
    type A = f32;
    type B = f32;
    type C = f32;
    const ROWS: usize = 8;
    const COLUMNS: usize = 48;
    const A_UNIT: usize = 1;
    const B_UNIT: usize = 1;
    const STEP: usize = 1;
    const BLOCK_BYTES: usize = 512 << 10;

    unsafe fn product(a: *const f32, b: *const f32, steps: usize, c: *mut f32, stride: usize) {
        // SAFETY: the caller promises the instructions and the panels.
        unsafe { f32_8x48(a, b, steps, c, stride) }
    }
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

impl Micro for Bf16 {
    type A = bf16;
    type B = bf16;
    type C = f32;
    const ROWS: usize = 8;
    const COLUMNS: usize = 48;
    const A_UNIT: usize = 2;
    const B_UNIT: usize = 2;
    const STEP: usize = 2;
    const BLOCK_BYTES: usize = 512 << 10;

    unsafe fn product(a: *const bf16, b: *const bf16, steps: usize, c: *mut f32, stride: usize) {
        // SAFETY: the caller promises the instructions and the panels.
        unsafe { bf16_8x48(a, b, steps, c, stride) }
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
    const ROWS: usize = 8;
    const COLUMNS: usize = 48;
    const A_UNIT: usize = 4;
    const B_UNIT: usize = 4;
    const STEP: usize = 4;
    const BLOCK_BYTES: usize = 512 << 10;

    unsafe fn product(a: *const u8, b: *const i8, steps: usize, c: *mut i32, stride: usize) {
        // SAFETY: the caller promises the instructions and the panels.
        unsafe { int8_8x48(a, b, steps, c, stride) }
    }
}

impl Quantized for Int8 {
    #[inline(always)]
    fn a(x: u8) -> u8 {
        x
    }
}
