//! Where the views of a picture are, and from the values of views to those of patches.

use super::{MAX_VIEWS, ViewMethod, ViewOptions};
use crate::image::{Grid, ImageError};

/// Some neighbouring patches of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First row of patches.
    pub top: usize,
    /// First column of patches.
    pub left: usize,
    /// Rows of patches.
    pub rows: usize,
    /// Columns of patches.
    pub cols: usize,
}

/// A rectangle of pixels, within the picture and not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelBox {
    /// Pixels left of it.
    pub x: u32,
    /// Pixels above it.
    pub y: u32,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
}

/// The part of an upright picture that the grid of patches lies over, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::image) struct Region {
    pub(in crate::image) x: f64,
    pub(in crate::image) y: f64,
    pub(in crate::image) width: f64,
    pub(in crate::image) height: f64,
}

/// How the patches of a picture lie over it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::image) struct Frame {
    pub(in crate::image) grid: Grid,
    /// Height and width of the upright picture.
    pub(in crate::image) source: (u32, u32),
    pub(in crate::image) region: Region,
}

/// Areas of one or several sizes; those of each size cover the grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Cover {
    frame: Frame,
    /// The areas of each size.
    sizes: Vec<Vec<Area>>,
}

impl Cover {
    /// The views of a picture.
    ///
    /// # Errors
    /// [`ImageError::Views`] if its grid cannot be covered by so few views or tokens.
    pub(in crate::image) fn new(frame: Frame, options: &ViewOptions) -> Result<Self, ImageError> {
        let grid = frame.grid;
        if options.method == ViewMethod::Values {
            return Ok(Self { frame, sizes: vec![tile(grid, (1, 1), 1).collect()] });
        }
        let sizes = sizes(grid, options);
        let allowed = options.tokens(grid.len()) / sizes.len();
        let most = MAX_VIEWS / sizes.len();
        let cover = |&(rows, cols): &(usize, usize)| {
            let each = match options.method {
                ViewMethod::Windows => rows * cols,
                ViewMethod::Crops | ViewMethod::Values => grid.len(),
            };
            let areas = |stride: usize| tile(grid, (rows, cols), stride);
            let fits = |count: usize| count <= most && count.saturating_mul(each) <= allowed;
            // The finest stride that fits. With one above the side there would be patches in no view.
            let stride = (1..=rows.max(cols)).find(|&stride| fits(areas(stride).count()));
            stride.map(|stride| areas(stride).collect::<Vec<Area>>()).ok_or_else(|| {
                let views = areas(rows.max(cols)).count();
                let needed = views.saturating_mul(each);
                ImageError::Views { grid, rows, cols, views, needed, most, allowed }
            })
        };
        Ok(Self { frame, sizes: sizes.iter().map(cover).collect::<Result<_, _>>()? })
    }

    /// Rows and columns of the picture's patches.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.frame.grid
    }

    /// Height and width of the upright picture, in pixels.
    #[must_use]
    pub fn source(&self) -> (u32, u32) {
        self.frame.source
    }

    /// The part of the picture that the grid lies over.
    pub(in crate::image) fn region(&self) -> Region {
        self.frame.region
    }

    /// Every area.
    pub fn areas(&self) -> impl Iterator<Item = Area> {
        self.sizes.iter().flatten().copied()
    }

    /// Number of areas; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a cover has an area")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.sizes.iter().map(Vec::len).sum()
    }

    /// A value for each patch, `[patches]`, from one for each area, in their order: of each size the mean over the areas
    /// that a patch is in, then the mean over the sizes, in which a size weighs as much as its areas have patches: what is
    /// seen in less is less certain. Areas without a value count as 0.
    #[must_use]
    pub fn spread(&self, values: impl IntoIterator<Item = f32>) -> Vec<f32> {
        let mut values = values.into_iter();
        let grid = self.frame.grid;
        let mut map = vec![0.0f64; grid.len()];
        let weight = |areas: &[Area]| areas.first().map_or(0, |area| area.rows * area.cols) as f64;
        let all: f64 = self.sizes.iter().map(|areas| weight(areas)).sum();
        for areas in &self.sizes {
            let mut sums = vec![(0.0f64, 0u32); grid.len()];
            for area in areas {
                let value = f64::from(values.next().unwrap_or(0.0));
                for row in area.top..area.top + area.rows {
                    for (sum, count) in &mut sums[row * grid.cols + area.left..][..area.cols] {
                        *sum += value;
                        *count += 1;
                    }
                }
            }
            let share = weight(areas) / all;
            map.iter_mut()
                .zip(sums)
                .for_each(|(x, (sum, count))| *x += share * sum / f64::from(count.max(1)));
        }
        map.into_iter().map(|x| x as f32).collect()
    }

    /// The pixels of the upright picture that lie under an area, rounded outwards.
    #[must_use]
    pub fn pixels(&self, area: Area) -> PixelBox {
        self.frame.pixels(area)
    }
}

impl Frame {
    fn pixels(&self, area: Area) -> PixelBox {
        let Region { x, y, width, height } = self.region;
        let (left, right) = span(x, width, (area.left, area.cols), self.grid.cols, self.source.1);
        let (top, bottom) = span(y, height, (area.top, area.rows), self.grid.rows, self.source.0);
        PixelBox { x: left, y: top, width: right - left, height: bottom - top }
    }
}

/// First and last + 1 pixel under `length` of `cells` cells from `first` on, which lie over `size` pixels from `start` on; within
/// `limit` pixels, of which there is at least one.
fn span(start: f64, size: f64, (first, length): (usize, usize), cells: usize, limit: u32) -> (u32, u32) {
    let at = |cell: usize| start + size * cell as f64 / cells.max(1) as f64;
    // What is above a border by less than a rounding error lies on it.
    let from = ((at(first) + 1e-6).floor().max(0.0) as u32).min(limit.saturating_sub(1));
    let to = ((at(first + length) - 1e-6).ceil().max(0.0) as u32).clamp(from + 1, limit.max(from + 1));
    (from, to)
}

/// Rows and columns of each size of view.
fn sizes(grid: Grid, options: &ViewOptions) -> Vec<(usize, usize)> {
    let square = |side: usize| (side.clamp(1, grid.rows), side.clamp(1, grid.cols));
    let mut sizes = match (options.side, options.method) {
        (Some(side), _) => vec![square(side)],
        (None, ViewMethod::Crops) => vec![(grid.rows.div_ceil(2), grid.cols.div_ceil(2))],
        (None, ViewMethod::Windows | ViewMethod::Values) => {
            let side = (grid.len() as f64).sqrt();
            [2.0, 3.0].map(|part| square((side / part).round() as usize)).to_vec()
        }
    };
    sizes.dedup();
    sizes
}

/// Areas of `rows × cols` patches that cover a grid, from top left to bottom right: as far from each other as `stride` allows
/// at most, the last ones at the borders.
fn tile(grid: Grid, (rows, cols): (usize, usize), stride: usize) -> impl Iterator<Item = Area> {
    let tops = starts(grid.rows, rows, stride);
    let lefts = starts(grid.cols, cols, stride);
    tops.flat_map(move |top| lefts.clone().map(move |left| Area { top, left, rows, cols }))
}

/// Where parts of `size` begin that cover `length`, spread evenly.
fn starts(length: usize, size: usize, stride: usize) -> impl Iterator<Item = usize> + Clone {
    let last = length - size;
    let steps = last.div_ceil(stride.min(size).max(1));
    (0..=steps).map(move |i| (i * last).checked_div(steps).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: Region = Region { x: 0.0, y: 0.0, width: 100.0, height: 60.0 };

    fn cover(grid: Grid, options: &ViewOptions) -> Result<Cover, ImageError> {
        Cover::new(Frame { grid, source: (60, 100), region: WHOLE }, options)
    }

    #[test]
    fn the_embedded_models_grid() {
        let grid = Grid { rows: 6, cols: 6 };
        let windows = |side| ViewOptions { side: Some(side), ..ViewOptions::default() };
        assert_eq!(cover(grid, &windows(3)).unwrap().len(), 16);
        assert_eq!(cover(grid, &windows(99)).unwrap().len(), 1, "no larger than the picture");
        let crops = ViewOptions { method: ViewMethod::Crops, ..ViewOptions::default() };
        let found = cover(grid, &crops).unwrap();
        assert_eq!(found.len(), 16);
        let last = Area { top: 3, left: 3, rows: 3, cols: 3 };
        assert_eq!(found.areas().last(), Some(last));
        assert_eq!(found.pixels(last), PixelBox { x: 50, y: 30, width: 50, height: 30 });
        // Ten times the tokens of a picture are 360: at stride 2 there are nine crops.
        let fewer = ViewOptions { budget: Some(10), ..crops };
        assert_eq!(cover(grid, &fewer).unwrap().len(), 9);
        let error = cover(grid, &ViewOptions { budget: Some(3), ..crops }).unwrap_err().to_string();
        assert!(error.contains("at least 4 views") && error.contains("144 tokens"), "{error}");
        let error = cover(Grid { rows: 64, cols: 64 }, &windows(1)).unwrap_err().to_string();
        assert!(error.contains("at least 4096 views") && error.contains("at most 256"), "{error}");
    }

    proptest! {
        #[test]
        fn every_patch_is_the_mean_of_the_views_it_is_in(
            rows in 1usize..20, cols in 1usize..20, side in prop::option::of(1usize..9), budget in 1usize..12,
            crops: bool, seed: u64,
        ) {
            let grid = Grid { rows, cols };
            let method = if crops { ViewMethod::Crops } else { ViewMethod::Windows };
            let options = ViewOptions { method, side, budget: Some(budget), preview: None };
            let turned = cover(Grid { rows: cols, cols: rows }, &options);
            let Ok(cover) = cover(grid, &options) else {
                prop_assert!(turned.is_err(), "a picture on its side has as many views");
                return Ok(());
            };
            prop_assert_eq!(turned.unwrap().len(), cover.len());
            prop_assert!(cover.len() <= MAX_VIEWS);
            let tokens: usize = cover.areas().map(|a| if crops { grid.len() } else { a.rows * a.cols }).sum();
            prop_assert!(tokens <= budget * grid.len());
            let value = |i: usize| ((seed.wrapping_mul(i as u64 + 1) >> 40) % 1000) as f32 / 100.0;
            let map = cover.spread((0..cover.len()).map(value));
            for (at, found) in map.iter().enumerate() {
                let (row, col) = (at / cols, at % cols);
                let (mut expected, mut weights, mut first) = (0.0, 0.0, 0);
                for areas in &cover.sizes {
                    let within = areas.iter().enumerate().filter(|(_, a)| {
                        (a.top..a.top + a.rows).contains(&row) && (a.left..a.left + a.cols).contains(&col)
                    });
                    let values: Vec<f64> = within.map(|(i, _)| f64::from(value(first + i))).collect();
                    prop_assert!(!values.is_empty(), "a patch in no view");
                    let weight = (areas[0].rows * areas[0].cols) as f64;
                    expected += weight * values.iter().sum::<f64>() / values.len() as f64;
                    weights += weight;
                    first += areas.len();
                }
                prop_assert!((f64::from(*found) - expected / weights).abs() < 1e-4);
            }
        }

        #[test]
        fn pixels_are_within_the_picture(
            rows in 1usize..40, cols in 1usize..40, height in 1u32..90, width in 1u32..90, part in 0.0f64..0.4,
        ) {
            let grid = Grid { rows, cols };
            let (w, h) = (f64::from(width), f64::from(height));
            let region = Region { x: w * part, y: 0.0, width: w * (1.0 - 2.0 * part), height: h };
            let frame = Frame { grid, source: (height, width), region };
            for area in (0..grid.len()).map(|at| Area { top: at / cols, left: at % cols, rows: 1, cols: 1 }) {
                let found = frame.pixels(area);
                prop_assert!(found.width > 0 && found.height > 0);
                prop_assert!(found.x + found.width <= width && found.y + found.height <= height);
            }
        }
    }
}
