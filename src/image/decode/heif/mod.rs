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

/// Bytes a pixel that is held: planes of up to two bytes as they are coded and once more turned, RGBA, and the picture.
const PIXEL_BYTES: u64 = 20;
/// Bytes that decoders hold whatever the size: tables, and the stacks of their threads.
const FIXED_BYTES: u64 = 48 << 20;

/// A decoded picture: `[height, width, 3]` bytes.
struct Rgb {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

pub(super) fn header(bytes: &[u8], format: Format, limits: &ImageLimits) -> Result<Header, ImageError> {
    let contents = boxes::contents(bytes).map_err(|reason| broken(format, reason))?;
    // What has to be decoded for it, which may be much more than is shown.
    let boxes::Contents { width, height, pixels, held } = contents;
    if pixels > limits.max_decode_work {
        let limit = limits.max_decode_work;
        let reason = format!("its parts have {pixels} pixels together, and {limit} are allowed");
        return Err(unsupported(format, reason));
    }
    // The child process has the file once more.
    let fixed = FIXED_BYTES + bytes.len() as u64;
    let memory = held.saturating_mul(PIXEL_BYTES).saturating_add(fixed);
    let shown = (u64::from(width) * u64::from(height)).max(1);
    Ok(Header { width, height, pixel_bytes: memory.div_ceil(shown), frames: 1, scans: (0, 0) })
}

/// `memory` is what the header said that it takes, in bytes.
pub(super) fn pixels(
    bytes: &[u8],
    format: Format,
    limits: &ImageLimits,
    memory: u64,
) -> Result<Decoded, ImageError> {
    let contents = boxes::contents(bytes).map_err(|reason| broken(format, reason))?;
    let Rgb { width, height, pixels } = match limits.heif {
        #[cfg(target_os = "linux")]
        HeifDecoder::Child => process::decode(bytes, format, (contents.width, contents.height), memory)?,
        _ => library::decode(bytes, limits.max_side).map_err(|reason| broken(format, reason))?,
    };
    if (width, height) != (contents.width, contents.height) {
        return Err(broken(format, "it has another size than it says"));
    }
    Ok(Decoded { width, height, rgb: pixels, orientation: Orientation::Upright })
}
