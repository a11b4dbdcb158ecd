//! Windows bitmaps.

use std::io::Cursor;

use ::image::codecs::bmp::BmpDecoder;
use ::image::metadata::Orientation;
use ::image::{ColorType, ImageDecoder, ImageError as LibraryError};

use super::{Decoded, Header, broken, buffer, colour, unsupported};
use crate::image::{Format, ImageError};

pub(super) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    Ok(Header { width, height, pixel_bytes: 8, frames: 1 })
}

pub(super) fn pixels(bytes: &[u8]) -> Result<Decoded, ImageError> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let colours = decoder.color_type();
    let size =
        usize::try_from(decoder.total_bytes()).map_err(|_| broken(Format::Bmp, "its size overflows"))?;
    let mut samples = buffer(Format::Bmp, size)?;
    decoder.read_image(&mut samples).map_err(failed)?;
    let rgb = match (colours, sixteen_bit_green(bytes)) {
        (ColorType::Rgb8, Some(green)) => as_pillow_widens(samples, green),
        (ColorType::Rgb8, None) => samples,
        (ColorType::Rgba8, _) => colour::drop_fourth(samples),
        (ColorType::L8, _) => colour::grey(samples),
        (other, _) => return Err(unsupported(Format::Bmp, format!("pixels of type {other:?}"))),
    };
    Ok(Decoded { width, height, rgb, orientation: Orientation::NoTransforms })
}

/// The bits of green, 5 or 6, where a pixel has 16 bits.
fn sixteen_bit_green(bytes: &[u8]) -> Option<u32> {
    let has_16_bits = bytes.get(28..30)? == [16, 0];
    let six = bytes.get(30..34)? == [3, 0, 0, 0] && bytes.get(58..62)? == [0xe0, 0x07, 0, 0];
    has_16_bits.then_some(if six { 6 } else { 5 })
}

/// The library rounds when it widens 5 or 6 bits to 8, Pillow cuts; the high bits are the value itself.
fn as_pillow_widens(mut rgb: Vec<u8>, green: u32) -> Vec<u8> {
    let widen = |byte: u8, bits: u32| (u32::from(byte >> (8 - bits)) * 255 / ((1 << bits) - 1)) as u8;
    for [r, g, b] in rgb.as_chunks_mut::<3>().0 {
        (*r, *g, *b) = (widen(*r, 5), widen(*g, green), widen(*b, 5));
    }
    rgb
}

fn failed(error: LibraryError) -> ImageError {
    match error {
        LibraryError::Unsupported(what) => unsupported(Format::Bmp, what),
        LibraryError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            broken(Format::Bmp, "the data ends too early")
        }
        other => broken(Format::Bmp, other),
    }
}
