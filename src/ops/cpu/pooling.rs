//! One constant query attending to the tokens of each item, with its projections of keys and values folded into it: too
//! little work to pack anything.

use rayon::prelude::*;

use super::math;
use super::panels::Element;
use crate::ops::Segments;

/// Heads whose scores are computed together, so that a token is read once for all of them.
const TOGETHER: usize = 4;

/// What the probe knows before it sees a token.
#[derive(Debug, Clone)]
pub struct Folded {
    /// `[heads, width]`: a token's score is its product with these, which hold the query and the projection of keys.
    keys: Vec<f32>,
    /// `[width, width]`: the projection of values.
    values: Vec<f32>,
    /// `[width]`: of the values.
    bias: Vec<f32>,
    heads: usize,
}

impl Folded {
    /// From the projected `query` `[width]` and the projection of keys and values, `weight` `[2 · width, width]` and `bias`
    /// `[2 · width]`.
    ///
    /// With `q` the query of a head and `W`, `b` the projection of its keys, a score is `q·(W x + b) = (Wᵀ q)·x + q·b`. The
    /// last term is the same for every token, and so without effect on the softmax. Since a softmax sums to 1, the pooled
    /// value is the projection of the pooled token.
    ///
    /// # Errors
    /// If the slices do not have these shapes, or the width is not a multiple of `heads`.
    pub fn new(query: &[f32], weight: &[f32], bias: &[f32], heads: usize) -> candle_core::Result<Self> {
        let width = query.len();
        if heads == 0
            || width == 0
            || !width.is_multiple_of(heads)
            || weight.len() != 2 * width * width
            || bias.len() != 2 * width
        {
            candle_core::bail!("a probe of {width} values, {heads} heads, a projection of {}", weight.len());
        }
        let head_dim = width / heads;
        let (keys, values) = weight.split_at(width * width);
        let folded = query.chunks_exact(head_dim).zip(keys.chunks_exact(head_dim * width));
        let folded = folded.flat_map(|(query, keys)| {
            let mut sums = vec![0.0f64; width];
            for (query, row) in query.iter().zip(keys.chunks_exact(width)) {
                for (sum, key) in sums.iter_mut().zip(row) {
                    *sum += f64::from(*query) * f64::from(*key);
                }
            }
            sums.into_iter().map(|sum| sum as f32)
        });
        Ok(Self { keys: folded.collect(), values: values.to_vec(), bias: bias[width..].to_vec(), heads })
    }

    /// Width of the tokens.
    pub fn width(&self) -> usize {
        self.bias.len()
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// `tokens` `[rows, width]` → the pooled values `[items, width]` and, for each item, the attention of each head
    /// `[heads, tokens]`.
    ///
    /// # Errors
    /// If there are not as many tokens as the segments have rows.
    pub fn pool<T: Element>(
        &self,
        tokens: &[T],
        segments: &Segments,
    ) -> candle_core::Result<(Vec<f32>, Vec<Vec<f32>>)> {
        let width = self.width();
        if tokens.len() != segments.rows() * width {
            candle_core::bail!("{} values of tokens for {} rows of {width}", tokens.len(), segments.rows());
        }
        let group = TOGETHER * (width / self.heads);
        let mut pooled = vec![0.0f32; segments.len() * width];
        let mut maps: Vec<Vec<f32>> =
            segments.iter().map(|rows| vec![0.0; self.heads * rows.len()]).collect();
        let mut tasks = Vec::new();
        for ((pooled, map), rows) in pooled.chunks_exact_mut(width).zip(&mut maps).zip(segments.iter()) {
            let maps = map.chunks_mut((TOGETHER * rows.len()).max(1));
            for (i, (pooled, map)) in pooled.chunks_mut(group).zip(maps).enumerate() {
                tasks.push((i * TOGETHER, pooled, map, &tokens[rows.start * width..rows.end * width]));
            }
        }
        tasks.into_par_iter().with_max_len(1).for_each(|(first, pooled, maps, tokens)| {
            self.pool_heads(first, tokens, maps, pooled);
        });
        Ok((pooled, maps))
    }

    /// A few heads of one item from `first` on: `maps` `[heads, tokens]` and `pooled` `[heads, head_dim]`.
    fn pool_heads<T: Element>(&self, first: usize, tokens: &[T], maps: &mut [f32], pooled: &mut [f32]) {
        let (width, count) = (self.width(), tokens.len() / self.width());
        let head_dim = width / self.heads;
        let keys = &self.keys[first * width..];
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (i, token) in tokens.chunks_exact(width).enumerate() {
            for (map, key) in maps.chunks_exact_mut(count).zip(keys.chunks_exact(width)) {
                map[i] = math::dot(key, token);
            }
        }
        let mut sums = vec![0.0f32; width];
        for (j, (map, pooled)) in
            maps.chunks_exact_mut(count).zip(pooled.chunks_exact_mut(head_dim)).enumerate()
        {
            let inverse = math::softmax_weights(map, scale);
            for weight in &mut *map {
                *weight *= inverse;
            }
            sums.fill(0.0);
            for (weight, token) in map.iter().zip(tokens.chunks_exact(width)) {
                math::add_scaled(token, *weight, &mut sums);
            }
            let column = (first + j) * head_dim;
            let values = self.values[column * width..].chunks_exact(width);
            for ((pooled, value), bias) in pooled.iter_mut().zip(values).zip(&self.bias[column..]) {
                *pooled = math::dot(value, &sums) + bias;
            }
        }
    }
}
