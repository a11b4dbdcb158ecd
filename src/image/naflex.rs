//! The size that a NaFlex picture is brought to.

use crate::image::Grid;

/// Height and width in pixels, multiples of `patch`, that keep the shape of a picture of `height × width`
/// as well as at most `max_num_patches` whole patches allow. Small pictures grow (up to 100 times).
///
/// `get_image_size_for_max_num_patches` of transformers (`image_processing_siglip2.py`): a binary search
/// for the scale in f64, so that ties fall the same way.
#[must_use]
pub fn naflex_size(height: u32, width: u32, patch: usize, max_num_patches: usize) -> (u32, u32) {
    const EPSILON: f64 = 1e-5;
    let side = patch as f64;
    let scaled = |scale: f64, size: u32| ((f64::from(size) * scale / side).ceil() * side).max(side);
    let (mut low, mut high) = (EPSILON / 10.0, 100.0);
    while high - low >= EPSILON {
        let scale = (low + high) / 2.0;
        let patches = (scaled(scale, height) / side) * (scaled(scale, width) / side);
        if patches <= max_num_patches as f64 {
            low = scale;
        } else {
            high = scale;
        }
    }
    (scaled(low, height) as u32, scaled(low, width) as u32)
}

/// The patches of [`naflex_size`].
#[must_use]
pub fn naflex_grid(height: u32, width: u32, patch: usize, max_num_patches: usize) -> Grid {
    let (height, width) = naflex_size(height, width, patch, max_num_patches);
    Grid { rows: height as usize / patch, cols: width as usize / patch }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with transformers 5.23 for patches of 16 pixels and budgets of 256, 576 and 1024.
    #[test]
    fn sizes_are_those_of_transformers() {
        let golden = [
            ((480, 640), [(224, 288), (336, 432), (432, 576)]),
            ((224, 224), [(256, 256), (384, 384), (512, 512)]),
            ((224, 1024), [(112, 512), (176, 816), (240, 1088)]),
            ((2853, 1000), [(416, 144), (640, 224), (848, 304)]),
            ((1, 1), [(112, 112); 3]),
            ((1, 5000), [(16, 4096), (16, 9216), (16, 16384)]),
            ((33, 17), [(352, 176), (528, 272), (704, 368)]),
        ];
        for ((height, width), sizes) in golden {
            for (budget, size) in [256, 576, 1024].into_iter().zip(sizes) {
                assert_eq!(naflex_size(height, width, 16, budget), size, "{height} × {width}, {budget}");
            }
        }
    }

    #[test]
    fn never_more_patches_than_allowed() {
        for (height, width) in [(1, 1), (1, 65_535), (65_535, 1), (65_535, 65_535), (7, 4001)] {
            for budget in [1, 2, 3, 17, 256, 4096] {
                let grid = naflex_grid(height, width, 16, budget);
                assert!((1..=budget).contains(&grid.len()), "{height} × {width}, {budget}: {grid:?}");
            }
        }
    }
}
