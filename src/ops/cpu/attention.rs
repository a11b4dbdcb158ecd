//! Attention over segments: the scores of one panel of queries and one head fit the cache and are never written to
//! memory as a whole.
//!
//! Both products are computed transposed, with the queries as columns: `S' [keys, queries] = K · Q'`, then
//! `O' [head_dim, queries] = V' · softmax(S')`. So a softmax runs down the columns, many at once without sums across a
//! register, and what it leaves lies as the second product wants it.

use std::ops::Range;

use candle_core::Result;
use rayon::prelude::*;

use super::buffer::{same_type, with_scratch};
use super::kernel::Session;
use super::linear::Output;
use super::math;
use super::micro::{Float, Micro};
use super::panels::{
    Element, Matrix, a_panel, b_panel, pack_a, pack_a_transposed, pack_b, pack_b_transposed, steps,
};
use crate::ops::Segments;

/// Columns of a kernel's panels at most.
const MAX_COLUMNS: usize = 64;

/// Queries, keys and values, each `[rows, width]` with its heads side by side.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T> {
    queries: Matrix<'a, T>,
    keys: Matrix<'a, T>,
    values: Matrix<'a, T>,
    /// Whether an item has one query, rather than one for each of its rows.
    one_query: bool,
}

impl<'a, T> Inputs<'a, T> {
    /// Every row attends: `qkv` is `[rows, 3 · width]`.
    ///
    /// # Errors
    /// If `qkv` does not hold the rows of `segments`.
    pub fn every_row(qkv: &'a [T], width: usize, segments: &Segments) -> Result<Self> {
        if width == 0 || qkv.len() != segments.rows() * 3 * width {
            candle_core::bail!("attention: {} values for {} rows, width {width}", qkv.len(), segments.rows());
        }
        let part = |i: usize| Matrix {
            data: qkv.get(i * width..).unwrap_or(&[]),
            stride: 3 * width,
            columns: width,
        };
        Ok(Self { queries: part(0), keys: part(1), values: part(2), one_query: false })
    }

    /// One query of each item attends: `queries` is `[items, width]`, `kv` `[rows, 2 · width]`.
    ///
    /// # Errors
    /// If they do not hold the items and the rows of `segments`.
    pub fn one_query(queries: &'a [T], kv: &'a [T], width: usize, segments: &Segments) -> Result<Self> {
        if width == 0 || queries.len() != segments.len() * width || kv.len() != segments.rows() * 2 * width {
            candle_core::bail!(
                "attention: {} and {} values for {} items of {} rows, width {width}",
                queries.len(),
                kv.len(),
                segments.len(),
                segments.rows()
            );
        }
        let part =
            |i: usize| Matrix { data: kv.get(i * width..).unwrap_or(&[]), stride: 2 * width, columns: width };
        let queries = Matrix { data: queries, stride: width, columns: width };
        Ok(Self { queries, keys: part(0), values: part(1), one_query: true })
    }

    /// Multiplications of both products.
    pub fn multiplications(&self, segments: &Segments) -> usize {
        let queries = |rows: &Range<usize>| if self.one_query { 1 } else { rows.len() };
        segments.iter().map(|rows| 2 * queries(&rows) * rows.len() * self.queries.columns).sum()
    }

    /// Number of values of the result.
    pub fn results(&self, segments: &Segments) -> usize {
        (if self.one_query { segments.len() } else { segments.rows() }) * self.queries.columns
    }
}

/// Attention of the queries to the keys and values of their own item: one row of the width for each query; see
/// [`crate::ops::attention()`].
///
/// # Errors
/// If the width is not a multiple of `heads`.
///
/// # Safety
/// The processor must have the kernel's instructions, and `y` must point to [`Inputs::results`] values that
/// nothing else uses meanwhile.
pub unsafe fn attention<M: Float, T: Element>(
    inputs: Inputs<'_, T>,
    segments: &Segments,
    heads: usize,
    y: Output,
) -> Result<()> {
    let width = inputs.queries.columns;
    if heads == 0 || !width.is_multiple_of(heads) {
        candle_core::bail!("attention: {heads} heads, width {width}");
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
    for (item, segment) in segments.iter().enumerate() {
        let queries = if inputs.one_query { item..item + 1 } else { segment.clone() };
        let panels = queries.len().div_ceil(M::COLUMNS);
        let share = panels.div_ceil(parts).max(1);
        for head in 0..heads {
            for first in (0..panels).step_by(share) {
                let head =
                    Head { inputs, head, head_dim, keys: segment.clone(), queries: queries.clone(), y };
                tasks.push((head, first..panels.min(first + share)));
            }
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(head, panels)| {
        // SAFETY: the caller promises the instructions and the result, and a task's queries and head are its own.
        unsafe { head.attend::<M>(panels) }
    });
    Ok(())
}

/// One head of one item.
struct Head<'a, T> {
    inputs: Inputs<'a, T>,
    head: usize,
    head_dim: usize,
    /// Rows of the item's keys and values.
    keys: Range<usize>,
    /// Rows of its queries, and of the result.
    queries: Range<usize>,
    y: Output,
}

impl<T: Element> Head<'_, T> {
    /// This head's columns of queries, keys or values, from a row on.
    fn of<'b>(&self, all: Matrix<'b, T>, row: usize) -> Matrix<'b, T> {
        let at = row * all.stride + self.head * self.head_dim;
        Matrix { data: &all.data[at..], stride: all.stride, columns: self.head_dim }
    }

    /// # Safety
    /// As [`attention`], for the rows of these panels of queries.
    unsafe fn attend<M: Float>(&self, panels: Range<usize>) {
        let (keys, head_dim, width) = (self.keys.len(), self.head_dim, self.inputs.queries.columns);
        let (key_rows, values) =
            (self.of(self.inputs.keys, self.keys.start), self.of(self.inputs.values, self.keys.start));
        let (key_panels, value_panels) = (keys.div_ceil(M::ROWS), head_dim.div_ceil(M::ROWS));
        let (key_size, value_size) = (a_panel::<M>(head_dim), a_panel::<M>(keys));
        let (query_size, weight_size) = (b_panel::<M>(head_dim), b_panel::<M>(keys));
        let tile = M::ROWS * M::COLUMNS;
        let scale = 1.0 / (head_dim as f32).sqrt();
        with_scratch::<M::A, _>(key_panels * key_size + value_panels * value_size, |packed| {
            let (k, v) = packed.split_at_mut(key_panels * key_size);
            for (i, k) in k.chunks_exact_mut(key_size).enumerate() {
                let first = i * M::ROWS;
                pack_a::<M, T>(key_rows, first, M::ROWS.min(keys - first), k);
            }
            pack_a_transposed::<M, T>(values, keys, v);
            with_scratch::<M::B, _>(query_size + weight_size, |packed| {
                let (query, weights) = packed.split_at_mut(query_size);
                with_scratch::<f32, _>((key_panels + value_panels) * tile, |sums| {
                    let (scores, result) = sums.split_at_mut(key_panels * tile);
                    // SAFETY: the caller promises the instructions.
                    let _session = unsafe { Session::<M>::new() };
                    for panel in panels {
                        let first = panel * M::COLUMNS;
                        let count = M::COLUMNS.min(self.queries.len() - first);
                        let queries = self.of(self.inputs.queries, self.queries.start + first);
                        pack_b_transposed::<M, T>(queries, count, query);
                        // SAFETY: the instructions are promised and the session is open; each operand of A is one panel
                        // of its size, as those of B are, on 64 bytes as scratch and their sizes are; each result is a
                        // tile.
                        unsafe { products::<M>(k, query, steps::<M>(head_dim), scores) };
                        const { assert!(M::COLUMNS <= MAX_COLUMNS) };
                        let mut inverses = [0.0f32; MAX_COLUMNS];
                        let inverses = &mut inverses[..M::COLUMNS];
                        math::softmax_columns::<T>(&mut scores[..keys * M::COLUMNS], scale, inverses);
                        let attending = &scores[..keys * M::COLUMNS];
                        // Where B is f32 its panels lie as the weights do.
                        let weights = match same_type::<f32, M::B>(attending) {
                            Some(weights) if M::STEP == 1 => weights,
                            _ => {
                                let columns = M::COLUMNS;
                                let attending = Matrix { data: attending, stride: columns, columns };
                                pack_b::<M, f32>(attending, keys, weights);
                                &*weights
                            }
                        };
                        // SAFETY: as above; the scores are the first of their scratch.
                        unsafe { products::<M>(v, weights, steps::<M>(keys), result) };
                        let at = (self.queries.start + first) * width + self.head * head_dim;
                        let result = &result[..head_dim * M::COLUMNS];
                        // SAFETY: these rows and columns lie within the result, and are this task's own.
                        unsafe {
                            match self.y {
                                Output::F32(y) => math::transpose(result, inverses, count, y.add(at), width),
                                Output::Bf16(y) => math::transpose(result, inverses, count, y.add(at), width),
                            }
                        }
                    }
                });
            });
        });
    }
}

/// The product of each panel of `a` with one of B, one below another.
///
/// # Safety
/// As [`Micro::product`]: `a` must hold as many panels of so many steps as `c` has tiles.
unsafe fn products<M: Micro<C = f32>>(a: &[M::A], b: &[M::B], steps: usize, c: &mut [f32]) {
    let size = steps * M::STEP * M::ROWS;
    for (a, c) in a.chunks_exact(size).zip(c.chunks_exact_mut(M::ROWS * M::COLUMNS)) {
        // SAFETY: the caller promises it.
        unsafe { M::product(a.as_ptr(), b.as_ptr(), steps, c.as_mut_ptr(), M::COLUMNS, false) };
    }
}
