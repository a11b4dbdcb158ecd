//! WebP and the first frame of an animated WebP.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::{Decoded, Header, broken, buffer, colour, memory_limit, orientation};
use crate::image::{Format, ImageError, ImageLimits};

pub(super) fn header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageError> {
    let decoder = open(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let frames = if decoder.is_animated() { decoder.num_frames() } else { 1 };
    // The output, the planes or the lossless decoder's own picture, and a frame beside its canvas.
    let pixel_bytes = if decoder.is_animated() { 12 } else { 8 };
    Ok(Header { width, height, pixel_bytes, frames })
}

pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let mut decoder = open(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let size = decoder.output_buffer_size();
    let size = size.ok_or_else(|| broken(Format::WebP, "its size overflows"))?;
    let mut samples = buffer(Format::WebP, size)?;
    decoder.read_image(&mut samples).map_err(failed)?;
    let rgb = if decoder.has_alpha() { colour::drop_fourth(samples) } else { samples };
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let orientation = orientation(exif.as_deref(), xmp.as_deref());
    Ok(Decoded { width, height, rgb, orientation })
}

fn open<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<WebPDecoder<Cursor<&'a [u8]>>, ImageError> {
    let mut length = [0; 4];
    length.copy_from_slice(bytes.get(4..8).ok_or_else(|| broken(Format::WebP, "the data ends too early"))?);
    if u64::from(u32::from_le_bytes(length)) + 8 > bytes.len() as u64 {
        let reason =
            format!("{} bytes are missing", u64::from(u32::from_le_bytes(length)) + 8 - bytes.len() as u64);
        return Err(broken(Format::WebP, reason));
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    decoder.set_memory_limit(memory_limit(limits));
    Ok(decoder)
}

fn failed(error: DecodingError) -> ImageError {
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            broken(Format::WebP, "the data ends too early")
        }
        other => broken(Format::WebP, other),
    }
}
