//! Attention over segments: the scores of one panel of queries and one head fit the cache and are never written to
//! memory as a whole.

use candle_core::Result;
use rayon::prelude::*;

use super::buffer::with_scratch;
use super::kernel::Session;
use super::linear::Output;
use super::math;
use super::micro::{Float, Micro};
use super::panels::{Element, Matrix, a_panel, b_panel, pack_a, pack_b, pack_b_transposed, steps};
use crate::ops::Segments;

/// `qkv` `[rows, 3 · width]` → `[rows, width]`; see [`crate::ops::attention()`].
///
/// # Errors
/// If `qkv` does not hold the rows of `segments`.
///
/// # Safety
/// The processor must have the kernel's instructions, and `y` must point to `rows · width` values that nothing else uses
/// meanwhile.
pub unsafe fn attention<M: Float, T: Element>(
    qkv: &[T],
    width: usize,
    segments: &Segments,
    heads: usize,
    y: Output,
) -> Result<()> {
    let rows = segments.rows();
    if qkv.len() != rows * 3 * width || heads == 0 || !width.is_multiple_of(heads) {
        candle_core::bail!("attention: {} values for {rows} rows, {heads} heads, width {width}", qkv.len());
    }
    let head_dim = width / heads;
    if head_dim == 0 {
        return Ok(());
    }
    // One task: some panels of queries of one head of one item. Keys and values are packed for each task again, so that
    // there are more tasks than heads only where there are too few heads for the threads.
    let enough = 3 * rayon::current_num_threads();
    let parts = enough.div_ceil((segments.len() * heads).max(1));
    let mut tasks = Vec::new();
    for segment in segments.iter() {
        let panels = segment.len().div_ceil(M::ROWS);
        let share = panels.div_ceil(parts).max(1);
        for head in 0..heads {
            for first in (0..panels).step_by(share) {
                tasks.push((segment.clone(), head, first..panels.min(first + share)));
            }
        }
    }
    tasks.into_par_iter().for_each(|(segment, head, panels)| {
        let head = Head { qkv, width, head_dim, head, first: segment.start, keys: segment.len(), y };
        // SAFETY: the caller promises the instructions and the result, and a task's queries and head are its own.
        unsafe { head.attend::<M>(panels) }
    });
    Ok(())
}

/// One head of one item.
struct Head<'a, T> {
    qkv: &'a [T],
    width: usize,
    head_dim: usize,
    head: usize,
    /// The item's first row.
    first: usize,
    keys: usize,
    y: Output,
}

impl<T: Element> Head<'_, T> {
    /// The queries (0), keys (1) or values (2), `[keys, head_dim]`.
    fn part(&self, part: usize) -> Matrix<'_, T> {
        let stride = 3 * self.width;
        let at = self.first * stride + part * self.width + self.head * self.head_dim;
        Matrix { data: &self.qkv[at..], stride, columns: self.head_dim }
    }

    /// # Safety
    /// As [`attention`], for the rows of these panels of queries.
    unsafe fn attend<M: Float>(&self, panels: std::ops::Range<usize>) {
        let Self { keys, head_dim, .. } = *self;
        let (key_panels, value_panels) = (keys.div_ceil(M::COLUMNS), head_dim.div_ceil(M::COLUMNS));
        let (key_size, value_size) = (b_panel::<M>(head_dim), b_panel::<M>(keys));
        let (score_row, result_row) = (key_panels * M::COLUMNS, value_panels * M::COLUMNS);
        let scale = 1.0 / (head_dim as f32).sqrt();
        with_scratch::<M::B, _>(key_panels * key_size + value_panels * value_size, |packed| {
            let (k, v) = packed.split_at_mut(key_panels * key_size);
            pack_b_transposed::<M, T>(self.part(1), keys, k);
            pack_b::<M, T>(self.part(2), keys, v);
            let (query_size, weight_size) = (a_panel::<M>(head_dim), a_panel::<M>(keys));
            with_scratch::<M::A, _>(query_size + weight_size, |packed| {
                let (query, weights) = packed.split_at_mut(query_size);
                with_scratch::<f32, _>(M::ROWS * (score_row + result_row), |sums| {
                    let (scores, result) = sums.split_at_mut(M::ROWS * score_row);
                    // SAFETY: the caller promises the instructions.
                    let _session = unsafe { Session::<M>::new() };
                    for panel in panels {
                        let first = panel * M::ROWS;
                        let count = M::ROWS.min(keys - first);
                        pack_a::<M, T>(self.part(0), first, count, query);
                        for (i, k) in k.chunks_exact(key_size).enumerate() {
                            // SAFETY: the instructions are promised and the session is open; the operands are one
                            // panel each, those of B on 64 bytes as scratch and their sizes are, and `scores` holds
                            // `ROWS` rows of all panels' columns.
                            unsafe {
                                let to = scores.as_mut_ptr().add(i * M::COLUMNS);
                                M::product(query.as_ptr(), k.as_ptr(), steps::<M>(head_dim), to, score_row);
                            }
                        }
                        let mut inverses = [0.0f32; 64];
                        let inverses = &mut inverses[..count];
                        for (row, inverse) in scores.chunks_exact_mut(score_row).zip(&mut *inverses) {
                            *inverse = math::softmax_weights(&mut row[..keys], scale);
                        }
                        let attended = Matrix { data: &*scores, stride: score_row, columns: keys };
                        pack_a::<M, f32>(attended, 0, count, weights);
                        for (i, v) in v.chunks_exact(value_size).enumerate() {
                            // SAFETY: as above, with `result`.
                            unsafe {
                                let to = result.as_mut_ptr().add(i * M::COLUMNS);
                                M::product(weights.as_ptr(), v.as_ptr(), steps::<M>(keys), to, result_row);
                            }
                        }
                        let at = (self.first + first) * self.width + self.head * head_dim;
                        // SAFETY: these rows and columns lie within the result, and are this task's own.
                        unsafe { self.write(result, result_row, inverses, at) };
                    }
                });
            });
        });
    }

    /// Writes rows of the result, each times a number of its own, from `at` on.
    ///
    /// # Safety
    /// The rows must lie within the result, and nothing else may use them meanwhile.
    unsafe fn write(&self, result: &[f32], stride: usize, factors: &[f32], at: usize) {
        for (i, (row, factor)) in result.chunks_exact(stride).zip(factors).enumerate() {
            let at = at + i * self.width;
            // SAFETY: the caller promises these values.
            unsafe {
                match self.y {
                    Output::F32(y) => math::scaled(&row[..self.head_dim], *factor, y.add(at)),
                    Output::Bf16(y) => math::scaled(&row[..self.head_dim], *factor, y.add(at)),
                }
            }
        }
    }
}

/// Rows of a panel never are more than there is room for their sums.
const _: () = {
    assert!(<super::micro::portable::F32 as Micro>::ROWS <= 64);
    #[cfg(target_arch = "x86_64")]
    assert!(<super::micro::amx::Bf16 as Micro>::ROWS <= 64);
};
