//! Matrix products of one block of registers, the inner loops of linear layers and attention.
//!
//! Both operands are packed ([`super::panels`]): A in panels of [`Micro::ROWS`] rows, B in panels of
//! [`Micro::COLUMNS`] columns, each in the order in which the loop reads it. One file an instruction
//! set; everything around the loops exists once, in [`super::linear`] and [`super::attention`].

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "x86_64")]
pub mod avx_vnni;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;
pub mod rounded;

use half::bf16;

use super::buffer::Plain;

/// `C [ROWS, COLUMNS] (+)= A [ROWS, K] · B [K, COLUMNS]` over packed panels.
pub trait Micro: Copy + Send + Sync + 'static {
    /// A value of A as it is packed.
    type A: Plain + Default;
    /// A value of B as it is packed.
    type B: Plain + Default;
    /// A sum.
    type C: Plain + Default;
    /// Rows of a panel of A.
    const ROWS: usize;
    /// Columns of a panel of B.
    const COLUMNS: usize;
    /// Neighbours along K that lie side by side in A: a panel is `[K / A_UNIT][ROWS][A_UNIT]`.
    const A_UNIT: usize;
    /// The same in B: `[K / B_UNIT][COLUMNS][B_UNIT]`.
    const B_UNIT: usize;
    /// K is padded with zeros to a multiple of this, which both units divide.
    const STEP: usize;
    /// Steps that linear layers go along K with all rows of a group before they go on, so that this piece of a panel of B
    /// (about 16 KiB) stays in the first-level cache.
    const RUN: usize;
    /// Of kernels over bytes: the largest byte of A.
    const MOST: u8 = 255;
    /// Of kernels over bytes: what the sizes of two values of B that are neighbours along K, an even one and the next, may be
    /// together. Twice 127 is no bound.
    const PAIR: u8 = 254;

    /// Prepares the thread's registers; before the first product of a task.
    ///
    /// # Safety
    /// The processor must have the instructions of this kernel.
    unsafe fn enter() {}

    /// Gives them back; after the last.
    ///
    /// # Safety
    /// As [`Micro::enter`], which must have been called on this thread.
    unsafe fn leave() {}

    /// Writes the product of one panel of A and one of B, of `steps` times [`Micro::STEP`] values along K, to `c`, whose
    /// rows are `stride` values apart, or adds it to what is there.
    ///
    /// # Safety
    /// The processor must have the instructions of this kernel, [`Micro::enter`] must have been called on this thread,
    /// and the pointers must reach `steps` steps of a panel each, `b` on the largest power of two of bytes up to 64 that
    /// divides a step of B, and `ROWS` rows of `COLUMNS` values.
    unsafe fn product(
        a: *const Self::A,
        b: *const Self::B,
        steps: usize,
        c: *mut Self::C,
        stride: usize,
        add: bool,
    );
}

/// A number as a kernel multiplies it.
pub trait Operand: Plain + Default {
    /// The nearest to `x`.
    fn of_f32(x: f32) -> Self;
    /// The same.
    fn of_bf16(x: bf16) -> Self;
    /// The nearest to each, at once: see [`round_all`].
    #[inline(always)]
    fn of_all<const N: usize>(x: [f32; N]) -> [Self; N] {
        x.map(Self::of_f32)
    }
}

impl Operand for f32 {
    #[inline(always)]
    fn of_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn of_bf16(x: bf16) -> Self {
        widen_bf16(x)
    }
}

impl Operand for bf16 {
    #[inline(always)]
    fn of_f32(x: f32) -> Self {
        round_bf16(x)
    }

    #[inline(always)]
    fn of_bf16(x: bf16) -> Self {
        x
    }

    #[inline(always)]
    fn of_all<const N: usize>(x: [f32; N]) -> [Self; N] {
        round_all(x)
    }
}

/// Kernels over numbers that need no scale.
pub trait Float: Micro<A: Operand, B: Operand, C = f32> {}

impl<M: Micro<A: Operand, B: Operand, C = f32>> Float for M {}

/// A byte from 0 to 255 as a kernel multiplies it.
pub trait Byte: Plain + Default + From<u8> {
    /// What the kernel's number is less than the byte.
    const LESS: i32 = 0;
}

impl Byte for u8 {}

impl Byte for i16 {}

/// Kernels over bytes: A unsigned (perhaps held in more bits, or less a constant), B signed, sums exact.
pub trait Quantized: Micro<A: Byte, B = i8, C = i32> {}

impl<M: Micro<A: Byte, B = i8, C = i32>> Quantized for M {}

/// `x` to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub fn round_bf16(x: f32) -> bf16 {
    let [x] = round_all([x]);
    x
}

/// Each to the nearest bf16, ties to even; NaN stays NaN. As `half` has it, but so that it is vectorised, which takes a loop
/// over whole words without a choice in it, and another that halves them: else the compiler makes scalar code of it.
#[inline(always)]
pub fn round_all<const N: usize>(x: [f32; N]) -> [bf16; N] {
    let mut results = [bf16::ZERO; N];
    for (result, word) in results.iter_mut().zip(round_bits(x)) {
        *result = bf16::from_bits(word as u16);
    }
    results
}

/// The bits of what [`round_all`] gives, each in the low half of a word.
#[inline(always)]
pub fn round_bits<const N: usize>(x: [f32; N]) -> [u32; N] {
    const INFINITY: u32 = 0x7f80_0000;
    let mut words = [0u32; N];
    for (word, x) in words.iter_mut().zip(x) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let nan = u32::from(bits & !(1 << 31) > INFINITY).wrapping_neg();
        *word = rounded & !nan | 0x7fc0 & nan;
    }
    words
}

/// `x` as f32. As `half` has it, but so that it is vectorised.
#[inline(always)]
pub fn widen_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

#[cfg(test)]
/// What other tests need of this one.
pub mod tests {
    use super::*;
    use crate::ops::cpu::buffer::Buffer;
    use crate::ops::cpu::isa::{Feature, Isa};

    /// Checks a kernel over bytes, whose instructions the processor has, against sums in plain code: over the largest bytes that it
    /// may be given too.
    pub fn sums_are_exact<M: Quantized>() {
        const STRIDE: usize = 67;
        let (most, pair) = (usize::from(M::MOST), usize::from(M::PAIR));
        let large = 127.min(pair);
        // Two neighbours of B: a large one and the rest, the same size, and each of these below 0.
        let pairs = [(large, pair - large), (pair / 2, pair - pair / 2)];
        for (steps, add, extreme) in [(0, false, false), (1, true, true), (5, false, false), (70, true, true)]
        {
            let inner = steps * M::STEP;
            let a: Vec<u8> = (0..inner * M::ROWS)
                .map(|i| if extreme && i % 5 > 0 { most } else { i * 37 % (most + 1) } as u8)
                .collect();
            let b: Vec<i8> = (0..inner * M::COLUMNS)
                .map(|i| {
                    let (of, (first, second)) = (i / inner.max(1) + i / 2, pairs[i / 14 % 2]);
                    let size = if extreme { [first, second][i % 2] } else { i * 53 % (pair / 2) } as i8;
                    if of % 3 == 0 { -size } else { size }
                })
                .collect();
            let (mut packed_a, mut packed_b) = (Buffer::<M::A>::zeros(a.len()), Buffer::<i8>::zeros(b.len()));
            for k in 0..inner {
                for i in 0..M::ROWS {
                    packed_a[(k / M::A_UNIT * M::ROWS + i) * M::A_UNIT + k % M::A_UNIT] =
                        a[i * inner + k].into();
                }
                for j in 0..M::COLUMNS {
                    packed_b[(k / M::B_UNIT * M::COLUMNS + j) * M::B_UNIT + k % M::B_UNIT] = b[j * inner + k];
                }
            }
            let before: Vec<i32> = (0..(M::ROWS * STRIDE) as i32).collect();
            let mut c = before.clone();
            // SAFETY: the caller promises the instructions; the panels and the sums are of the kernel's sizes.
            unsafe {
                M::enter();
                M::product(packed_a.as_ptr(), packed_b.as_ptr(), steps, c.as_mut_ptr(), STRIDE, add);
                M::leave();
            }
            for (i, (row, before)) in c.chunks(STRIDE).zip(before.chunks(STRIDE)).enumerate() {
                for (j, (&found, &before)) in row.iter().zip(before).enumerate() {
                    let expected = if j < M::COLUMNS {
                        let product = |k: usize| {
                            (i32::from(a[i * inner + k]) - M::A::LESS) * i32::from(b[j * inner + k])
                        };
                        (0..inner).map(product).sum::<i32>() + if add { before } else { 0 }
                    } else {
                        before
                    };
                    assert_eq!(found, expected, "{steps} steps, row {i}, column {j}");
                }
            }
        }
    }

    #[test]
    fn sums_of_bytes_are_exact() {
        sums_are_exact::<portable::Int8>();
        let has = |feature: Feature| Isa::of(feature).is_available();
        #[cfg(target_arch = "x86_64")]
        {
            if has(Feature::Avx2) {
                sums_are_exact::<avx2::Int8>();
            }
            if has(Feature::AvxVnni) {
                sums_are_exact::<avx_vnni::Int8>();
            }
            if has(Feature::Avx512) {
                sums_are_exact::<avx512::PairsInt8>();
            }
            if has(Feature::Avx512Vnni) {
                sums_are_exact::<avx512::Int8>();
            }
            if has(Feature::Amx) {
                sums_are_exact::<amx::Int8>();
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if has(Feature::Neon) {
                sums_are_exact::<neon::Int8>();
            }
            if has(Feature::DotProd) {
                sums_are_exact::<neon::DotProdInt8>();
            }
            if has(Feature::I8mm) {
                sums_are_exact::<neon::I8mmInt8>();
            }
        }
    }
}
