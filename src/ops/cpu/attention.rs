//! Attention over segments in blocks of queries: the scores of one block and head fit the cache and
//! are never written to memory as a whole.

use candle_core::Result;
use gemm::Parallelism;
use rayon::prelude::*;

use super::math;
use crate::ops::Segments;

/// Queries whose scores are computed at a time.
const QUERIES: usize = 64;

/// `qkv` `[rows, 3 · width]` → `[rows, width]`; see [`crate::ops::attention()`].
///
/// # Errors
/// If `qkv` does not hold the rows of `segments`.
pub fn attention(qkv: &[f32], width: usize, segments: &Segments, heads: usize) -> Result<Vec<f32>> {
    let rows = segments.rows();
    if qkv.len() != rows * 3 * width || heads == 0 || !width.is_multiple_of(heads) {
        candle_core::bail!("attention: {} values for {rows} rows, {heads} heads, width {width}", qkv.len());
    }
    let head_dim = width / heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut y = vec![0.0f32; rows * width];
    // One task: a block of queries of one item, all heads. It owns its rows of the result.
    let mut tasks = Vec::new();
    let mut rest = &mut y[..];
    for segment in segments.iter() {
        let mut first = segment.start;
        while first < segment.end {
            let count = QUERIES.min(segment.end - first);
            let (part, tail) = rest.split_at_mut(count * width);
            tasks.push((segment.clone(), first, part));
            rest = tail;
            first += count;
        }
    }
    tasks.into_par_iter().for_each_init(Vec::new, |scores: &mut Vec<f32>, (segment, first, y)| {
        let keys = segment.len();
        let queries = y.len() / width;
        scores.resize(queries * keys, 0.0);
        let stride = 3 * width;
        let (q, kv) = (
            &qkv[first * stride..(first + queries) * stride],
            &qkv[segment.start * stride..segment.end * stride],
        );
        for head in 0..heads {
            let at = head * head_dim;
            block_product(
                Matrix { data: &q[at..], row: stride, column: 1 },
                Matrix { data: &kv[width + at..], row: 1, column: stride },
                scores,
                keys,
                (queries, keys, head_dim),
            );
            let mut inverses = [0.0f32; QUERIES];
            for (row, inverse) in scores.chunks_exact_mut(keys).zip(&mut inverses) {
                *inverse = math::softmax_weights(row, scale);
            }
            block_product(
                Matrix { data: scores, row: keys, column: 1 },
                Matrix { data: &kv[2 * width + at..], row: stride, column: 1 },
                &mut y[at..],
                width,
                (queries, head_dim, keys),
            );
            for (row, inverse) in y.chunks_mut(width).zip(inverses) {
                math::scale(&mut row[at..at + head_dim], inverse);
            }
        }
    });
    Ok(y)
}

/// A matrix inside a slice.
struct Matrix<'a> {
    data: &'a [f32],
    /// Elements from one row to the next.
    row: usize,
    /// Elements from one column to the next.
    column: usize,
}

impl Matrix<'_> {
    /// Elements from the first to just past the last of `rows` × `columns`.
    fn reach(&self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// `y` (rows `y_row` apart) = `a` · `b`, of `(rows, columns, inner)`.
fn block_product(
    a: Matrix<'_>,
    b: Matrix<'_>,
    y: &mut [f32],
    y_row: usize,
    (rows, columns, inner): (usize, usize, usize),
) {
    assert!(rows > 0 && columns > 0 && inner > 0);
    assert!(a.reach(rows, inner) <= a.data.len() && b.reach(inner, columns) <= b.data.len());
    assert!(y_row >= columns && (rows - 1) * y_row + columns <= y.len());
    // SAFETY: every element that the sizes and strides reach lies within its slice (asserted above),
    // and `y` is borrowed mutably, so that it overlaps neither input.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            y.as_mut_ptr(),
            1,
            y_row as isize,
            false,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
