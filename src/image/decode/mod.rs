//! Bytes to an upright RGB picture, as Pillow's `ImageOps.exif_transpose(img).convert("RGB")` gives it.
//!
//! The order is the point: the size of the file, then the header, then every limit, and only then the
//! first allocation whose size the file chose.

mod animation;
mod bmp;
mod colour;
mod gif;
#[cfg(feature = "heif")]
mod heif;
mod ifd;
mod jpeg;
mod metadata;
mod png;
mod tiff;
mod webp;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use super::orientation::Orientation;
use super::{Format, ImageError, ImageLimits, Picture};

pub use animation::frames;
#[cfg(all(feature = "heif", target_os = "linux"))]
pub use heif::{check_heif_child, decode_heif_in_child};

/// What the header of a picture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Its format, by its content.
    pub format: Format,
    /// Width in pixels as stored, before the EXIF orientation is applied.
    pub width: u32,
    /// Height in pixels as stored, before the EXIF orientation is applied.
    pub height: u32,
    /// Most memory that decoding it holds at once, in bytes (the file itself not counted).
    pub decoded_bytes: u64,
}

/// What a decoder's header function finds.
struct Header {
    width: u32,
    height: u32,
    /// Bytes a pixel that decoding holds at its peak.
    pixel_bytes: u64,
    /// Frames counted; counting may stop one above the limit.
    frames: u32,
    /// Scans of a JPEG, and the samples that they go over; zero where every byte of a file is looked at once.
    scans: (usize, u64),
}

/// `[height, width, 3]` bytes as stored, and how they are to be turned.
struct Decoded {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    orientation: Orientation,
}

/// Reads the header only and checks every limit.
///
/// # Errors
/// Everything that [`ImageError`] says about formats, sizes and headers.
pub fn probe(bytes: &[u8], limits: &ImageLimits) -> Result<ImageInfo, ImageError> {
    let format = sniff(bytes, limits)?;
    let header = guarded(format, || match format {
        Format::Jpeg => jpeg::header(bytes),
        Format::Png => png::header(bytes, limits),
        Format::WebP => webp::header(bytes, limits),
        Format::Gif => gif::header(bytes, limits),
        Format::Bmp => bmp::header(bytes),
        Format::Tiff => tiff::header(bytes),
        #[cfg(feature = "heif")]
        Format::Avif | Format::Heic => heif::header(bytes, format, limits),
        #[cfg(not(feature = "heif"))]
        Format::Avif | Format::Heic => Err(ImageError::FormatNotBuilt { format }),
    })?;
    check(format, &header, limits)
}

/// Decodes the (first) picture, turns it upright and converts it to RGB.
///
/// # Errors
/// Every variant of [`ImageError`] but those about options: limits before anything is allocated, then
/// whatever is wrong with the data. A truncated file is an error, not a half grey picture.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<Picture, ImageError> {
    decode_reduced(bytes, limits, |_| 1).map(|(picture, _)| picture)
}

/// [`decode`] of a picture that may come out smaller: `reduction` says by how many times, 1, 2, 4 or 8; only JPEGs are
/// reduced. Also the upright height and width of the whole picture.
pub(super) fn decode_reduced(
    bytes: &[u8],
    limits: &ImageLimits,
    reduction: impl FnOnce(&ImageInfo) -> u32,
) -> Result<(Picture, (u32, u32)), ImageError> {
    let info = probe(bytes, limits)?;
    let reduction = reduction(&info);
    let decoded = guarded(info.format, || match info.format {
        Format::Jpeg => jpeg::pixels(bytes, limits, reduction),
        Format::Png => png::pixels(bytes, limits),
        Format::WebP => webp::pixels(bytes, limits),
        Format::Gif => gif::pixels(bytes, limits),
        Format::Bmp => bmp::pixels(bytes),
        Format::Tiff => tiff::pixels(bytes, limits),
        #[cfg(feature = "heif")]
        Format::Avif | Format::Heic => heif::pixels(bytes, info.format, limits),
        #[cfg(not(feature = "heif"))]
        Format::Avif | Format::Heic => Err(ImageError::FormatNotBuilt { format: info.format }),
    })?;
    let turned = decoded.orientation.swaps_sides();
    let size = if turned { (info.width, info.height) } else { (info.height, info.width) };
    Ok((upright(decoded)?, size))
}

fn sniff(bytes: &[u8], limits: &ImageLimits) -> Result<Format, ImageError> {
    if bytes.len() > limits.max_bytes {
        return Err(ImageError::FileTooLarge { bytes: bytes.len(), limit: limits.max_bytes });
    }
    Format::sniff(bytes)
}

fn check(format: Format, header: &Header, limits: &ImageLimits) -> Result<ImageInfo, ImageError> {
    let Header { width, height, pixel_bytes, frames, scans: (scans, samples) } = *header;
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(ImageError::NoPixels { format, width, height });
    }
    if width.max(height) > limits.max_side {
        return Err(ImageError::SideTooLong { format, width, height, limit: limits.max_side });
    }
    if pixels > limits.max_pixels {
        return Err(ImageError::TooManyPixels { format, width, height, limit: limits.max_pixels });
    }
    let decoded_bytes = pixels.saturating_mul(pixel_bytes);
    if decoded_bytes > limits.max_decoded_bytes {
        let limit = limits.max_decoded_bytes;
        return Err(ImageError::DecodedTooLarge { format, width, height, bytes: decoded_bytes, limit });
    }
    if frames > limits.max_frames {
        return Err(ImageError::TooManyFrames { format, limit: limits.max_frames });
    }
    let limit = limits.max_decode_work;
    if samples > limit || scans > jpeg::MAX_SCANS {
        return Err(ImageError::TooMuchWork { format, width, height, scans, samples, limit });
    }
    Ok(ImageInfo { format, width, height, decoded_bytes })
}

/// The one place where a panic of a third-party decoder becomes an error.
fn guarded<T>(format: Format, run: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::warn!(%format, "an image decoder panicked; the image is refused");
        Err(ImageError::DecoderFailed { format })
    })
}

fn upright(decoded: Decoded) -> Result<Picture, ImageError> {
    let Decoded { width, height, rgb, orientation } = decoded;
    let (width, height, rgb) = orientation.apply(width, height, rgb);
    Picture::new(width, height, rgb)
}

fn broken(format: Format, reason: impl Display) -> ImageError {
    ImageError::Broken { format, reason: reason.to_string() }
}

fn unsupported(format: Format, reason: impl Display) -> ImageError {
    ImageError::Unsupported { format, reason: reason.to_string() }
}

/// `count` zero bytes, or an error where the system has no memory for them.
fn buffer(format: Format, count: usize) -> Result<Vec<u8>, ImageError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(count).map_err(|_| broken(format, format!("no memory for {count} bytes")))?;
    buffer.resize(count, 0);
    Ok(buffer)
}

/// A limit in bytes for libraries that want a `usize`.
fn memory_limit(limits: &ImageLimits) -> usize {
    usize::try_from(limits.max_decoded_bytes).unwrap_or(usize::MAX)
}
