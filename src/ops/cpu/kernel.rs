//! What linear layers need of a kernel, whatever its numbers.

use super::math::{Direct, Scaled, Sums};
use super::micro::{self, Micro};
use super::panels::{Element, Matrix, Panels, pack_a};
use super::quantize::{Quantum, quantize_a};

/// A kernel with its way of packing activations and of reading its sums.
pub trait Kernel: Micro {
    /// Packs `count` rows of `x` from `first` into one panel of A.
    fn pack<T: Element>(
        x: Matrix<'_, T>,
        first: usize,
        count: usize,
        panel: &mut [Self::A],
        quanta: &mut [Quantum],
    );

    /// Sums that can be read as numbers.
    type Sums<'a>: Sums;

    /// The sums of one block, whose columns begin at `first_column` of the weight, as numbers.
    fn sums<'a>(
        sums: &'a [Self::C],
        quanta: &'a [Quantum],
        weight: &'a Panels<Self>,
        first_column: usize,
    ) -> Self::Sums<'a>;
}

macro_rules! float {
    ($($kernel:ty),+) => {$(
        impl Kernel for $kernel {
            fn pack<T: Element>(
                x: Matrix<'_, T>,
                first: usize,
                count: usize,
                panel: &mut [Self::A],
                _: &mut [Quantum],
            ) {
                pack_a::<Self, T>(x, first, count, panel);
            }

            type Sums<'a> = Direct<'a>;

            fn sums<'a>(sums: &'a [f32], _: &'a [Quantum], _: &'a Panels<Self>, _: usize) -> Direct<'a> {
                Direct { sums, columns: Self::COLUMNS }
            }
        }
    )+};
}

macro_rules! quantized {
    ($($kernel:ty),+) => {$(
        impl Kernel for $kernel {
            fn pack<T: Element>(
                x: Matrix<'_, T>,
                first: usize,
                count: usize,
                panel: &mut [Self::A],
                quanta: &mut [Quantum],
            ) {
                quantize_a::<Self, T>(x, first, count, panel, quanta);
            }

            type Sums<'a> = Scaled<'a>;

            fn sums<'a>(
                sums: &'a [i32],
                quanta: &'a [Quantum],
                weight: &'a Panels<Self>,
                first_column: usize,
            ) -> Scaled<'a> {
                let columns = first_column..first_column + Self::COLUMNS;
                Scaled {
                    sums,
                    rows: &quanta[..Self::ROWS],
                    scales: &weight.scales[columns.clone()],
                    columns: &weight.sums[columns],
                }
            }
        }
    )+};
}

float!(micro::portable::F32, micro::rounded::Rounded<micro::portable::F32>);
quantized!(micro::portable::Int8);
#[cfg(target_arch = "x86_64")]
float!(
    micro::avx2::F32,
    micro::rounded::Rounded<micro::avx2::F32>,
    micro::avx512::F32,
    micro::rounded::Rounded<micro::avx512::F32>,
    micro::avx512::Bf16,
    micro::amx::Bf16
);
#[cfg(target_arch = "x86_64")]
quantized!(
    micro::avx2::Int8,
    micro::avx_vnni::Int8,
    micro::avx512::PairsInt8,
    micro::avx512::Int8,
    micro::amx::Int8
);
#[cfg(target_arch = "aarch64")]
float!(micro::neon::F32, micro::rounded::Rounded<micro::neon::F32>, micro::neon::Bf16);
#[cfg(target_arch = "aarch64")]
quantized!(micro::neon::Int8, micro::neon::DotProdInt8, micro::neon::I8mmInt8);

/// Between [`Micro::enter`] and [`Micro::leave`], which it calls.
pub struct Session<M: Micro>(std::marker::PhantomData<*const M>);

impl<M: Micro> Session<M> {
    /// Begins.
    ///
    /// # Safety
    /// The processor must have the kernel's instructions.
    pub unsafe fn new() -> Self {
        // SAFETY: the caller promises the instructions.
        unsafe { M::enter() };
        Self(std::marker::PhantomData)
    }
}

impl<M: Micro> Drop for Session<M> {
    fn drop(&mut self) {
        // SAFETY: `new` entered, on this thread: the marker keeps the value from being sent.
        unsafe { M::leave() };
    }
}
