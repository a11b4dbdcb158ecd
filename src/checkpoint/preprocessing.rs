//! How a checkpoint wants its pictures: `preprocessor_config.json`, or the family's defaults.

use super::CheckpointError;
use super::files::Files;
use super::json::Object;
use super::layout::limit;
use crate::image::{Geometry, ImageSpec, Resample};
use crate::model::ImageTowerSpec;

/// The patch budget of NaFlex where nothing says another one (`Siglip2ImageProcessor`).
const NAFLEX_BUDGET: usize = 256;

/// Pillow's numbers for filters, which image processors use.
const RESAMPLE: [Resample; 6] = [
    Resample::Nearest,
    Resample::Lanczos,
    Resample::Bilinear,
    Resample::Bicubic,
    Resample::Box,
    Resample::Hamming,
];

/// Image processors of transformers that resize bilinearly unless told otherwise.
const BILINEAR: [&str; 2] = ["Siglip2ImageProcessor", "Gemma3ImageProcessor"];

/// Reads the image preprocessing of a checkpoint in the Hugging Face layout. `default` is what it is without a file of its
/// own, `naflex` what the model is, `guest` whether it is a language model with a tower.
pub(super) fn image(
    files: &Files,
    tower: &ImageTowerSpec,
    default: ImageSpec,
    naflex: bool,
    guest: bool,
) -> Result<ImageSpec, CheckpointError> {
    match processor(files)? {
        Some(config) => from_config(&config, tower, default, naflex, guest),
        None => Ok(default),
    }
}

/// `preprocessor_config.json`, or the part of `processor_config.json` that newer versions write.
fn processor(files: &Files) -> Result<Option<Object>, CheckpointError> {
    if let Some(config) = Object::read(files, "preprocessor_config.json")? {
        return Ok(Some(config));
    }
    match Object::read(files, "processor_config.json")? {
        Some(config) => config.object("image_processor"),
        None => Ok(None),
    }
}

/// Preprocessing without any file: a squash to the size of the position table (or NaFlex), and
/// values from -1 to 1.
pub(super) fn default(tower: &ImageTowerSpec, naflex: bool, resample: Resample) -> ImageSpec {
    let side = |patches: usize| u32::try_from(patches * tower.patch).unwrap_or(u32::MAX);
    ImageSpec {
        geometry: match naflex {
            true => Geometry::NaFlex { max_num_patches: NAFLEX_BUDGET },
            false => {
                Geometry::Squash { height: side(tower.positions.rows), width: side(tower.positions.cols) }
            }
        },
        resample,
        patch: tower.patch,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    }
}

fn from_config(
    config: &Object,
    tower: &ImageTowerSpec,
    default: ImageSpec,
    naflex: bool,
    guest: bool,
) -> Result<ImageSpec, CheckpointError> {
    let class = match config.text("image_processor_type")? {
        Some(class) => Some(class),
        None => config.text("feature_extractor_type")?,
    };
    // A language model's processor cuts pictures into tiles, too; here each is seen whole, as its tower was trained.
    if let Some(class) = class.filter(|_| !guest) {
        let expected = if naflex { "Siglip2ImageProcessor" } else { "SiglipImageProcessor" };
        if !class.starts_with(expected) {
            return Err(config.error("image_processor_type", format!("expected {expected}, found {class:?}")));
        }
    }
    if !config.flag("do_resize")?.unwrap_or(true) {
        return Err(config.error("do_resize", "a model of a fixed grid cannot take pictures unresized"));
    }
    if config.flag("do_center_crop")?.unwrap_or(false) {
        let reason = "SigLIP squashes pictures and does not crop them: set it to false for the vectors of the base model";
        return Err(config.error("do_center_crop", reason));
    }
    let bilinear = class.is_some_and(|class| BILINEAR.iter().any(|start| class.starts_with(start)));
    let resample = if naflex || bilinear { Resample::Bilinear } else { Resample::Bicubic };
    let mut spec = ImageSpec { resample, ..default };
    if let Some(number) = config.number("resample")? {
        spec.resample =
            *RESAMPLE.get(number as usize).filter(|_| number.fract() == 0.0 && number >= 0.0).ok_or_else(
                || config.error("resample", format!("expected a filter from 0 to 5, found {number}")),
            )?;
    }
    if config.flag("do_rescale")?.unwrap_or(true) {
        if let Some(factor) = config.number("rescale_factor")? {
            spec.rescale = factor as f32;
        }
    } else {
        spec.rescale = 1.0;
    }
    if config.flag("do_normalize")?.unwrap_or(true) {
        spec.mean = config.triple("image_mean")?.unwrap_or(spec.mean);
        spec.std = config.triple("image_std")?.unwrap_or(spec.std);
        if spec.std.contains(&0.0) {
            return Err(config.error("image_std", "a standard deviation cannot be 0"));
        }
    } else {
        (spec.mean, spec.std) = ([0.0; 3], [1.0; 3]);
    }
    if naflex {
        let patch = config.size("patch_size", limit::PATCH)?.unwrap_or(16);
        if patch != tower.patch {
            let reason = format!("{patch}, but the model's patch is {}", tower.patch);
            return Err(config.error("patch_size", reason));
        }
        let budget = config.size("max_num_patches", limit::PATCHES)?.unwrap_or(NAFLEX_BUDGET);
        spec.geometry = Geometry::NaFlex { max_num_patches: budget };
    } else if guest {
        // The size of its tower, whatever its processor calls a size.
    } else if let Some((height, width)) = size(config)? {
        let (rows, cols) = (height / tower.patch, width / tower.patch);
        if (rows, cols) != (tower.positions.rows, tower.positions.cols) {
            return Err(CheckpointError::Contradiction {
                file: config.file.clone(),
                reason: format!(
                    "size {height}×{width} makes {rows}×{cols} patches of {}, but the model's position table \
                     is {}×{}",
                    tower.patch, tower.positions.rows, tower.positions.cols
                ),
            });
        }
        spec.geometry = Geometry::Squash { height: height as u32, width: width as u32 };
    }
    Ok(spec)
}

/// `size`, an object of height and width or one number for both.
fn size(config: &Object) -> Result<Option<(usize, usize)>, CheckpointError> {
    if !config.get("size").is_some_and(serde_json::Value::is_object) {
        return config.pair("size", limit::IMAGE);
    }
    let Some(size) = config.object("size")? else { return Ok(None) };
    match (size.size("height", limit::IMAGE)?, size.size("width", limit::IMAGE)?) {
        (Some(height), Some(width)) => Ok(Some((height, width))),
        _ => Err(config.error("size", "expected height and width (SigLIP squashes, it does not crop)")),
    }
}
