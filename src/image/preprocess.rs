//! Everything between a picture and the tower, for one checkpoint.

use super::decode::{ImageInfo, decode_reduced, probe};
use super::naflex::naflex_size;
use super::patchify::patchify;
use super::resize::resize;
use super::{Format, Geometry, ImageDecode, ImageError, ImageLimits, ImageSpec, Patches, Picture};

/// A picture whose longer side is this many shorter ones is not cropped: it would be resized to that first.
const LONGEST: u32 = 16;

/// What a request may choose about its picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// The most patches of a NaFlex picture; the checkpoint's own number where it is `None`.
    pub max_num_patches: Option<usize>,
}

/// Turns pictures into patches as one checkpoint wants them. Cheap to clone, shared freely by threads.
#[derive(Debug, Clone)]
pub struct Preprocessor {
    spec: ImageSpec,
    limits: ImageLimits,
    decoding: ImageDecode,
}

impl Preprocessor {
    /// A preprocessor for a checkpoint.
    ///
    /// # Errors
    /// [`ImageError::Specification`] for a specification that cannot give a single patch, or whose own patch budget
    /// is above [`ImageLimits::max_num_patches`].
    pub fn new(spec: ImageSpec, limits: ImageLimits) -> Result<Self, ImageError> {
        let refuse = |what: String| Err(ImageError::Specification(what));
        // The largest patch of any checkpoint is 32 pixels; sides of a target are bounded like a picture's.
        if !(1..=1024).contains(&spec.patch) {
            return refuse(format!("a patch of {} pixels: it must have 1 to 1024 pixels a side", spec.patch));
        }
        let fixed = |height: u32, width: u32| {
            let side = spec.patch as u32;
            if height.min(width) < side || height.max(width) > 16_384 {
                return Err(ImageError::Specification(format!(
                    "an image size of {height} × {width} pixels: each side must be between one patch ({side}) \
                     and 16384"
                )));
            }
            Ok(())
        };
        match spec.geometry {
            Geometry::Squash { height, width } => fixed(height, width)?,
            Geometry::Crop { side } => fixed(side, side)?,
            Geometry::NaFlex { max_num_patches } => {
                if !(1..=limits.max_num_patches).contains(&max_num_patches) {
                    return refuse(format!(
                        "a patch budget (max_num_patches) of {max_num_patches}: it must be between 1 and the \
                         limit of {}",
                        limits.max_num_patches
                    ));
                }
            }
        }
        Ok(Self { spec, limits, decoding: ImageDecode::Exact })
    }

    /// Decodes files in another way than exactly.
    #[must_use]
    pub fn with_decoding(self, decoding: ImageDecode) -> Self {
        Self { decoding, ..self }
    }

    /// The checkpoint's preprocessing.
    #[must_use]
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &ImageLimits {
        &self.limits
    }

    /// Reads the header only: format, size and the memory that decoding takes. Every limit is checked.
    ///
    /// # Errors
    /// What is wrong with the file, as far as its header shows.
    pub fn probe(&self, bytes: &[u8]) -> Result<ImageInfo, ImageError> {
        probe(bytes, &self.limits)
    }

    /// Checks the options of a request without a picture.
    ///
    /// # Errors
    /// [`ImageError::FixedResolution`] for a patch budget where none can be had, and
    /// [`ImageError::PatchBudget`] for one out of range.
    pub fn check(&self, options: &ImageOptions) -> Result<(), ImageError> {
        let Some(max_num_patches) = options.max_num_patches else { return Ok(()) };
        match self.spec.geometry {
            Geometry::Squash { height, width } => {
                Err(ImageError::FixedResolution { max_num_patches, height, width })
            }
            Geometry::Crop { side } => {
                Err(ImageError::FixedResolution { max_num_patches, height: side, width: side })
            }
            Geometry::NaFlex { .. } if !(1..=self.limits.max_num_patches).contains(&max_num_patches) => {
                Err(ImageError::PatchBudget { max_num_patches, limit: self.limits.max_num_patches })
            }
            Geometry::NaFlex { .. } => Ok(()),
        }
    }

    /// The patches of an encoded picture: decoded, turned upright, converted to RGB, resized and cut.
    ///
    /// # Errors
    /// What is wrong with the picture or with the options.
    pub fn from_bytes(&self, bytes: &[u8], options: &ImageOptions) -> Result<Patches, ImageError> {
        self.check(options)?;
        let (picture, source) = decode_reduced(bytes, &self.limits, |info| self.reduction(info, options))?;
        self.cut(&picture, source, options)
    }

    /// The patches of a picture that is decoded already.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn from_rgb(&self, picture: &Picture, options: &ImageOptions) -> Result<Patches, ImageError> {
        self.check(options)?;
        self.cut(picture, (picture.height(), picture.width()), options)
    }

    /// The patches of a picture that was `source` (height, width) before it was reduced.
    pub(super) fn cut(
        &self,
        picture: &Picture,
        source: (u32, u32),
        options: &ImageOptions,
    ) -> Result<Patches, ImageError> {
        let (height, width) = self.target(source, options);
        if let Geometry::Crop { side } = self.spec.geometry {
            if height.max(width) / side >= LONGEST {
                let (height, width) = source;
                return Err(ImageError::TooLongToCrop { width, height, limit: LONGEST });
            }
            let picture = crop(&resize(picture, width, height, self.spec.resample), side)?;
            return Ok(patchify(&picture, self.spec.patch, source));
        }
        let picture = resize(picture, width, height, self.spec.resample);
        Ok(patchify(&picture, self.spec.patch, source))
    }

    /// Height and width that a picture of `source` is brought to.
    pub(super) fn target(&self, source: (u32, u32), options: &ImageOptions) -> (u32, u32) {
        match self.spec.geometry {
            Geometry::Squash { height, width } => (height, width),
            // torchvision's `Resize` of one number.
            Geometry::Crop { side } => {
                let long = |short: u32, long: u32| {
                    u32::try_from(u64::from(side) * u64::from(long) / u64::from(short.max(1)))
                        .unwrap_or(u32::MAX)
                };
                match source {
                    (height, width) if width <= height => (long(width, height), side),
                    (height, width) => (side, long(height, width)),
                }
            }
            Geometry::NaFlex { max_num_patches } => {
                let budget = options.max_num_patches.unwrap_or(max_num_patches);
                naflex_size(source.0, source.1, self.spec.patch, budget)
            }
        }
    }

    /// How many times smaller a file may come out of its decoder: never smaller than what the tower sees.
    pub(super) fn reduction(&self, info: &ImageInfo, options: &ImageOptions) -> u32 {
        if self.decoding == ImageDecode::Exact || info.format != Format::Jpeg {
            return 1;
        }
        let (mut height, mut width) = self.target((info.height, info.width), options);
        if height != width && matches!(self.spec.geometry, Geometry::Squash { .. }) {
            // The file may yet say that it lies on its side.
            (height, width) = (height.max(width), height.max(width));
        }
        let times = (info.height / height.max(1)).min(info.width / width.max(1));
        [8, 4, 2].into_iter().find(|&reduction| times >= reduction).unwrap_or(1)
    }
}

/// Where the middle `side` pixels of a length begin, as torchvision's `CenterCrop` has it: half a pixel goes to the even side.
pub(super) fn centre(length: u32, side: u32) -> u32 {
    let over = length.saturating_sub(side);
    over / 2 + u32::from(over % 4 == 3)
}

/// The square of `side` pixels in the middle.
fn crop(picture: &Picture, side: u32) -> Result<Picture, ImageError> {
    let (top, left) = (centre(picture.height(), side) as usize, centre(picture.width(), side) as usize);
    let (row, side_bytes) = (picture.width() as usize * 3, side as usize * 3);
    let rows = picture.pixels().chunks_exact(row).skip(top).take(side as usize);
    let pixels = rows.flat_map(|row| &row[left * 3..left * 3 + side_bytes]).copied().collect();
    Picture::new(side, side, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_cut_out_as_torchvision_does() {
        // torchvision 0.30: `CenterCrop(2)` of 2 × 5 pixels starts at round(1.5) = 2, of 2 × 3 at round(0.5) = 0.
        for (width, start) in [(2, 0), (3, 0), (4, 1), (5, 2), (7, 2)] {
            let pixels = (0..2 * width * 3).map(|i| (i / 3 % width) as u8).collect();
            let found = crop(&Picture::new(width, 2, pixels).unwrap(), 2).unwrap();
            assert_eq!((found.width(), found.height(), found.pixels()[0]), (2, 2, start), "{width}");
        }
        let cropping = Preprocessor::new(spec(Geometry::Crop { side: 224 }), ImageLimits::default()).unwrap();
        let options = ImageOptions::default();
        assert_eq!(cropping.target((480, 640), &options), (224, 298));
        assert_eq!(cropping.target((1001, 333), &options), (673, 224));
        let picture =
            |width, height| Picture::new(width, height, vec![7; (width * height * 3) as usize]).unwrap();
        let patches = cropping.from_rgb(&picture(640, 480), &options).unwrap();
        assert_eq!(patches.grid.len() * cropping.spec.patch.pow(2) * 3, patches.pixels.len());
        assert_eq!(patches.grid.rows, patches.grid.cols);
        // A long strip must not become gigabytes before its middle is taken.
        let error = cropping.from_rgb(&picture(1, 16_000), &options).unwrap_err();
        assert!(matches!(error, ImageError::TooLongToCrop { .. }), "{error}");
    }
    use crate::image::Resample;

    fn spec(geometry: Geometry) -> ImageSpec {
        ImageSpec {
            geometry,
            resample: Resample::Bilinear,
            patch: 16,
            mean: [0.5; 3],
            std: [0.5; 3],
            rescale: 1.0 / 255.0,
        }
    }

    #[test]
    fn a_patch_budget_is_for_naflex_only_and_bounded() {
        let budget = |max_num_patches| ImageOptions { max_num_patches: Some(max_num_patches) };
        let picture = Picture::new(100, 50, vec![7; 15_000]).unwrap();
        let fixed = Geometry::Squash { height: 224, width: 224 };
        let fixed = Preprocessor::new(spec(fixed), ImageLimits::default()).unwrap();
        assert_eq!(fixed.from_rgb(&picture, &ImageOptions::default()).unwrap().grid.len(), 196);
        let error = fixed.from_rgb(&picture, &budget(64)).unwrap_err();
        assert!(error.to_string().contains("fixed resolution of 224 × 224"), "{error}");

        let naflex = Geometry::NaFlex { max_num_patches: 256 };
        let naflex = Preprocessor::new(spec(naflex), ImageLimits::default()).unwrap();
        let patches = naflex.from_rgb(&picture, &budget(64)).unwrap();
        assert_eq!((patches.grid.rows, patches.grid.cols, patches.source), (5, 10, (50, 100)));
        for out in [0, 4097] {
            let error = naflex.from_rgb(&picture, &budget(out)).unwrap_err();
            assert_eq!(error, ImageError::PatchBudget { max_num_patches: out, limit: 4096 });
        }
    }

    #[test]
    fn a_specification_without_patches_is_refused() {
        for geometry in [
            Geometry::Squash { height: 224, width: 15 },
            Geometry::Squash { height: 20_000, width: 224 },
            Geometry::NaFlex { max_num_patches: 0 },
            Geometry::NaFlex { max_num_patches: 5000 },
        ] {
            let error = Preprocessor::new(spec(geometry), ImageLimits::default()).unwrap_err();
            assert!(matches!(error, ImageError::Specification(_)), "{error}");
        }
    }

    #[test]
    fn a_reduced_picture_is_never_smaller_than_what_the_tower_sees() {
        let fast = |geometry| {
            let exact = Preprocessor::new(spec(geometry), ImageLimits::default()).unwrap();
            exact.with_decoding(ImageDecode::Fast)
        };
        let jpeg = |width, height| ImageInfo { format: Format::Jpeg, width, height, decoded_bytes: 0 };
        let square = fast(Geometry::Squash { height: 224, width: 224 });
        let options = ImageOptions::default();
        for (width, height, reduction) in
            [(447, 4000, 1), (448, 448, 2), (640, 480, 2), (4000, 896, 4), (4000, 3000, 8), (10, 10, 1)]
        {
            assert_eq!(square.reduction(&jpeg(width, height), &options), reduction, "{width} × {height}");
        }
        let png = ImageInfo { format: Format::Png, ..jpeg(4000, 3000) };
        assert_eq!(square.reduction(&png, &options), 1, "only JPEGs");
        // Lying on its side, 500 × 1000 is 1000 × 500.
        let wide = fast(Geometry::Squash { height: 128, width: 512 });
        assert_eq!(wide.reduction(&jpeg(1024, 512), &options), 1);
        assert_eq!(wide.reduction(&jpeg(1024, 1024), &options), 2);
        let naflex = fast(Geometry::NaFlex { max_num_patches: 256 });
        assert_eq!(naflex.reduction(&jpeg(1024, 256), &options), 2, "512 × 128 are 256 patches");
        assert_eq!(naflex.reduction(&jpeg(1024, 256), &ImageOptions { max_num_patches: Some(64) }), 4);
        let exact = Preprocessor::new(spec(square.spec.geometry), ImageLimits::default()).unwrap();
        assert_eq!(exact.reduction(&jpeg(4000, 3000), &options), 1);
    }
}
