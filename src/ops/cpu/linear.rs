//! Matrix product with bias, activation or residual applied while the result is in the cache.

use candle_core::{Result, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::math;
use crate::model::Activation;

/// Rows of one task: enough to pay for packing the weights again.
const ROWS: usize = 96;

/// The transpose of an f32 matrix on the CPU, contiguous.
///
/// # Errors
/// If it is not such a matrix.
pub fn transposed(matrix: &Tensor) -> Result<Tensor> {
    /// Rows and columns of a block: both its sides fit the cache.
    const BLOCK: usize = 32;
    let (rows, columns) = matrix.dims2()?;
    let (storage, layout) = matrix.storage_and_layout();
    let values = super::tensor_slice(&storage, layout)?;
    let mut turned = vec![0.0f32; values.len()];
    if values.is_empty() {
        return Tensor::from_vec(turned, (columns, rows), matrix.device());
    }
    turned.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(block, turned)| {
        let first = block * BLOCK;
        for top in (0..rows).step_by(BLOCK) {
            for (j, row) in turned.chunks_exact_mut(rows).enumerate() {
                for (i, value) in row[top..rows.min(top + BLOCK)].iter_mut().enumerate() {
                    *value = values[(top + i) * columns + first + j];
                }
            }
        }
    });
    Tensor::from_vec(turned, (columns, rows), matrix.device())
}

/// `x` `[rows, in]` times `weight` `[in, out]` → `[rows, out]`.
///
/// # Errors
/// If the slices do not have these shapes.
pub fn linear(
    x: &[f32],
    rows: usize,
    weight: &[f32],
    out: usize,
    bias: Option<&[f32]>,
    activation: Option<Activation>,
    residual: Option<&[f32]>,
) -> Result<Vec<f32>> {
    let inner = weight.len().checked_div(out).unwrap_or(0);
    if x.len() != rows * inner
        || weight.len() != out * inner
        || bias.is_some_and(|b| b.len() != out)
        || residual.is_some_and(|r| r.len() != rows * out)
    {
        candle_core::bail!(
            "linear: {} inputs and {} weights do not fit {rows} rows and {out} columns",
            x.len(),
            weight.len()
        );
    }
    let mut y = vec![0.0f32; rows * out];
    if y.is_empty() || inner == 0 {
        return Ok(y);
    }
    let threads = rayon::current_num_threads();
    let block = rows.div_ceil(threads).clamp(ROWS.min(rows), 512);
    // With fewer row blocks than threads, each block's product is itself spread over the threads.
    let parallelism =
        if rows.div_ceil(block) < threads { Parallelism::Rayon(threads) } else { Parallelism::None };
    y.par_chunks_mut(block * out).enumerate().for_each(|(i, y)| {
        let first = i * block;
        let count = y.len() / out;
        let x = &x[first * inner..(first + count) * inner];
        product(y, x, weight, count, out, inner, parallelism);
        for (j, row) in y.chunks_exact_mut(out).enumerate() {
            math::bias_activation(row, bias, activation);
            if let Some(residual) = residual {
                math::add(row, &residual[(first + j) * out..][..out]);
            }
        }
    });
    Ok(y)
}

/// `y` `[rows, out]` = `x` `[rows, inner]` · `weight` `[inner, out]`, all row-major and contiguous.
fn product(
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    rows: usize,
    out: usize,
    inner: usize,
    parallelism: Parallelism,
) {
    assert!(y.len() == rows * out && x.len() == rows * inner && weight.len() == out * inner);
    // SAFETY: the three slices hold exactly the elements that the sizes and strides reach (asserted
    // above), and `y` is borrowed mutably, so that it overlaps neither input.
    unsafe {
        gemm::gemm(
            rows,
            out,
            inner,
            y.as_mut_ptr(),
            1,
            out as isize,
            false,
            x.as_ptr(),
            1,
            inner as isize,
            weight.as_ptr(),
            1,
            out as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
