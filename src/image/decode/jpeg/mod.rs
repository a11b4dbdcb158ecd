//! JPEG, with the arithmetic of libjpeg-turbo (accurate integer IDCT, fancy upsampling), which is
//! Pillow's: the pixels are equal bit for bit.
//!
//! Two decoders: the library for what nearly every file is, and `careful/`, slower and without `unsafe`, for the shapes
//! that the library refuses, gets wrong or panics on.

mod careful;
mod survey;

use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat, ScalingFactor};

use super::metadata::orientation;
use super::{Decoded, Header, broken, colour, unsupported};
use crate::image::{Format, ImageError, ImageLimits};
use survey::{Coding, Survey};

/// More scans than any encoder writes; each one is a pass over pixels.
pub(super) const MAX_SCANS: usize = 100;

pub(super) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let survey = Survey::of(bytes)?;
    let (width, height) = (u32::from(survey.width), u32::from(survey.height));
    let components = survey.components.len() as u64;
    // Planes and output, the coefficients of a picture in several passes, and CMYK's way to RGB.
    let planes = components + components.max(3);
    let conversion = if components == 4 { 3 } else { 0 };
    let pixel_bytes = if survey.is_odd() {
        // Coefficients of whole blocks, their planes, and planes of full size.
        let pixels = (u64::from(width) * u64::from(height)).max(1);
        (survey.samples() * 3).div_ceil(pixels) + components + conversion + 3
    } else {
        let coefficients = if survey.scans.len() > 1 || survey.is_progressive() { 2 * components } else { 0 };
        planes + coefficients + conversion
    };
    let scans = (survey.scans.len(), survey.work());
    Ok(Header { width, height, pixel_bytes, frames: 1, scans })
}

/// `reduction` is 1, or 2, 4 or 8: each side becomes so many times smaller, rounded up. Odd files are not reduced.
pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits, reduction: u32) -> Result<Decoded, ImageError> {
    let survey = Survey::of(bytes)?;
    let orientation = orientation(survey.exif.as_deref(), survey.xmp);
    let (width, height, samples) = decoded(bytes, &survey, limits, reduction)?;
    let rgb = if survey.components.len() == 4 { inverted_cmyk(&samples) } else { samples };
    Ok(Decoded { width, height, rgb, orientation })
}

/// What the components of a JPEG inside another format mean; such files leave out the marks that would say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colours {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
}

/// A strip or tile of a TIFF of the given width and height, with the tables that all of them share: RGB, or four inks a
/// pixel. `work` is what all of them together may still go over.
pub(super) fn embedded(
    bytes: &[u8],
    tables: Option<&[u8]>,
    colours: Colours,
    limits: &ImageLimits,
    (width, height): (usize, usize),
    work: &mut u64,
) -> Result<Vec<u8>, ImageError> {
    let components = match colours {
        Colours::Grey => 1,
        Colours::YCbCr | Colours::Rgb => 3,
        Colours::Cmyk => 4,
    };
    let mut file = vec![0xff, 0xd8];
    if let Some(tables) = tables {
        let inner = tables.strip_prefix(&[0xff, 0xd8]).unwrap_or(tables);
        file.extend(inner.strip_suffix(&[0xff, 0xd9]).unwrap_or(inner));
    }
    // Adobe's mark, whose last byte is the colour transform.
    let transform = u8::from(colours == Colours::YCbCr);
    file.extend(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0");
    file.push(transform);
    file.extend(bytes.strip_prefix(&[0xff, 0xd8]).unwrap_or(bytes));
    let survey = Survey::of(&file)?;
    let (found_width, found_height) = (usize::from(survey.width), usize::from(survey.height));
    if survey.components.len() != components || found_width != width || found_height < height {
        return Err(broken(
            Format::Tiff,
            format!(
                "a JPEG of {found_width} × {found_height} pixels and {} components in place of {width} × {height} and \
                 {components}",
                survey.components.len()
            ),
        ));
    }
    let left = work.checked_sub(survey.work()).filter(|_| survey.scans.len() <= MAX_SCANS);
    match left {
        Some(left) if found_height <= height + 64 => *work = left,
        _ => {
            return Err(unsupported(
                Format::Tiff,
                "JPEGs inside that have more pixels or scans than the picture needs",
            ));
        }
    }
    let (_, _, mut samples) = decoded(&file, &survey, limits, 1)?;
    samples.truncate(width * height * if components == 4 { 4 } else { 3 });
    Ok(samples)
}

/// Width, height, and RGB or, of four components, inks as they are stored.
fn decoded(
    bytes: &[u8],
    survey: &Survey,
    limits: &ImageLimits,
    reduction: u32,
) -> Result<(u32, u32, Vec<u8>), ImageError> {
    if survey.precision != 8 {
        return Err(unsupported(Format::Jpeg, format!("{} bits a sample", survey.precision)));
    }
    let inks = match survey.components.len() {
        1 | 3 => false,
        4 => true,
        other => return Err(unsupported(Format::Jpeg, format!("{other} colour components"))),
    };
    if survey.coding == Coding::Other && survey.has_odd_sizes() {
        return Err(unsupported(Format::Jpeg, "arithmetic coding with such sizes of its components"));
    }
    if survey.is_odd() {
        let samples = careful::decode(bytes, survey)?;
        return Ok((u32::from(survey.width), u32::from(survey.height), samples));
    }
    let mut decoder = open(bytes, limits)?;
    if reduction > 1 {
        decoder.set_scale(ScalingFactor::try_new(1, reduction).map_err(failed)?);
    }
    let format = if inks { PixelFormat::Cmyk } else { PixelFormat::Rgb };
    let image = decoder.with_output_format(format).decode_image().map_err(failed)?;
    let side = |side: usize| u32::try_from(side).map_err(|_| broken(Format::Jpeg, "a side is too long"));
    Ok((side(image.width)?, side(image.height)?, image.data))
}

fn open<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<Decoder<'a>, ImageError> {
    let side = limits.max_side as usize;
    let limits = DecodeLimits {
        max_width: side,
        max_height: side,
        max_pixels: limits.max_pixels,
        max_scans: MAX_SCANS,
        max_memory: Some(limits.max_decoded_bytes),
    };
    Decoder::new_with_limits(bytes, limits).map_err(failed)
}

/// Pillow takes every CMYK and YCCK JPEG for Adobe's, which stores the inks inverted.
fn inverted_cmyk(inks: &[u8]) -> Vec<u8> {
    let (pixels, _) = inks.as_chunks::<4>();
    pixels.iter().flat_map(|pixel| colour::cmyk(pixel.map(|ink| 255 - ink))).collect()
}

fn damaged(reason: impl std::fmt::Display) -> ImageError {
    broken(Format::Jpeg, reason)
}

fn failed(error: JpegError) -> ImageError {
    match error {
        JpegError::UnexpectedEof => damaged("the data ends too early"),
        JpegError::Unsupported(what) => unsupported(Format::Jpeg, what),
        other => damaged(other),
    }
}
