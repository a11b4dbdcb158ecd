//! The vectors that are nearest to some others.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::Vectors;
use crate::bulk::fault::{Fault, Kind};
use crate::model::scores::l2_normalize;
use crate::ops::Products;

/// Products that are held at once.
const BLOCK: usize = 1 << 20;
/// Vectors that are multiplied at once, at most.
const ROWS: usize = 16_384;

/// A vector that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Which.
    pub row: usize,
    /// Its cosine with what was asked for.
    pub cosine: f32,
}

impl Eq for Hit {}

impl Ord for Hit {
    /// Worse ones are greater: the worst is on top of a heap. Of equals the first is better.
    fn cmp(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The `top_k` vectors nearest to each of `queries`, `[queries, width]`, best first; none below `least`.
///
/// # Errors
/// If the queries have another width.
pub fn search(vectors: &Vectors, queries: &[f32], top_k: usize, least: f32) -> Result<Vec<Vec<Hit>>, Fault> {
    let width = vectors.width;
    if vectors.is_empty() || queries.is_empty() {
        return Ok(vec![Vec::new(); queries.len() / width.max(1)]);
    }
    let mut queries = queries.to_vec();
    queries.chunks_mut(width).for_each(l2_normalize);
    let wrong = |error: &dyn std::fmt::Display| Fault::new(Kind::Input, error.to_string());
    let products = Products::new(&queries, width).map_err(|error| wrong(&error))?;
    let count = queries.len() / width;
    let mut best: Vec<BinaryHeap<Hit>> = (0..count).map(|_| BinaryHeap::with_capacity(top_k + 1)).collect();
    let rows = (BLOCK / count).clamp(1, ROWS);
    for (block, values) in vectors.values.chunks(rows * width).enumerate() {
        let cosines = products.with(values).map_err(|error| wrong(&error))?;
        best.par_iter_mut().enumerate().for_each(|(query, best)| {
            for (i, &cosine) in cosines[query..].iter().step_by(count).enumerate() {
                let full = best.len() == top_k;
                let enough =
                    cosine >= least && (!full || best.peek().is_some_and(|worst| cosine > worst.cosine));
                if enough && top_k > 0 {
                    if full {
                        best.pop();
                    }
                    best.push(Hit { row: block * rows + i, cosine });
                }
            }
        });
    }
    Ok(best.into_iter().map(BinaryHeap::into_sorted_vec).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_found_in_every_block() {
        let (width, rows) = (8, 40_000);
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut vectors = Vectors {
            values: (0..rows * width).map(|_| random()).collect(),
            width,
            names: (0..rows).map(|row| row.to_string()).collect(),
            ..Vectors::default()
        };
        vectors.normalize();
        let queries: Vec<f32> = (0..3 * width).map(|_| random()).collect();
        let found = search(&vectors, &queries, 5, -1.0).unwrap();
        for (query, hits) in queries.chunks(width).zip(&found) {
            let mut query = query.to_vec();
            l2_normalize(&mut query);
            let mut all: Vec<(f32, usize)> = vectors
                .values
                .chunks(width)
                .enumerate()
                .map(|(row, vector)| (vector.iter().zip(&query).map(|(a, b)| a * b).sum(), row))
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            assert_eq!(hits.len(), 5);
            for (hit, (cosine, _)) in hits.iter().zip(&all) {
                assert!((hit.cosine - cosine).abs() < 1e-5, "{hit:?} {cosine}");
            }
            assert!(all[..8].iter().any(|&(_, row)| row == hits[0].row));
        }
        assert!(search(&vectors, &queries, 5, 1.1).unwrap().iter().all(Vec::is_empty));
        assert_eq!(search(&vectors, &vectors.values[..width], 1, -1.0).unwrap()[0][0].row, 0);
        assert!(search(&vectors, &queries, 0, -1.0).unwrap().iter().all(Vec::is_empty));
    }
}
