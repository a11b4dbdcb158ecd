//! HEIC and AVIF through the system's libheif: the first picture, as pillow-heif gives it. Turning is libheif's work: the
//! orientation in EXIF says the same once more, and is not looked at.
//!
//! libheif and its decoders are C and C++, and versions before 1.19 hand a decoder pictures that are coded larger than the file says.
//! So the program decodes in a process of its own, which has only so much memory and may call nothing of the system
//! ([`HeifDecoder::Child`]): `process` starts it, `child` is what it does, `confine` what it may do. What the header says is read here,
//! from the file's boxes.

mod boxes;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod confine;
mod ffi;
mod library;
#[cfg(target_os = "linux")]
mod process;

use super::{Decoded, Header, broken, unsupported};
use crate::image::orientation::Orientation;
use crate::image::{Format, HeifDecoder, ImageError, ImageLimits};

#[cfg(target_os = "linux")]
pub use {child::answer as decode_heif_in_child, process::check as check_heif_child};

/// Bytes a pixel that decoding holds: planes of up to two bytes as they are coded and once more turned, and RGBA.
const PIXEL_BYTES: u64 = 16;
/// Bytes a pixel of the picture that comes of it.
const PICTURE_BYTES: u64 = 3;
/// Bytes that decoders hold whatever the size: tables, and the stacks of their threads.
const FIXED_BYTES: u64 = 48 << 20;

/// All parts of a picture may have so many times the pixels that one picture may: its tiles, its alpha, and once more.
const PARTS: u64 = 4;

/// A decoded picture: `[height, width, 3]` bytes.
struct Rgb {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

pub(super) fn header(bytes: &[u8], format: Format, limits: &ImageLimits) -> Result<Header, ImageError> {
    let contents = boxes::contents(bytes).map_err(|reason| broken(format, reason))?;
    // What has to be decoded for it, which may be much more than is shown.
    let boxes::Contents { width, height, pixels, .. } = contents;
    let limit = limits.max_pixels.saturating_mul(PARTS).min(limits.max_decode_work);
    if pixels > limit {
        let reason = format!("its parts have {pixels} pixels together, and {limit} are allowed");
        return Err(unsupported(format, reason));
    }
    let shown = (u64::from(width) * u64::from(height)).max(1);
    let pixel_bytes = memory(&contents, bytes).div_ceil(shown).saturating_add(PICTURE_BYTES);
    Ok(Header { width, height, pixel_bytes, frames: 1, scans: (0, 0) })
}

/// Bytes that decoding holds, beside the picture that comes of it.
fn memory(contents: &boxes::Contents, bytes: &[u8]) -> u64 {
    // The process that decodes has the file once more.
    let fixed = FIXED_BYTES + bytes.len() as u64;
    contents.held.saturating_mul(PIXEL_BYTES).saturating_add(fixed)
}

pub(super) fn pixels(bytes: &[u8], format: Format, limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let contents = boxes::contents(bytes).map_err(|reason| broken(format, reason))?;
    let Rgb { width, height, pixels } = match limits.heif {
        HeifDecoder::InProcess => {
            library::decode(bytes, limits.max_side).map_err(|reason| broken(format, reason))?
        }
        #[cfg(target_os = "linux")]
        HeifDecoder::Child => {
            let size = (contents.width, contents.height);
            process::decode(bytes, format, size, memory(&contents, bytes))?
        }
        #[cfg(not(target_os = "linux"))]
        HeifDecoder::Child => {
            let reason = "a process can only be confined on Linux".to_owned();
            return Err(ImageError::NoDecoder { format, reason });
        }
    };
    if (width, height) != (contents.width, contents.height) {
        return Err(broken(format, "it has another size than it says"));
    }
    Ok(Decoded { width, height, rgb: pixels, orientation: Orientation::Upright })
}
