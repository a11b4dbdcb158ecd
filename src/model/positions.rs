//! Learned position embeddings, resized to the grid of a picture.

use std::collections::VecDeque;
use std::sync::Mutex;

use candle_core::{Device, Tensor};

use super::PositionResize;
use super::error::Result;
use crate::image::Grid;
use crate::ops::Numerics;

/// Resized tables are kept up to this many bytes.
const CACHE_BYTES: usize = 64 << 20;

/// The position table of an image tower and its resized copies.
pub(super) struct Positions {
    /// `[grid.len(), width]`, f32 on the CPU.
    table: Tensor,
    grid: Grid,
    resize: PositionResize,
    numerics: Numerics,
    /// Tables by grid, the latest used at the back.
    cache: Mutex<VecDeque<(Grid, Tensor)>>,
}

impl Positions {
    pub(super) fn new(table: Tensor, grid: Grid, resize: PositionResize, numerics: &Numerics) -> Self {
        Self { table, grid, resize, numerics: numerics.clone(), cache: Mutex::default() }
    }

    /// The table of a grid, `[grid.len(), width]`.
    pub(super) fn for_grid(&self, grid: Grid) -> Result<Tensor> {
        // A poisoned lock only means that another thread panicked between two whole operations.
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = cache.iter().position(|(g, _)| *g == grid)
            && let Some(entry) = cache.remove(at)
        {
            let table = entry.1.clone();
            cache.push_back(entry);
            return Ok(table);
        }
        let table = if grid == self.grid {
            self.table.clone()
        } else {
            let width = self.table.dim(1)?;
            let values = self.table.flatten_all()?.to_vec1::<f32>()?;
            let values = resize_table(&values, self.grid, width, grid, self.resize);
            Tensor::from_vec(values, (grid.len(), width), &Device::Cpu)?
        };
        let table = self.numerics.place(&table)?;
        cache.push_back((grid, table.clone()));
        let row = self.table.dim(1)? * self.numerics.dtype().size_in_bytes();
        while cache.len() > 1 && cache.iter().map(|(g, _)| g.len() * row).sum::<usize>() > CACHE_BYTES {
            cache.pop_front();
        }
        Ok(table)
    }
}

/// Resizes a table `[from.len(), width]` to `[to.len(), width]`, as
/// `torch.nn.functional.interpolate(align_corners=False)` does in the mode of `resize`.
pub fn resize_table(table: &[f32], from: Grid, width: usize, to: Grid, resize: PositionResize) -> Vec<f32> {
    let vertical = taps(from.rows, to.rows, resize);
    let horizontal = taps(from.cols, to.cols, resize);
    let mut rows = vec![0.0f32; from.rows * to.cols * width];
    for y in 0..from.rows {
        for (x, taps) in horizontal.iter().enumerate() {
            let out = &mut rows[(y * to.cols + x) * width..][..width];
            for &(column, weight) in taps {
                accumulate(out, &table[(y * from.cols + column) * width..][..width], weight);
            }
        }
    }
    let mut result = vec![0.0f32; to.len() * width];
    for (y, taps) in vertical.iter().enumerate() {
        for x in 0..to.cols {
            let out = &mut result[(y * to.cols + x) * width..][..width];
            for &(row, weight) in taps {
                accumulate(out, &rows[(row * to.cols + x) * width..][..width], weight);
            }
        }
    }
    result
}

fn accumulate(out: &mut [f32], values: &[f32], weight: f32) {
    for (o, v) in out.iter_mut().zip(values) {
        *o += v * weight;
    }
}

/// For each output coordinate, the input coordinates that it is a weighted sum of.
///
/// Source: PyTorch, `aten/src/ATen/native/cpu/UpSampleKernel.cpp` (`HelperInterpCubic` with
/// a = −0.75 and clamped borders; `_compute_index_ranges_weights` of the antialiased linear filter).
fn taps(from: usize, to: usize, resize: PositionResize) -> Vec<Vec<(usize, f32)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| match resize {
            PositionResize::Bicubic => {
                let position = scale * (i as f64 + 0.5) - 0.5;
                let base = position.floor();
                let t = position - base;
                let weight = |offset: i64| {
                    let at = (base as i64 + offset).clamp(0, from as i64 - 1) as usize;
                    (at, cubic((t - offset as f64).abs()) as f32)
                };
                (-1..=2).map(weight).collect()
            }
            PositionResize::BilinearAntialias => {
                let support = scale.max(1.0);
                let center = scale * (i as f64 + 0.5);
                let first = (center - support + 0.5).max(0.0) as usize;
                let last = ((center + support + 0.5) as usize).min(from);
                let weights: Vec<f64> = (first..last)
                    .map(|j| (1.0 - ((j as f64 - center + 0.5) / support).abs()).max(0.0))
                    .collect();
                let sum: f64 = weights.iter().sum();
                weights.iter().enumerate().map(|(k, w)| (first + k, (w / sum) as f32)).collect()
            }
        })
        .collect()
}

/// Keys' cubic convolution kernel with a = −0.75, at a distance of 0 to 2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is resized below: `torch.arange(12.).reshape(1, 1, 3, 4) ** 2`.
    fn squares() -> Vec<f32> {
        (0..12).map(|i| (i * i) as f32).collect()
    }

    const FROM: Grid = Grid { rows: 3, cols: 4 };

    #[test]
    fn as_pytorch_interpolates() {
        use PositionResize::{Bicubic, BilinearAntialias};
        // torch.nn.functional.interpolate of PyTorch 2.15, align_corners=False.
        let cases: [(PositionResize, (usize, usize), &[f32]); 4] = [
            (
                Bicubic,
                (5, 2),
                &[-1.6292, 3.2533, 3.9978, 16.0903, 19.4688, 43.5312, 52.2198, 88.2523, 75.6388, 118.8813],
            ),
            (
                Bicubic,
                (2, 5),
                &[1.7837, 3.263, 6.3594, 11.3218, 15.928, 52.7478, 62.9146, 77.5156, 93.9827, 107.2765],
            ),
            (
                BilinearAntialias,
                (5, 2),
                &[1.0, 5.7143, 9.6857, 19.4286, 22.7143, 40.0, 54.9429, 79.7714, 76.4286, 106.2857],
            ),
            (
                BilinearAntialias,
                (2, 6),
                &[6.0, 8.0, 11.0, 15.0, 20.0, 24.0, 46.0, 53.0, 62.6667, 73.3333, 85.0, 94.0],
            ),
        ];
        for (resize, (rows, cols), expected) in cases {
            let found = resize_table(&squares(), FROM, 1, Grid { rows, cols }, resize);
            let worst = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
            assert!(found.len() == expected.len() && worst < 1e-3, "{resize:?} {rows} × {cols}: {found:?}");
        }
    }

    #[test]
    fn every_output_is_an_average() {
        for resize in [PositionResize::Bicubic, PositionResize::BilinearAntialias] {
            for (from, to) in [(16, 1), (16, 16), (16, 37), (1, 5), (7, 3)] {
                for taps in taps(from, to, resize) {
                    assert!((taps.iter().map(|t| t.1).sum::<f32>() - 1.0).abs() < 1e-5);
                    assert!(taps.iter().all(|t| t.0 < from));
                }
            }
        }
    }

    #[test]
    fn the_same_grid_gives_the_same_table() {
        for resize in [PositionResize::Bicubic, PositionResize::BilinearAntialias] {
            assert_eq!(resize_table(&squares(), FROM, 1, FROM, resize), squares());
        }
    }
}
