//! bf16 on processors without its instructions: values are rounded to bf16 as they are packed and
//! multiplied in f32, which is exact, as those instructions do. It is for comparing, not for speed.

use half::bf16;

use super::{Micro, Operand, round_bf16, widen_bf16};
use crate::ops::cpu::buffer::Plain;

/// An f32 kernel with its operands rounded to bf16.
#[derive(Debug, Clone, Copy)]
pub struct Rounded<M>(std::marker::PhantomData<M>);

/// An f32 that is a bf16.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct RoundedF32(f32);

// SAFETY: it is an f32, of which any bits are one.
unsafe impl Plain for RoundedF32 {}

impl Operand for RoundedF32 {
    #[inline(always)]
    fn of_f32(x: f32) -> Self {
        Self(widen_bf16(round_bf16(x)))
    }

    #[inline(always)]
    fn of_bf16(x: bf16) -> Self {
        Self(widen_bf16(x))
    }
}

impl<M: Micro<A = f32, B = f32, C = f32>> Micro for Rounded<M> {
    type A = RoundedF32;
    type B = RoundedF32;
    type C = f32;
    const ROWS: usize = M::ROWS;
    const COLUMNS: usize = M::COLUMNS;
    const A_UNIT: usize = M::A_UNIT;
    const B_UNIT: usize = M::B_UNIT;
    const STEP: usize = M::STEP;
    const RUN: usize = M::RUN;

    unsafe fn product(
        a: *const RoundedF32,
        b: *const RoundedF32,
        steps: usize,
        c: *mut f32,
        stride: usize,
        add: bool,
    ) {
        // SAFETY: what the caller promises of this kernel holds for the other; the operands lie as f32.
        unsafe { M::product(a.cast(), b.cast(), steps, c, stride, add) }
    }
}
