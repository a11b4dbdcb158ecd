//! The first directory of a TIFF.

use std::borrow::Cow;
use std::io::Cursor;

use ::image::metadata::Orientation;
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{TiffError, TiffFormatError};

use super::{Decoded, Header, broken, colour, memory_limit, unsupported};
use crate::image::{Format, ImageError, ImageLimits};

pub(super) fn header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageError> {
    let (bytes, _) = palette_as_grey(bytes);
    let mut decoder = open(&bytes, limits)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let colour = decoder.colortype().map_err(failed)?;
    let bits = u64::from(colour.bit_depth()) * u64::from(colour.num_samples());
    // The samples as stored, the same in 8 bits, and RGB.
    let pixel_bytes = bits.div_ceil(8) + u64::from(colour.num_samples()) + 3;
    Ok(Header { width, height, pixel_bytes, frames: 1 })
}

pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let (bytes, is_palette) = palette_as_grey(bytes);
    let mut decoder = open(&bytes, limits)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    let colours = decoder.colortype().map_err(failed)?;
    let tag = |decoder: &mut Decoder<_>, tag| decoder.find_tag_unsigned::<u16>(tag).ok().flatten();
    let orientation = tag(&mut decoder, Tag::Orientation)
        .and_then(|value| Orientation::from_exif(u8::try_from(value).ok()?))
        .unwrap_or(Orientation::NoTransforms);
    let is_planar = tag(&mut decoder, Tag::PlanarConfiguration) == Some(2);
    let is_premultiplied = decoder
        .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
        .is_ok_and(|samples| samples.is_some_and(|samples| samples.first() == Some(&1)));
    let palette = if is_palette { Some(palette(&mut decoder)?) } else { None };
    let mut samples = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut samples).map_err(failed)?;
    if samples.as_buffer(0).as_bytes().len() < layout.complete_len {
        return Err(broken(Format::Tiff, "its planes do not fit the memory limit"));
    }

    let (w, h) = (width as usize, height as usize);
    let rgb = match colours {
        ColorType::Gray(bits @ (1 | 2 | 4)) => {
            let packed = eight_bits(samples, colours)?;
            let values =
                unpack(&packed, bits, w, h).ok_or_else(|| broken(Format::Tiff, "rows are missing"))?;
            match &palette {
                Some(palette) => lookup(palette, values.map(usize::from))?,
                None => colour::grey(values.map(|value| value * (255 / ((1 << bits) - 1)))),
            }
        }
        ColorType::Gray(_) => match (&palette, samples) {
            (Some(palette), DecodingResult::U8(indices)) => {
                lookup(palette, indices.into_iter().map(usize::from))?
            }
            (Some(palette), DecodingResult::U16(indices)) => {
                lookup(palette, indices.into_iter().map(usize::from))?
            }
            (_, samples) => colour::grey(clipped(samples)?),
        },
        ColorType::RGB(_)
        | ColorType::RGBA(_)
        | ColorType::CMYK(_)
        | ColorType::CMYKA(_)
        | ColorType::YCbCr(_)
        | ColorType::Multiband { num_samples: 2.., .. } => {
            let channels = usize::from(colours.num_samples());
            let bytes = eight_bits(samples, colours)?;
            let bytes = if is_planar { interleave(&bytes, channels) } else { bytes };
            let pixels = bytes.chunks_exact(channels);
            match colours {
                ColorType::CMYK(_) | ColorType::CMYKA(_) => {
                    pixels.flat_map(|p| colour::cmyk([p[0], p[1], p[2], p[3]])).collect()
                }
                ColorType::YCbCr(_) => pixels.flat_map(|p| colour::ycbcr([p[0], p[1], p[2]])).collect(),
                ColorType::RGBA(_) if is_premultiplied => {
                    pixels.flat_map(|p| colour::unmultiply([p[0], p[1], p[2], p[3]])).collect()
                }
                ColorType::RGB(_) | ColorType::RGBA(_) => pixels.flat_map(|p| [p[0], p[1], p[2]]).collect(),
                // Grey with an alpha channel or other extra samples.
                _ => colour::grey(pixels.map(|pixel| pixel[0])),
            }
        }
        other => return Err(unsupported(Format::Tiff, format!("pixels of type {other:?}"))),
    };
    Ok(Decoded { width, height, rgb, orientation })
}

fn open<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<Decoder<Cursor<&'a [u8]>>, ImageError> {
    let mut allowed = Limits::default();
    allowed.decoding_buffer_size = memory_limit(limits);
    allowed.intermediate_buffer_size = memory_limit(limits);
    allowed.ifd_value_size = allowed.ifd_value_size.max(limits.max_side as usize * 16);
    Ok(Decoder::new(Cursor::new(bytes)).map_err(failed)?.with_limits(allowed))
}

/// The library cannot read palette pictures; it can read the same indices as grey ones. So the one value
/// that says "palette" (photometric interpretation 3) is changed to 1 in a copy.
fn palette_as_grey(bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
    const PHOTOMETRIC: u64 = 262;
    let number = |at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if bytes[0] == b'I' { field.iter().rev().fold(0, fold) } else { field.iter().fold(0, fold) })
    };
    let locate = || -> Option<usize> {
        let (directory, count, entry) = match number(2, 2)? {
            42 => (number(4, 4)?, 2, 12),
            _ => (number(8, 8)?, 8, 20),
        };
        let directory = usize::try_from(directory).ok()?;
        let entries = usize::try_from(number(directory, count)?).ok()?.min(4096);
        let first = directory.checked_add(count)?;
        let found =
            (0..entries).map(|index| first + index * entry).find(|at| number(*at, 2) == Some(PHOTOMETRIC));
        let value = found? + entry - if entry == 12 { 4 } else { 8 };
        (number(value, 2)? == 3).then_some(value)
    };
    match locate() {
        Some(value) => {
            let mut copy = bytes.to_vec();
            let (one, zero) = if bytes[0] == b'I' { (value, value + 1) } else { (value + 1, value) };
            copy[one] = 1;
            copy[zero] = 0;
            (Cow::Owned(copy), true)
        }
        None => (Cow::Borrowed(bytes), false),
    }
}

/// The colour map: `[3, colours]` 16-bit values, of which Pillow keeps the high bytes.
fn palette(decoder: &mut Decoder<Cursor<&[u8]>>) -> Result<Vec<[u8; 3]>, ImageError> {
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(failed)?;
    let colours = map.len() / 3;
    let high = |at: usize| (map[at] >> 8) as u8;
    Ok((0..colours).map(|index| [high(index), high(colours + index), high(2 * colours + index)]).collect())
}

fn lookup(palette: &[[u8; 3]], indices: impl Iterator<Item = usize>) -> Result<Vec<u8>, ImageError> {
    let mut rgb = Vec::with_capacity(indices.size_hint().0 * 3);
    for index in indices {
        let colour =
            palette.get(index).ok_or_else(|| broken(Format::Tiff, "a colour is not in its palette"))?;
        rgb.extend_from_slice(colour);
    }
    Ok(rgb)
}

/// The values of rows of 1, 2 or 4 bits a pixel; each row starts with a byte.
fn unpack(packed: &[u8], bits: u8, width: usize, height: usize) -> Option<impl Iterator<Item = u8> + '_> {
    let row = (width * usize::from(bits)).div_ceil(8);
    let packed = packed.get(..row * height)?;
    let mask = (1_u16 << bits) as u8 - 1;
    Some(packed.chunks_exact(row).flat_map(move |row| {
        (0..width).map(move |x| {
            let bit = x * usize::from(bits);
            row[bit / 8] >> (8 - usize::from(bits) - bit % 8) & mask
        })
    }))
}

/// One channel of more than 8 bits, clipped as Pillow clips `I;16`, `I` and `F`.
fn clipped(samples: DecodingResult) -> Result<Vec<u8>, ImageError> {
    fn all<T: Copy>(values: &[T], number: impl Fn(T) -> f64) -> Vec<u8> {
        values.iter().map(|value| colour::clip(number(*value))).collect()
    }
    Ok(match samples {
        DecodingResult::U8(values) => values,
        DecodingResult::U16(values) => all(&values, f64::from),
        // Pillow's `I` is signed.
        DecodingResult::U32(values) => all(&values, |value| f64::from(value as i32)),
        DecodingResult::I16(values) => all(&values, f64::from),
        DecodingResult::I32(values) => all(&values, f64::from),
        DecodingResult::F32(values) => all(&values, f64::from),
        DecodingResult::F64(values) => all(&values, |value| value),
        _ => return Err(unsupported(Format::Tiff, "this type of samples")),
    })
}

/// 8 bits of every sample: the high byte of wider ones.
fn eight_bits(samples: DecodingResult, colours: ColorType) -> Result<Vec<u8>, ImageError> {
    match samples {
        DecodingResult::U8(values) => Ok(values),
        DecodingResult::U16(values) => Ok(values.into_iter().map(|value| (value >> 8) as u8).collect()),
        _ => Err(unsupported(Format::Tiff, format!("pixels of type {colours:?} with wide samples"))),
    }
}

/// Planes `[channels, pixels]` to pixels `[pixels, channels]`.
fn interleave(planes: &[u8], channels: usize) -> Vec<u8> {
    let pixels = planes.len() / channels;
    (0..pixels).flat_map(|pixel| (0..channels).map(move |channel| planes[channel * pixels + pixel])).collect()
}

fn failed(error: TiffError) -> ImageError {
    match error {
        TiffError::UnsupportedError(what) => unsupported(Format::Tiff, what),
        TiffError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            broken(Format::Tiff, "the data ends too early")
        }
        TiffError::FormatError(TiffFormatError::ImageFileDirectoryNotFound) => {
            broken(Format::Tiff, "there is no picture in it")
        }
        other => broken(Format::Tiff, other),
    }
}
