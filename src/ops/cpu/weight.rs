//! Weights in the form of the kernel that will multiply them, and the choice of that kernel.

use std::fmt;
use std::time::Duration;

use candle_core::{CpuStorage, DType, Result};
use half::bf16;

use super::attention::{Inputs, attention};
use super::isa::{Feature, Isa};
use super::linear::{Finish, linear};
use super::micro::rounded::Rounded;
use super::micro::{self, Float, Micro, portable};
use super::panels::{Element, Panels};
use super::{collected_as, norm, peak};
use crate::ops::Segments;

/// What a weight's values become when it is packed, and with them the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// As they are.
    F32,
    /// Rounded to bf16; sums are f32.
    Bf16,
    /// Signed bytes, one scale a row of the weight; activations become unsigned bytes, one scale a token.
    Int8,
}

impl WeightFormat {
    /// The type of activations within a block; between blocks they are f32.
    pub fn activations(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 | Self::Int8 => DType::BF16,
        }
    }
}

/// Names every kernel once: the enum, and the calls on whichever a weight was packed for.
macro_rules! kernels {
    ($($(#[$cfg:meta])? $name:ident: $kernel:ty;)+) => {
        enum Packed {
            $($(#[$cfg])? $name(Panels<$kernel>),)+
        }

        impl Packed {
            fn shape(&self) -> (usize, usize) {
                match self {
                    $($(#[$cfg])? Self::$name(panels) => (panels.out, panels.inner),)+
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $($(#[$cfg])? Self::$name(_) => stringify!($name),)+
                }
            }

            fn bounds(&self) -> (u8, u8) {
                match self {
                    $($(#[$cfg])? Self::$name(_) => (<$kernel as Micro>::MOST, <$kernel as Micro>::PAIR),)+
                }
            }

            /// # Safety
            /// As [`peak::measure`].
            unsafe fn peak(&self, time: Duration) -> f64 {
                // SAFETY: the caller promises what the function needs.
                unsafe {
                    match self {
                        $($(#[$cfg])? Self::$name(panels) => peak::measure(panels, time),)+
                    }
                }
            }

            /// # Safety
            /// As [`linear`].
            unsafe fn linear<T: Element>(
                &self,
                x: &[T],
                rows: usize,
                finish: Finish<'_>,
                y: super::linear::Output,
            ) -> Result<()> {
                // SAFETY: the caller promises what the function needs.
                unsafe {
                    match self {
                        $($(#[$cfg])? Self::$name(panels) => linear(x, rows, panels, finish, y),)+
                    }
                }
            }
        }
    };
}

kernels! {
    PortableF32: portable::F32;
    PortableRounded: Rounded<portable::F32>;
    PortableInt8: portable::Int8;
    #[cfg(target_arch = "x86_64")] Avx2F32: micro::avx2::F32;
    #[cfg(target_arch = "x86_64")] Avx2Rounded: Rounded<micro::avx2::F32>;
    #[cfg(target_arch = "x86_64")] Avx2Int8: micro::avx2::Int8;
    #[cfg(target_arch = "x86_64")] AvxVnniInt8: micro::avx_vnni::Int8;
    #[cfg(target_arch = "x86_64")] Avx512F32: micro::avx512::F32;
    #[cfg(target_arch = "x86_64")] Avx512Rounded: Rounded<micro::avx512::F32>;
    #[cfg(target_arch = "x86_64")] Avx512Bf16: micro::avx512::Bf16;
    #[cfg(target_arch = "x86_64")] Avx512PairsInt8: micro::avx512::PairsInt8;
    #[cfg(target_arch = "x86_64")] Avx512Int8: micro::avx512::Int8;
    #[cfg(target_arch = "x86_64")] AmxBf16: micro::amx::Bf16;
    #[cfg(target_arch = "x86_64")] AmxInt8: micro::amx::Int8;
    #[cfg(target_arch = "aarch64")] NeonF32: micro::neon::F32;
    #[cfg(target_arch = "aarch64")] NeonRounded: Rounded<micro::neon::F32>;
    #[cfg(target_arch = "aarch64")] NeonBf16: micro::neon::Bf16;
    #[cfg(target_arch = "aarch64")] NeonInt8: micro::neon::Int8;
    #[cfg(target_arch = "aarch64")] DotProdInt8: micro::neon::DotProdInt8;
    #[cfg(target_arch = "aarch64")] I8mmInt8: micro::neon::I8mmInt8;
}

impl Packed {
    /// Packs for the best kernel of `isa`, which this processor need not have: only multiplying needs the instructions.
    fn new(weight: &[f32], out: usize, inner: usize, format: WeightFormat, isa: Isa) -> Self {
        macro_rules! first_of {
            ($pack:ident: $($(#[$cfg:meta])? $feature:ident => $name:ident,)*; $portable:ident) => {{
                $($(#[$cfg])? if isa.has(Feature::$feature) {
                    return Self::$name(Panels::$pack(weight, out, inner));
                })*
                Self::$portable(Panels::$pack(weight, out, inner))
            }};
        }
        match format {
            WeightFormat::F32 => first_of! { float:
                #[cfg(target_arch = "x86_64")] Avx512 => Avx512F32,
                #[cfg(target_arch = "x86_64")] Avx2 => Avx2F32,
                #[cfg(target_arch = "aarch64")] Neon => NeonF32,
                ; PortableF32
            },
            WeightFormat::Bf16 => first_of! { float:
                #[cfg(target_arch = "x86_64")] Amx => AmxBf16,
                #[cfg(target_arch = "x86_64")] Avx512Bf16 => Avx512Bf16,
                #[cfg(target_arch = "x86_64")] Avx512 => Avx512Rounded,
                #[cfg(target_arch = "x86_64")] Avx2 => Avx2Rounded,
                #[cfg(target_arch = "aarch64")] Bf16 => NeonBf16,
                #[cfg(target_arch = "aarch64")] Neon => NeonRounded,
                ; PortableRounded
            },
            WeightFormat::Int8 => first_of! { quantized:
                #[cfg(target_arch = "x86_64")] Amx => AmxInt8,
                #[cfg(target_arch = "x86_64")] Avx512Vnni => Avx512Int8,
                #[cfg(target_arch = "x86_64")] AvxVnni => AvxVnniInt8,
                #[cfg(target_arch = "x86_64")] Avx512 => Avx512PairsInt8,
                #[cfg(target_arch = "x86_64")] Avx2 => Avx2Int8,
                #[cfg(target_arch = "aarch64")] I8mm => I8mmInt8,
                #[cfg(target_arch = "aarch64")] DotProd => DotProdInt8,
                #[cfg(target_arch = "aarch64")] Neon => NeonInt8,
                ; PortableInt8
            },
        }
    }
}

/// Columns of a weight of bytes at most: so many products of 255 and 127 do not overflow 32 bits.
const MOST_BYTES: usize = 65_536;

/// A weight `[out, inner]` that is multiplied by a kernel of this processor.
pub struct PackedWeight {
    packed: Packed,
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedWeight({}, {:?})", self.packed.name(), self.packed.shape())
    }
}

impl PackedWeight {
    /// Packs a row-major weight for the best kernel of `isa`.
    ///
    /// # Errors
    /// If the slice has not this shape, or if this processor does not have `isa`.
    pub fn new(weight: &[f32], out: usize, inner: usize, format: WeightFormat, isa: Isa) -> Result<Self> {
        if weight.len() != out * inner {
            candle_core::bail!("a weight [{out}, {inner}] of {} values", weight.len());
        }
        if format == WeightFormat::Int8 && inner > MOST_BYTES {
            candle_core::bail!("a weight of {inner} columns: sums of bytes are exact up to {MOST_BYTES}");
        }
        // The kernels' instructions are promised to them here: nothing else makes a packed weight.
        check(isa)?;
        Ok(Self { packed: Packed::new(weight, out, inner, format, isa) })
    }

    /// `(out, inner)`.
    pub fn shape(&self) -> (usize, usize) {
        self.packed.shape()
    }

    /// The name of its kernel.
    pub fn kernel(&self) -> &'static str {
        self.packed.name()
    }

    /// Of bytes: the largest one of activations, and what two neighbours of a row of the weight may be together at most; see
    /// [`Micro::MOST`] and [`Micro::PAIR`].
    pub fn bounds(&self) -> (u8, u8) {
        self.packed.bounds()
    }

    /// `x` `[rows, inner]` → `[rows, out]`, as bf16 if `narrow`, else f32.
    ///
    /// # Errors
    /// If the slices do not have these shapes.
    pub fn forward<T: Element>(
        &self,
        x: &[T],
        rows: usize,
        finish: Finish<'_>,
        narrow: bool,
    ) -> Result<CpuStorage> {
        // SAFETY: `new` found the kernel's instructions; the result has `rows · out` values, of which `linear` writes
        // every one.
        unsafe { collected_as(narrow, rows * self.shape().0, |y| self.packed.linear(x, rows, finish, y)) }
    }
}

/// Multiplications (each with an addition) a second of all threads together in the inner loop of the best kernel of `isa`,
/// its operands in the first-level cache, measured for so long.
///
/// # Errors
/// If this processor does not have `isa`.
pub fn peak(format: WeightFormat, isa: Isa, time: Duration) -> Result<f64> {
    let weight = PackedWeight::new(&[0.5; 64 * peak::INNER], 64, peak::INNER, format, isa)?;
    // SAFETY: `new` found the kernel's instructions.
    Ok(unsafe { weight.packed.peak(time) })
}

/// Whether this processor has `isa`.
fn check(isa: Isa) -> Result<()> {
    if !isa.is_available() {
        candle_core::bail!("this processor has {}, not {isa}", Isa::best());
    }
    Ok(())
}

/// Attention by the best kernel of `isa` for this type: a result of the type of the inputs.
///
/// # Errors
/// If the width is not a multiple of `heads`, or if this processor does not have `isa`.
pub fn attend<T: Element>(
    inputs: Inputs<'_, T>,
    segments: &Segments,
    heads: usize,
    isa: Isa,
) -> Result<CpuStorage> {
    check(isa)?;
    macro_rules! first_of {
        ($($(#[$cfg:meta])? $feature:ident => $kernel:ty,)*; $portable:ty) => {{
            $($(#[$cfg])? if isa.has(Feature::$feature) {
                return by::<$kernel, T>(inputs, segments, heads);
            })*
            by::<$portable, T>(inputs, segments, heads)
        }};
    }
    // SAFETY: the processor has the kernel's instructions, since it has the feature (checked).
    unsafe {
        if T::NARROW {
            first_of! {
                #[cfg(target_arch = "x86_64")] Amx => micro::amx::Bf16,
                #[cfg(target_arch = "x86_64")] Avx512Bf16 => micro::avx512::Bf16,
                #[cfg(target_arch = "x86_64")] Avx512 => Rounded<micro::avx512::F32>,
                #[cfg(target_arch = "x86_64")] Avx2 => Rounded<micro::avx2::F32>,
                #[cfg(target_arch = "aarch64")] Bf16 => micro::neon::Bf16,
                #[cfg(target_arch = "aarch64")] Neon => Rounded<micro::neon::F32>,
                ; Rounded<portable::F32>
            }
        } else {
            first_of! {
                #[cfg(target_arch = "x86_64")] Avx512 => micro::avx512::F32,
                #[cfg(target_arch = "x86_64")] Avx2 => micro::avx2::F32,
                #[cfg(target_arch = "aarch64")] Neon => micro::neon::F32,
                ; portable::F32
            }
        }
    }
}

/// Attention by one kernel.
///
/// # Safety
/// The processor must have its instructions.
unsafe fn by<M: Float, T: Element>(
    inputs: Inputs<'_, T>,
    segments: &Segments,
    heads: usize,
) -> Result<CpuStorage> {
    // SAFETY: the caller promises the instructions; the result has as many values as `attention` writes.
    unsafe {
        collected_as(T::NARROW, inputs.results(segments), |y| attention::<M, T>(inputs, segments, heads, y))
    }
}

/// Layer normalisation of `x` `[rows, width]`, as bf16 if `narrow`, else f32.
pub fn normalize(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, narrow: bool) -> CpuStorage {
    if narrow {
        CpuStorage::BF16(norm::layer_norm::<bf16>(x, weight, bias, eps))
    } else {
        CpuStorage::F32(norm::layer_norm::<f32>(x, weight, bias, eps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_instructions_has_its_kernel_for_each_format() {
        #[cfg(target_arch = "x86_64")]
        let expected = [
            ("portable", ["PortableF32", "PortableRounded", "PortableInt8"]),
            ("avx2", ["Avx2F32", "Avx2Rounded", "Avx2Int8"]),
            ("avx-vnni", ["Avx2F32", "Avx2Rounded", "AvxVnniInt8"]),
            ("avx512", ["Avx512F32", "Avx512Rounded", "Avx512PairsInt8"]),
            ("avx512-vnni", ["Avx512F32", "Avx512Rounded", "Avx512Int8"]),
            ("avx512-bf16", ["Avx512F32", "Avx512Bf16", "Avx512Int8"]),
            ("avx-vnni+avx512-bf16", ["Avx512F32", "Avx512Bf16", "Avx512Int8"]),
            ("amx", ["Avx512F32", "AmxBf16", "AmxInt8"]),
        ];
        #[cfg(target_arch = "aarch64")]
        let expected = [
            ("portable", ["PortableF32", "PortableRounded", "PortableInt8"]),
            ("neon", ["NeonF32", "NeonRounded", "NeonInt8"]),
            ("dotprod", ["NeonF32", "NeonRounded", "DotProdInt8"]),
            ("i8mm", ["NeonF32", "NeonRounded", "I8mmInt8"]),
            ("bf16", ["NeonF32", "NeonBf16", "NeonInt8"]),
            ("i8mm+bf16", ["NeonF32", "NeonBf16", "I8mmInt8"]),
        ];
        for (isa, names) in expected {
            for (format, name) in
                [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8].into_iter().zip(names)
            {
                let packed = Packed::new(&[1.0; 6], 2, 3, format, isa.parse().unwrap());
                assert_eq!((packed.name(), packed.shape()), (name, (2, 3)), "{isa}, {format:?}");
            }
        }
    }

    #[test]
    fn every_kernel_has_a_peak() {
        for isa in Isa::all() {
            for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
                let found = peak(format, isa, Duration::from_millis(1));
                assert_eq!(found.is_ok(), isa.is_available(), "{isa}");
                assert!(found.is_err() || found.is_ok_and(|speed| speed > 1e6), "{isa} {format:?}");
            }
        }
    }

    #[test]
    fn sums_of_bytes_that_could_overflow_are_refused() {
        assert!(MOST_BYTES * 255 * 127 <= i32::MAX as usize);
        let weight = vec![1.0; MOST_BYTES + 1];
        for isa in Isa::available() {
            let packed = |inner, format| PackedWeight::new(&weight[..inner], 1, inner, format, isa);
            assert!(packed(MOST_BYTES, WeightFormat::Int8).is_ok());
            assert!(packed(MOST_BYTES + 1, WeightFormat::Int8).is_err());
            assert!(packed(MOST_BYTES + 1, WeightFormat::F32).is_ok());
            // Sums as large as activations of one sign make them.
            let finish = Finish { bias: None, activation: None, centre: None, residual: None };
            let packed = packed(MOST_BYTES, WeightFormat::Int8).unwrap();
            let CpuStorage::F32(y) = packed.forward::<f32>(&weight[..MOST_BYTES], 1, finish, false).unwrap()
            else {
                panic!("not f32")
            };
            // Where neighbours are bounded together, 1 lies between two steps.
            let (_, pair) = packed.bounds();
            let bound = if pair < 254 { 1.1 / f32::from(pair) } else { 1e-6 };
            assert!((y[0] / MOST_BYTES as f32 - 1.0).abs() < bound, "{isa}: {y:?}");
        }
    }

    #[test]
    fn instructions_that_this_processor_lacks_are_refused() {
        for isa in Isa::all() {
            let packed = PackedWeight::new(&[1.0; 6], 2, 3, WeightFormat::Bf16, isa);
            assert_eq!(packed.is_ok(), isa.is_available(), "{isa}");
        }
    }
}
