//! Vectors that are nearly the same, in groups.

use rayon::prelude::*;

use super::Vectors;
use crate::bulk::fault::{Fault, Kind};
use crate::ops::Products;

/// Vectors of a block: every block is multiplied with every other.
const BLOCK: usize = 2048;

/// A vector that has others like it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duplicate {
    /// Its group, from 0, in the order of the first vector of each.
    pub group: usize,
    /// Which vector.
    pub row: usize,
    /// Its highest cosine with another one.
    pub cosine: f32,
}

/// Vectors whose cosine with another is at least `least`; two are in one group if there is a chain of such pairs between
/// them. Groups in the order of their first vector. `progress` is told the share that is done.
///
/// # Errors
/// If they cannot be multiplied.
pub fn duplicates(vectors: &Vectors, least: f32, progress: impl FnMut(f64)) -> Result<Vec<Duplicate>, Fault> {
    in_blocks(vectors, least, BLOCK, progress)
}

fn in_blocks(
    vectors: &Vectors,
    least: f32,
    size: usize,
    mut progress: impl FnMut(f64),
) -> Result<Vec<Duplicate>, Fault> {
    let (rows, width) = (vectors.len(), vectors.width);
    let mut groups = Groups::new(rows);
    let mut nearest = vec![f32::NEG_INFINITY; rows];
    let wrong = |error: &dyn std::fmt::Display| Fault::new(Kind::Input, error.to_string());
    let blocks: Vec<&[f32]> = vectors.values.chunks(size * width.max(1)).collect();
    let all = (blocks.len() * (blocks.len() + 1) / 2).max(1);
    let mut done = 0;
    for (i, block) in blocks.iter().enumerate() {
        let products = Products::new(block, width).map_err(|error| wrong(&error))?;
        let own = block.len() / width;
        for (j, other) in blocks.iter().enumerate().skip(i) {
            let cosines = products.with(other).map_err(|error| wrong(&error))?;
            let pairs: Vec<(usize, usize, f32)> = cosines
                .par_chunks_exact(own)
                .enumerate()
                .flat_map_iter(|(b, cosines)| {
                    let b = j * size + b;
                    let near = move |&(_, &cosine): &(usize, &f32)| cosine >= least;
                    let pair = move |(a, &cosine): (usize, &f32)| (i * size + a, b, cosine);
                    // Each pair once.
                    cosines.iter().enumerate().filter(near).map(pair).filter(|&(a, b, _)| a < b)
                })
                .collect();
            for (a, b, cosine) in pairs {
                groups.join(a, b);
                nearest[a] = nearest[a].max(cosine);
                nearest[b] = nearest[b].max(cosine);
            }
            done += 1;
            progress(done as f64 / all as f64);
        }
    }
    Ok(groups.list(&nearest))
}

/// Disjoint sets: each row points to an earlier one of its group, the first to itself.
struct Groups(Vec<u32>);

impl Groups {
    fn new(rows: usize) -> Self {
        Self((0..u32::try_from(rows).unwrap_or(u32::MAX)).collect())
    }

    fn first(&mut self, row: usize) -> usize {
        let mut row = row as u32;
        while self.0[row as usize] != row {
            let above = self.0[self.0[row as usize] as usize];
            self.0[row as usize] = above;
            row = above;
        }
        row as usize
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.first(a), self.first(b));
        self.0[a.max(b)] = a.min(b) as u32;
    }

    /// The rows that are not alone, group by group.
    fn list(mut self, nearest: &[f32]) -> Vec<Duplicate> {
        let mut members: Vec<(usize, usize)> = (0..nearest.len())
            .filter(|&row| nearest[row] > f32::NEG_INFINITY)
            .map(|row| (self.first(row), row))
            .collect();
        members.sort_unstable();
        let mut list: Vec<Duplicate> = Vec::with_capacity(members.len());
        let mut last = None;
        for (first, row) in members {
            let group = match list.last() {
                None => 0,
                Some(duplicate) => duplicate.group + usize::from(last != Some(first)),
            };
            last = Some(first);
            list.push(Duplicate { group, row, cosine: nearest[row] });
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_near_vectors_are_groups_over_blocks() {
        // Angles in degrees: 0, 5 and 10 are a chain of steps of 5; 90 and 92 are near; 180 is alone.
        let angles = [0.0f32, 90.0, 5.0, 180.0, 92.0, 10.0];
        let (block, rows) = (4, 14);
        let places = [0, 1, 4, 6, 11, 13];
        // All others have a direction of their own.
        let width = 2 + rows;
        let mut values = vec![0.0; rows * width];
        values.chunks_mut(width).enumerate().for_each(|(row, vector)| vector[2 + row] = 1.0);
        for (place, angle) in places.into_iter().zip(angles) {
            let vector = &mut values[place * width..][..width];
            vector.fill(0.0);
            (vector[0], vector[1]) = (angle.to_radians().cos(), angle.to_radians().sin());
        }
        let names = (0..rows).map(|row| row.to_string()).collect();
        let vectors = Vectors { values, width, names, ..Vectors::default() };
        let mut told = 0.0;
        let found = in_blocks(&vectors, 6f32.to_radians().cos(), block, |share| told = share).unwrap();
        let groups: Vec<(usize, usize)> = found.iter().map(|found| (found.group, found.row)).collect();
        assert_eq!(groups, [(0, places[0]), (0, places[2]), (0, places[5]), (1, places[1]), (1, places[4])]);
        assert!((found[1].cosine - 5f32.to_radians().cos()).abs() < 1e-6);
        assert!((told - 1.0).abs() < 1e-9);
        assert!(duplicates(&Vectors::default(), 0.9, |_| {}).unwrap().is_empty());
    }
}
