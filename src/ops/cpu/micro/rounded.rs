//! bf16 on processors without its instructions: values are rounded to bf16 as they are packed and
//! multiplied in f32, which is exact, as those instructions do. It is for comparing, not for speed.

use half::bf16;

use super::{Float, Micro, round_bf16};

/// An f32 kernel with its operands rounded to bf16.
#[derive(Debug, Clone, Copy)]
pub struct Rounded<M>(std::marker::PhantomData<M>);

impl<M: Float<A = f32, B = f32>> Micro for Rounded<M> {
    type A = f32;
    type B = f32;
    type C = f32;
    const ROWS: usize = M::ROWS;
    const COLUMNS: usize = M::COLUMNS;
    const A_UNIT: usize = M::A_UNIT;
    const B_UNIT: usize = M::B_UNIT;
    const STEP: usize = M::STEP;
    const BLOCK_BYTES: usize = M::BLOCK_BYTES;

    unsafe fn product(a: *const f32, b: *const f32, steps: usize, c: *mut f32, stride: usize) {
        // SAFETY: what the caller promises of this kernel holds for the other.
        unsafe { M::product(a, b, steps, c, stride) }
    }
}

impl<M: Float<A = f32, B = f32>> Float for Rounded<M> {
    #[inline(always)]
    fn a(x: f32) -> f32 {
        round_bf16(x).to_f32()
    }

    #[inline(always)]
    fn a_of_bf16(x: bf16) -> f32 {
        M::a_of_bf16(x)
    }

    #[inline(always)]
    fn b(x: f32) -> f32 {
        round_bf16(x).to_f32()
    }
}
