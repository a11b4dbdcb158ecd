//! One constant query attending to the tokens of each item: too little work to pack anything.

use rayon::prelude::*;

use super::math;
use super::panels::Element;
use crate::ops::Segments;

/// `query` `[width]`, `kv` `[rows, 2 · width]` → the pooled values `[items, width]` and, for each item, the attention of
/// each head `[heads, tokens]`.
pub fn probe<T: Element>(
    query: &[f32],
    kv: &[T],
    segments: &Segments,
    heads: usize,
) -> (Vec<f32>, Vec<Vec<f32>>) {
    let width = query.len();
    let head_dim = width / heads;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut pooled = vec![0.0f32; segments.len() * width];
    let mut maps: Vec<Vec<f32>> = segments.iter().map(|rows| vec![0.0; heads * rows.len()]).collect();
    let items: Vec<_> = segments.iter().collect();
    pooled.par_chunks_mut(width).zip(&mut maps).zip(items).for_each(|((pooled, map), rows)| {
        let tokens = rows.len();
        let kv = &kv[rows.start * 2 * width..rows.end * 2 * width];
        for head in 0..heads {
            let at = head * head_dim;
            let query = &query[at..at + head_dim];
            let weights = &mut map[head * tokens..][..tokens];
            for (weight, row) in weights.iter_mut().zip(kv.chunks_exact(2 * width)) {
                *weight = math::dot(query, &row[at..at + head_dim]);
            }
            let inverse = math::softmax_weights(weights, scale);
            let pooled = &mut pooled[at..at + head_dim];
            for (weight, row) in weights.iter_mut().zip(kv.chunks_exact(2 * width)) {
                *weight *= inverse;
                math::add_scaled(&row[width + at..][..head_dim], *weight, pooled);
            }
        }
    });
    (pooled, maps)
}
