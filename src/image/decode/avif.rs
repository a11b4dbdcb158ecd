//! AVIF through the system's dav1d.

use std::io::Cursor;

use ::image::codecs::avif::AvifDecoder;
use ::image::{DynamicImage, ImageDecoder};

use super::{Decoded, Header, broken};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError};

/// The largest extent that any `ispe` property names: the decoder has no way to ask for the size alone.
pub(super) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let extents = bytes.windows(16).filter(|window| &window[..4] == b"ispe");
    let number = |bytes: &[u8]| bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
    let (width, height) = extents.fold((0, 0), |(width, height): (u32, u32), window| {
        (width.max(number(&window[8..12])), height.max(number(&window[12..16])))
    });
    Ok(Header { width, height, pixel_bytes: 16, frames: 1, scans: (0, 0) })
}

pub(super) fn pixels(bytes: &[u8]) -> Result<Decoded, ImageError> {
    let failed = |error| broken(Format::Avif, error);
    let mut decoder = AvifDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let orientation = decoder
        .orientation()
        .map_or(Orientation::Upright, |found| Orientation::from_number(u64::from(found.to_exif())));
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?.into_rgb8();
    Ok(Decoded { width: image.width(), height: image.height(), rgb: image.into_raw(), orientation })
}
