//! Weights in the form of the kernel that will multiply them, and the choice of that kernel.

use std::fmt;
use std::time::Duration;

use candle_core::{CpuStorage, DType, Result};
use half::bf16;

use super::attention::{Inputs, attention};
use super::isa::Isa;
use super::linear::{Finish, linear};
use super::micro::rounded::Rounded;
use super::micro::{self, portable};
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
    #[cfg(target_arch = "x86_64")] Avx512F32: micro::avx512::F32;
    #[cfg(target_arch = "x86_64")] Avx512Rounded: Rounded<micro::avx512::F32>;
    #[cfg(target_arch = "x86_64")] Avx512Bf16: micro::avx512::Bf16;
    #[cfg(target_arch = "x86_64")] Avx512Int8: micro::avx512::Int8;
    #[cfg(target_arch = "x86_64")] AmxBf16: micro::amx::Bf16;
    #[cfg(target_arch = "x86_64")] AmxInt8: micro::amx::Int8;
}

impl Packed {
    /// Packs for the best kernel of `isa`, which this processor need not have: only multiplying needs the instructions.
    fn new(weight: &[f32], out: usize, inner: usize, format: WeightFormat, isa: Isa) -> Result<Self> {
        Ok(match (format, isa) {
            (WeightFormat::F32, Isa::Portable) => Self::PortableF32(Panels::float(weight, out, inner)),
            (WeightFormat::Bf16, Isa::Portable) => Self::PortableRounded(Panels::float(weight, out, inner)),
            (WeightFormat::Int8, Isa::Portable) => Self::PortableInt8(Panels::quantized(weight, out, inner)),
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::F32, Isa::Avx2) => Self::Avx2F32(Panels::float(weight, out, inner)),
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Bf16, Isa::Avx2) => Self::Avx2Rounded(Panels::float(weight, out, inner)),
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Int8, Isa::Avx2 | Isa::Avx512) => {
                Self::Avx2Int8(Panels::quantized(weight, out, inner))
            }
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::F32, _) => Self::Avx512F32(Panels::float(weight, out, inner)),
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Bf16, Isa::Avx512 | Isa::Avx512Vnni) => {
                Self::Avx512Rounded(Panels::float(weight, out, inner))
            }
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Bf16, Isa::Avx512Bf16) => Self::Avx512Bf16(Panels::float(weight, out, inner)),
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Int8, Isa::Avx512Vnni | Isa::Avx512Bf16) => {
                Self::Avx512Int8(Panels::quantized(weight, out, inner))
            }
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Bf16, Isa::Amx) => Self::AmxBf16(Panels::float(weight, out, inner)),
            #[cfg(target_arch = "x86_64")]
            (WeightFormat::Int8, Isa::Amx) => Self::AmxInt8(Panels::quantized(weight, out, inner)),
            #[cfg(not(target_arch = "x86_64"))]
            (_, isa) => candle_core::bail!("no kernels for {isa} on this processor"),
        })
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
        Ok(Self { packed: Packed::new(weight, out, inner, format, isa)? })
    }

    /// `(out, inner)`.
    pub fn shape(&self) -> (usize, usize) {
        self.packed.shape()
    }

    /// The name of its kernel.
    pub fn kernel(&self) -> &'static str {
        self.packed.name()
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
    if isa > Isa::best() {
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
    let narrow = T::NARROW;
    // SAFETY: the processor has the kernel's instructions (checked); the result has as many values as `attention`
    // writes.
    unsafe {
        collected_as(narrow, inputs.results(segments), |y| match (isa, narrow) {
            (Isa::Portable, false) => attention::<portable::F32, T>(inputs, segments, heads, y),
            (Isa::Portable, true) => attention::<Rounded<portable::F32>, T>(inputs, segments, heads, y),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, false) => attention::<micro::avx2::F32, T>(inputs, segments, heads, y),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, true) => attention::<Rounded<micro::avx2::F32>, T>(inputs, segments, heads, y),
            #[cfg(target_arch = "x86_64")]
            (_, false) => attention::<micro::avx512::F32, T>(inputs, segments, heads, y),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512 | Isa::Avx512Vnni, true) => {
                attention::<Rounded<micro::avx512::F32>, T>(inputs, segments, heads, y)
            }
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512Bf16, true) => attention::<micro::avx512::Bf16, T>(inputs, segments, heads, y),
            #[cfg(target_arch = "x86_64")]
            (Isa::Amx, true) => attention::<micro::amx::Bf16, T>(inputs, segments, heads, y),
            #[cfg(not(target_arch = "x86_64"))]
            _ => candle_core::bail!("no kernels for {isa} on this processor"),
        })
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_instructions_has_its_kernel_for_each_format() {
        let expected = [
            (Isa::Portable, ["PortableF32", "PortableRounded", "PortableInt8"]),
            (Isa::Avx2, ["Avx2F32", "Avx2Rounded", "Avx2Int8"]),
            (Isa::Avx512, ["Avx512F32", "Avx512Rounded", "Avx2Int8"]),
            (Isa::Avx512Vnni, ["Avx512F32", "Avx512Rounded", "Avx512Int8"]),
            (Isa::Avx512Bf16, ["Avx512F32", "Avx512Bf16", "Avx512Int8"]),
            (Isa::Amx, ["Avx512F32", "AmxBf16", "AmxInt8"]),
        ];
        assert_eq!(expected.map(|(isa, _)| isa), Isa::ALL);
        for (isa, names) in expected {
            for (format, name) in
                [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8].into_iter().zip(names)
            {
                let packed = Packed::new(&[1.0; 6], 2, 3, format, isa).expect("a weight");
                assert_eq!((packed.name(), packed.shape()), (name, (2, 3)), "{isa}, {format:?}");
            }
        }
    }

    #[test]
    fn every_kernel_has_a_peak() {
        for isa in Isa::ALL {
            for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
                let found = peak(format, isa, Duration::from_millis(1));
                assert_eq!(found.is_ok(), isa <= Isa::best(), "{isa}");
                assert!(found.is_err() || found.is_ok_and(|speed| speed > 1e6), "{isa} {format:?}");
            }
        }
    }

    #[test]
    fn sums_of_bytes_that_could_overflow_are_refused() {
        assert!(MOST_BYTES * 255 * 127 <= i32::MAX as usize);
        let weight = vec![1.0; MOST_BYTES + 1];
        let packed = |inner, format| PackedWeight::new(&weight[..inner], 1, inner, format, Isa::best());
        assert!(packed(MOST_BYTES, WeightFormat::Int8).is_ok());
        assert!(packed(MOST_BYTES + 1, WeightFormat::Int8).is_err());
        assert!(packed(MOST_BYTES + 1, WeightFormat::F32).is_ok());
        // The largest sum that there is.
        let finish = Finish { bias: None, activation: None, centre: None, residual: None };
        let packed = packed(MOST_BYTES, WeightFormat::Int8).unwrap();
        let CpuStorage::F32(y) = packed.forward::<f32>(&weight[..MOST_BYTES], 1, finish, false).unwrap()
        else {
            panic!("not f32")
        };
        assert!((y[0] / MOST_BYTES as f32 - 1.0).abs() < 1e-6, "{y:?}");
    }

    #[test]
    fn instructions_that_this_processor_lacks_are_refused() {
        for isa in Isa::ALL {
            let packed = PackedWeight::new(&[1.0; 6], 2, 3, WeightFormat::Bf16, isa);
            assert_eq!(packed.is_ok(), isa <= Isa::best(), "{isa}");
        }
    }
}
