//! JPEG, with the arithmetic of libjpeg-turbo (accurate integer IDCT, fancy upsampling), which is
//! Pillow's: the pixels are equal bit for bit.

use ::image::metadata::Orientation;
use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat, ScalingFactor};

use super::{Decoded, Header, broken, colour, orientation, unsupported};
use crate::image::{Format, ImageError, ImageLimits};

/// More scans than any encoder writes; each one is a pass over all pixels.
const MAX_SCANS: usize = 100;

pub(super) fn header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageError> {
    let decoder = open(bytes, limits)?;
    let frame = decoder.header();
    let components = frame.components.len() as u64;
    // Planes and output, the coefficients of a picture in several passes, and CMYK's way to RGB.
    let planes = components + components.max(3);
    let coefficients = if frame.is_progressive { 2 * components } else { 0 };
    let conversion = if components == 4 { 3 } else { 0 };
    Ok(Header {
        width: u32::from(frame.width),
        height: u32::from(frame.height),
        pixel_bytes: planes + coefficients + conversion,
        frames: 1,
    })
}

/// `reduction` is 1, or 2, 4 or 8: each side becomes so many times smaller, rounded up.
pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits, reduction: u32) -> Result<Decoded, ImageError> {
    let mut decoder = open(bytes, limits)?;
    if reduction > 1 {
        decoder.set_scale(ScalingFactor::try_new(1, reduction).map_err(failed)?);
    }
    let frame = decoder.header();
    if frame.precision != 8 {
        return Err(unsupported(Format::Jpeg, format!("{} bits a sample", frame.precision)));
    }
    let inks = match frame.components.len() {
        1 | 3 => false,
        4 => true,
        other => return Err(unsupported(Format::Jpeg, format!("{other} colour components"))),
    };
    let format = if inks { PixelFormat::Cmyk } else { PixelFormat::Rgb };
    let image = decoder.with_output_format(format).decode_image().map_err(failed)?;
    let orientation: Orientation = orientation(image.exif_data.as_deref(), image.xmp_data.as_deref());
    let rgb = if inks { inverted_cmyk(&image.data) } else { image.data };
    let side = |side: usize| u32::try_from(side).map_err(|_| broken(Format::Jpeg, "a side is too long"));
    Ok(Decoded { width: side(image.width)?, height: side(image.height)?, rgb, orientation })
}

fn open<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<Decoder<'a>, ImageError> {
    let side = limits.max_side as usize;
    let limits = DecodeLimits {
        max_width: side,
        max_height: side,
        max_pixels: limits.max_pixels,
        max_scans: MAX_SCANS,
        ..DecodeLimits::default()
    };
    Decoder::new_with_limits(bytes, limits).map_err(failed)
}

/// Pillow takes every CMYK and YCCK JPEG for Adobe's, which stores the inks inverted.
fn inverted_cmyk(inks: &[u8]) -> Vec<u8> {
    let (pixels, _) = inks.as_chunks::<4>();
    pixels.iter().flat_map(|pixel| colour::cmyk(pixel.map(|ink| 255 - ink))).collect()
}

fn failed(error: JpegError) -> ImageError {
    match error {
        JpegError::UnexpectedEof => broken(Format::Jpeg, "the data ends too early"),
        JpegError::Unsupported(what) => unsupported(Format::Jpeg, what),
        other => broken(Format::Jpeg, other),
    }
}
