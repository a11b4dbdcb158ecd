//! A picture cut into patches.

use super::{Patches, Picture};
use crate::image::Grid;

/// Cuts `picture` into whole patches of `patch × patch` pixels, row by row, each in (y, x, channel) order.
/// What is left over on the right and at the bottom is dropped, as a convolution without padding does
/// (384 pixels hold 27 patches of 14, and 6 pixels are not seen).
///
/// `source` is the height and width before the resize.
#[must_use]
pub fn patchify(picture: &Picture, patch: usize, source: (u32, u32)) -> Patches {
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let grid = Grid { rows: height / patch, cols: width / patch };
    let run = patch * 3;
    let mut pixels = Vec::with_capacity(grid.len() * patch * run);
    for top in 0..grid.rows {
        for left in 0..grid.cols {
            for y in 0..patch {
                let start = ((top * patch + y) * width + left * patch) * 3;
                pixels.extend_from_slice(&picture.pixels()[start..start + run]);
            }
        }
    }
    Patches { pixels, grid, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_in_yxc_order_and_the_rest_is_dropped() {
        // 5 × 5 pixels whose bytes count up: patches of 2 leave one row and one column over.
        let picture = Picture::new(5, 5, (0..75).collect()).unwrap();
        let patches = patchify(&picture, 2, (50, 50));
        assert_eq!(patches.grid, Grid { rows: 2, cols: 2 });
        assert_eq!(patches.source, (50, 50));
        assert_eq!(patches.pixels[..12], [0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20]);
        assert_eq!(patches.pixels[12..24], [6, 7, 8, 9, 10, 11, 21, 22, 23, 24, 25, 26]);
        assert_eq!(patches.pixels[24..36], [30, 31, 32, 33, 34, 35, 45, 46, 47, 48, 49, 50]);
        assert_eq!(patches.pixels.len(), 4 * 12);
    }
}
