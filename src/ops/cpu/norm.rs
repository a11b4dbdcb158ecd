//! Layer normalisation of many rows.

use rayon::prelude::*;

use super::math;
use super::panels::Element;

/// `x` is `[rows, width]` with the width of `weight` and `bias`; so is the result.
pub fn layer_norm<T: Element>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<T> {
    let width = weight.len();
    let rows = x.len().checked_div(width).unwrap_or(0);
    let mut values = Vec::with_capacity(rows * width);
    if rows > 0 {
        let y = &mut values.spare_capacity_mut()[..rows * width];
        // A row is too little work for a task of its own.
        let task = 16 * width;
        y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                math::layer_norm_row(x, weight, bias, eps, y);
            }
        });
        // SAFETY: every row was written.
        unsafe { values.set_len(rows * width) };
    }
    values
}
