//! WebP and the first frame of an animated WebP.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::metadata::orientation;
use super::{Decoded, Header, broken, buffer, colour, memory_limit};
use crate::image::{Format, ImageError, ImageLimits};

pub(super) fn header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageError> {
    let decoder = open(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let frames = if decoder.is_animated() { decoder.num_frames() } else { 1 };
    // The output, the planes or the lossless decoder's own picture, and a frame beside its canvas.
    let pixel_bytes = if decoder.is_animated() { 12 } else { 8 };
    Ok(Header { width, height, pixel_bytes, frames, scans: (0, 0) })
}

pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let mut decoder = open(bytes, limits)?;
    let (width, height) = decoder.dimensions();
    let rgb = if decoder.is_animated() {
        first_frame(bytes, limits, width as usize, height as usize)?
    } else {
        still(&mut decoder)?
    };
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    let orientation = orientation(exif.as_deref(), xmp.as_deref());
    Ok(Decoded { width, height, rgb, orientation })
}

fn still(decoder: &mut WebPDecoder<Cursor<&[u8]>>) -> Result<Vec<u8>, ImageError> {
    let samples = samples(decoder)?;
    Ok(if decoder.has_alpha() { colour::drop_fourth(samples) } else { samples })
}

/// `RGBA`, or `RGB` without an alpha channel.
pub(super) fn samples(decoder: &mut WebPDecoder<Cursor<&[u8]>>) -> Result<Vec<u8>, ImageError> {
    let size = decoder.output_buffer_size();
    let size = size.ok_or_else(|| broken(Format::WebP, "its size overflows"))?;
    let mut samples = buffer(Format::WebP, size)?;
    decoder.read_image(&mut samples).map_err(failed)?;
    Ok(samples)
}

/// The first frame of an animation on a black canvas, its colours as they are: libwebp blends later frames only, the
/// library blends the first one too. So the frame is read as a picture of its own.
fn first_frame(
    bytes: &[u8],
    limits: &ImageLimits,
    width: usize,
    height: usize,
) -> Result<Vec<u8>, ImageError> {
    let incomplete = || broken(Format::WebP, "the data ends too early");
    let three = |field: &[u8]| field.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
    let mut at = 12;
    let frame = loop {
        let (name, body) = chunk(bytes, at).ok_or_else(incomplete)?;
        if name == b"ANMF" {
            break body;
        }
        at += 8 + body.len() + body.len() % 2;
    };
    let place = frame.get(..12).ok_or_else(incomplete)?;
    let (left, top) = (three(&place[..3]) * 2, three(&place[3..6]) * 2);
    let (frame_width, frame_height) = (three(&place[6..9]) + 1, three(&place[9..12]) + 1);
    if left + frame_width > width || top + frame_height > height {
        return Err(broken(Format::WebP, "a frame reaches over the canvas"));
    }
    let file = frame_file(frame)?;
    let mut decoder = open(&file, limits)?;
    if decoder.dimensions() != (frame_width as u32, frame_height as u32) {
        return Err(broken(Format::WebP, "a frame has another size than it says"));
    }
    let pixels = still(&mut decoder)?;
    if (frame_width, frame_height) == (width, height) {
        return Ok(pixels);
    }
    let mut rgb = buffer(Format::WebP, width * height * 3)?;
    for (y, line) in pixels.chunks_exact(frame_width * 3).enumerate() {
        let start = ((top + y) * width + left) * 3;
        rgb[start..start + line.len()].copy_from_slice(line);
    }
    Ok(rgb)
}

/// The content of a frame's chunk as a file of its own.
pub(super) fn frame_file(frame: &[u8]) -> Result<Vec<u8>, ImageError> {
    let incomplete = || broken(Format::WebP, "the data ends too early");
    let (place, parts) = frame.split_at_checked(16).ok_or_else(incomplete)?;
    let alpha = if parts.starts_with(b"ALPH") { 0x10 } else { 0 };
    let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
    if alpha > 0 {
        file.extend(b"VP8X\x0a\0\0\0");
        file.extend([alpha, 0, 0, 0]);
        file.extend(&place[6..12]);
    }
    file.extend(parts);
    let length = u32::try_from(file.len() - 8).map_err(|_| broken(Format::WebP, "its size overflows"))?;
    file[4..8].copy_from_slice(&length.to_le_bytes());
    Ok(file)
}

/// The name and the content of the chunk at `at`.
pub(super) fn chunk(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let head = bytes.get(at..at.checked_add(8)?)?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    Some((&head[..4], bytes.get(at + 8..(at + 8).checked_add(length)?)?))
}

pub(super) fn open<'a>(
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<WebPDecoder<Cursor<&'a [u8]>>, ImageError> {
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
