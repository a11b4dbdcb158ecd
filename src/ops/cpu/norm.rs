//! Layer normalisation of many rows.

use rayon::prelude::*;

use super::math;

/// `x` is `[rows, width]` with the width of `weight` and `bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let mut y = vec![0.0; x.len()];
    if width == 0 {
        return y;
    }
    // A row is too little work for a task of its own.
    let rows = 16;
    y.par_chunks_mut(rows * width).zip(x.par_chunks(rows * width)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            math::layer_norm_row(x, weight, bias, eps, y);
        }
    });
    y
}
