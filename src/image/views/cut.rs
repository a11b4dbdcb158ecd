//! Taking the views of a picture.

use super::cover::{Frame, Region};
use super::{Area, Cover, PixelBox, ViewMethod, ViewOptions, Views};
use crate::image::decode::{ImageInfo, decode_reduced};
use crate::image::preprocess::centre;
use crate::image::{
    Geometry, Grid, ImageError, ImageOptions, Patches, Picture, Preprocessor, Resample, resize,
};

impl Preprocessor {
    /// The views of a picture of this upright height and width.
    ///
    /// # Errors
    /// What is wrong with the options, or [`ImageError::Views`].
    pub fn cover(
        &self,
        source: (u32, u32),
        options: &ImageOptions,
        views: &ViewOptions,
    ) -> Result<Cover, ImageError> {
        self.check(options)?;
        Cover::new(self.frame(source, options), views)
    }

    /// Patches of each view of a cover, in its order.
    #[must_use]
    pub fn view_tokens(&self, cover: &Cover, options: &ImageOptions, views: &ViewOptions) -> Vec<usize> {
        if views.method == ViewMethod::Values {
            return vec![cover.grid().len()];
        }
        let of = |area: Area| match (views.method, self.spec().geometry) {
            (ViewMethod::Windows | ViewMethod::Values, _) => area.rows * area.cols,
            (ViewMethod::Crops, Geometry::NaFlex { .. }) => {
                let PixelBox { width, height, .. } = cover.pixels(area);
                self.frame((height, width), options).grid.len()
            }
            (ViewMethod::Crops, Geometry::Squash { .. } | Geometry::Crop { .. }) => cover.grid().len(),
        };
        cover.areas().map(of).collect()
    }

    /// Bytes that taking views holds beside the decoded picture: the resized one or a crop, and the preview.
    #[must_use]
    pub fn view_bytes(&self, info: &ImageInfo, options: &ImageOptions, views: &ViewOptions) -> usize {
        let source = (info.height, info.width);
        let (height, width) = self.target(source, options);
        let bytes =
            |height: u32, width: u32| (height as usize).saturating_mul(width as usize).saturating_mul(3);
        let crop = match views.method {
            ViewMethod::Windows | ViewMethod::Values => 0,
            ViewMethod::Crops => bytes(info.height, info.width),
        };
        let preview = views.preview.map_or(0, |side| bytes(side, side));
        bytes(height, width).saturating_mul(2).saturating_add(crop).saturating_add(preview)
    }

    /// The views of an encoded picture, which is decoded once. Stops with `None` as soon as `cancelled` says so; it is asked
    /// after the picture is decoded and before each crop, since hundreds of them may take seconds.
    ///
    /// # Errors
    /// What is wrong with the picture or with the options.
    pub fn views_from_bytes(
        &self,
        bytes: &[u8],
        options: &ImageOptions,
        views: &ViewOptions,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Views>, ImageError> {
        self.check(options)?;
        let (picture, source) = decode_reduced(bytes, self.limits(), |info| match views.method {
            ViewMethod::Windows | ViewMethod::Values => self.reduction(info, options),
            ViewMethod::Crops => 1,
        })?;
        if cancelled() {
            return Ok(None);
        }
        let cover = self.cover(source, options, views)?;
        let preview = views.preview.map(|side| shrunk(&picture, side));
        let patches = match views.method {
            ViewMethod::Values => vec![self.cut(&picture, source, options)?],
            ViewMethod::Windows => {
                let whole = self.cut(&picture, source, options)?;
                cover.areas().map(|area| window(&whole, area)).collect()
            }
            ViewMethod::Crops => {
                let mut crops = Vec::with_capacity(cover.len());
                for area in cover.areas() {
                    if cancelled() {
                        return Ok(None);
                    }
                    let part = crop(&picture, cover.pixels(area))?;
                    crops.push(self.cut(&part, (part.height(), part.width()), options)?);
                }
                crops
            }
        };
        Ok(Some(Views { patches, cover, preview }))
    }

    /// How the patches of a picture of this upright height and width lie over it.
    fn frame(&self, source: (u32, u32), options: &ImageOptions) -> Frame {
        let patch = self.spec().patch;
        let (height, width) = self.target(source, options);
        // What a side of the resized picture shows, and where it begins.
        let (tall, wide, top, left) = match self.spec().geometry {
            Geometry::Crop { side } => (side, side, centre(height, side), centre(width, side)),
            Geometry::Squash { .. } | Geometry::NaFlex { .. } => (height, width, 0, 0),
        };
        let grid = Grid { rows: (tall as usize / patch).max(1), cols: (wide as usize / patch).max(1) };
        let (down, across) = (scale(source.0, height), scale(source.1, width));
        let region = Region {
            x: f64::from(left) * across,
            y: f64::from(top) * down,
            width: (grid.cols * patch) as f64 * across,
            height: (grid.rows * patch) as f64 * down,
        };
        Frame { grid, source, region }
    }
}

/// Pixels of the picture for one of the resized picture.
fn scale(source: u32, resized: u32) -> f64 {
    f64::from(source) / f64::from(resized.max(1))
}

/// Some patches of a picture, as a picture.
fn window(whole: &Patches, area: Area) -> Patches {
    let patch = whole.pixels.len() / whole.grid.len().max(1);
    let mut pixels = Vec::with_capacity(area.rows * area.cols * patch);
    for row in area.top..area.top + area.rows {
        let start = (row * whole.grid.cols + area.left) * patch;
        pixels.extend_from_slice(&whole.pixels[start..start + area.cols * patch]);
    }
    Patches { pixels, grid: Grid { rows: area.rows, cols: area.cols }, source: whole.source }
}

fn crop(picture: &Picture, part: PixelBox) -> Result<Picture, ImageError> {
    let row = picture.width() as usize * 3;
    let (left, width) = (part.x as usize * 3, part.width as usize * 3);
    let rows = picture.pixels().chunks_exact(row).skip(part.y as usize).take(part.height as usize);
    let mut pixels = Vec::with_capacity(width * part.height as usize);
    rows.for_each(|row| pixels.extend_from_slice(&row[left..left + width]));
    Picture::new(part.width, part.height, pixels)
}

/// A copy whose longer side has at most `side` pixels.
fn shrunk(picture: &Picture, side: u32) -> Picture {
    let longer = picture.width().max(picture.height());
    let scaled = |length: u32| match longer <= side {
        true => length,
        false => (f64::from(length) * f64::from(side) / f64::from(longer)).round().max(1.0) as u32,
    };
    resize(picture, scaled(picture.width()), scaled(picture.height()), Resample::Bilinear)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::patchify::patchify;
    use crate::image::{ImageLimits, ImageSpec};

    fn spec(geometry: Geometry, patch: usize) -> ImageSpec {
        ImageSpec {
            geometry,
            resample: Resample::Bilinear,
            patch,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        }
    }

    /// A PNG whose pixels are all different.
    fn png(width: u32, height: u32) -> (Vec<u8>, Picture) {
        let pixels: Vec<u8> =
            (0..width * height).flat_map(|i| [i as u8, (i >> 8) as u8, (i * 7) as u8]).collect();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        (bytes, Picture::new(width, height, pixels).unwrap())
    }

    fn views_of(
        preprocessor: &Preprocessor,
        bytes: &[u8],
        options: &ImageOptions,
        views: &ViewOptions,
    ) -> Views {
        preprocessor.views_from_bytes(bytes, options, views, &|| false).unwrap().expect("nobody cancels")
    }

    #[test]
    fn whoever_goes_away_leaves_the_rest_of_the_crops_uncut() {
        let geometry = Geometry::Squash { height: 12, width: 12 };
        let preprocessor = Preprocessor::new(spec(geometry, 4), ImageLimits::default()).unwrap();
        let (bytes, _) = png(40, 30);
        for (method, asked_at_most) in [(ViewMethod::Crops, 3), (ViewMethod::Windows, 1)] {
            let views = ViewOptions { method, ..ViewOptions::default() };
            let asked = std::cell::Cell::new(0);
            let cancelled = || asked.replace(asked.get() + 1) + 1 == asked_at_most;
            let found = preprocessor.views_from_bytes(&bytes, &ImageOptions::default(), &views, &cancelled);
            assert!(found.unwrap().is_none());
            assert_eq!(asked.get(), asked_at_most, "nothing is done once it was said");
        }
    }

    #[test]
    fn a_window_is_the_patches_of_its_pixels() {
        let preprocessor =
            Preprocessor::new(spec(Geometry::Squash { height: 24, width: 24 }, 4), ImageLimits::default())
                .unwrap();
        let (bytes, picture) = png(24, 24);
        let views = ViewOptions { side: Some(2), preview: Some(12), ..ViewOptions::default() };
        let found = views_of(&preprocessor, &bytes, &ImageOptions::default(), &views);
        assert_eq!(found.cover.len(), found.patches.len());
        for (area, patches) in found.cover.areas().zip(&found.patches) {
            let part = crop(&picture, found.cover.pixels(area)).unwrap();
            assert_eq!(*patches, patchify(&part, 4, (24, 24)), "{area:?}");
        }
        let preview = found.preview.unwrap();
        assert_eq!((preview.width(), preview.height()), (12, 12));
    }

    #[test]
    fn a_crop_is_prepared_as_a_picture_of_its_pixels() {
        for geometry in [Geometry::Squash { height: 12, width: 12 }, Geometry::NaFlex { max_num_patches: 12 }]
        {
            let preprocessor = Preprocessor::new(spec(geometry, 4), ImageLimits::default()).unwrap();
            let (bytes, picture) = png(40, 30);
            let views = ViewOptions { method: ViewMethod::Crops, ..ViewOptions::default() };
            let options = ImageOptions::default();
            let found = views_of(&preprocessor, &bytes, &options, &views);
            assert!(found.cover.len() > 1 && found.preview.is_none());
            for (area, patches) in found.cover.areas().zip(&found.patches) {
                let part = crop(&picture, found.cover.pixels(area)).unwrap();
                assert_eq!(
                    *patches,
                    preprocessor.from_rgb(&part, &options).unwrap(),
                    "{geometry:?} {area:?}"
                );
            }
        }
    }

    #[test]
    fn the_grid_lies_over_what_the_tower_sees() {
        let region = |geometry, patch, source| {
            let preprocessor = Preprocessor::new(spec(geometry, patch), ImageLimits::default()).unwrap();
            let Frame { grid, region, .. } = preprocessor.frame(source, &ImageOptions::default());
            let Region { x, y, width, height } = region;
            ((grid.rows, grid.cols), [x, y, width, height].map(|x| x.round() as i64))
        };
        // 27 patches of 14 pixels are 378 of 384: the rest of the picture is not seen.
        let squash = Geometry::Squash { height: 384, width: 384 };
        assert_eq!(region(squash, 14, (768, 384)), ((27, 27), [0, 0, 378, 756]));
        let crop = Geometry::Crop { side: 224 };
        assert_eq!(region(crop, 16, (448, 896)), ((14, 14), [224, 0, 448, 448]));
        let naflex = Geometry::NaFlex { max_num_patches: 256 };
        assert_eq!(region(naflex, 16, (480, 640)), ((14, 18), [0, 0, 640, 480]));
    }

    #[test]
    fn shapes_and_budgets_of_naflex_and_the_crops_of_a_line() {
        let naflex = spec(Geometry::NaFlex { max_num_patches: 64 }, 4);
        let preprocessor = Preprocessor::new(naflex, ImageLimits::default()).unwrap();
        for (width, height) in [(1, 1), (1, 300), (300, 1), (37, 20)] {
            let (bytes, _) = png(width, height);
            for method in [ViewMethod::Windows, ViewMethod::Crops] {
                let views = ViewOptions { method, budget: Some(32), ..ViewOptions::default() };
                for max_num_patches in [None, Some(9)] {
                    let options = ImageOptions { max_num_patches };
                    let found = views_of(&preprocessor, &bytes, &options, &views);
                    let tokens: Vec<usize> = found.patches.iter().map(|p| p.grid.len()).collect();
                    assert_eq!(
                        tokens,
                        preprocessor.view_tokens(&found.cover, &options, &views),
                        "{width} × {height}"
                    );
                    assert!(tokens.iter().all(|&tokens| tokens <= max_num_patches.unwrap_or(64)));
                    assert_eq!(found.cover.source(), (height, width));
                }
            }
        }
    }
}
