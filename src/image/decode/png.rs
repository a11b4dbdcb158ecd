//! PNG and the first picture of an animated PNG.

use std::io::Cursor;

use png::{BitDepth, ColorType, Limits, Reader, Transformations};

use super::metadata::{orientation, raw_profile};
use super::{Decoded, Header, broken, buffer, colour, memory_limit};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError, ImageLimits};

pub(super) fn header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageError> {
    let reader = open(bytes, limits)?;
    let info = reader.info();
    let (colour, depth) = reader.output_color_type();
    let samples = colour.samples() as u64 * if depth == BitDepth::Sixteen { 2 } else { 1 };
    Ok(Header {
        width: info.width,
        height: info.height,
        pixel_bytes: samples + 3,
        frames: info.animation_control.map_or(1, |animation| animation.num_frames),
        scans: (0, 0),
    })
}

pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let mut reader = open(bytes, limits)?;
    let size = reader.output_buffer_size().ok_or_else(|| broken(Format::Png, "its size overflows"))?;
    let mut samples = buffer(Format::Png, size)?;
    let output = reader.next_frame(&mut samples).map_err(failed)?;
    samples.truncate(output.buffer_size());
    // Checks the rest of the file and finds the chunks that follow the pixels.
    reader.finish().map_err(failed)?;
    let info = reader.info();
    let orientation = turned(info);

    let grey_only = info.color_type == ColorType::Grayscale;
    let wide = output.bit_depth == BitDepth::Sixteen;
    let step = output.color_type.samples() * if wide { 2 } else { 1 };
    let rgb = match output.color_type {
        ColorType::Rgb if !wide => samples,
        ColorType::Rgba if !wide => colour::drop_fourth(samples),
        // 16-bit grey is Pillow's `I;16`, which is clipped; with an alpha channel it keeps the high byte.
        ColorType::Grayscale | ColorType::GrayscaleAlpha if wide && grey_only => {
            colour::warn_clipped(Format::Png, samples.chunks_exact(step).any(|pixel| pixel[0] != 0));
            let pixels = samples.chunks_exact(step);
            colour::grey(pixels.map(|pixel| if pixel[0] == 0 { pixel[1] } else { 255 }))
        }
        ColorType::Grayscale | ColorType::GrayscaleAlpha => {
            colour::grey(samples.chunks_exact(step).map(|pixel| pixel[0]))
        }
        ColorType::Rgb | ColorType::Rgba => {
            samples.chunks_exact(step).flat_map(|pixel| [pixel[0], pixel[2], pixel[4]]).collect()
        }
        ColorType::Indexed => return Err(broken(Format::Png, "its palette is missing")),
    };
    Ok(Decoded { width: output.width, height: output.height, rgb, orientation })
}

/// How a picture is turned by what comes before its pixels.
pub(super) fn orientation_before_pixels(
    bytes: &[u8],
    limits: &ImageLimits,
) -> Result<Orientation, ImageError> {
    Ok(turned(open(bytes, limits)?.info()))
}

fn turned(info: &png::Info) -> Orientation {
    let xmp = info.utf8_text.iter().find(|chunk| chunk.keyword == "XML:com.adobe.xmp");
    let xmp = xmp.and_then(|chunk| chunk.get_text().ok());
    let profile = if info.exif_metadata.is_none() { profile(info) } else { None };
    let exif = info.exif_metadata.as_deref().or(profile.as_deref());
    orientation(exif, xmp.as_ref().map(|text| text.as_bytes()))
}

/// The EXIF block that ImageMagick writes as text, compressed or not.
fn profile(info: &png::Info) -> Option<Vec<u8>> {
    const NAME: &str = "Raw profile type exif";
    let plain = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == NAME);
    let plain = plain.map(|chunk| chunk.text.clone());
    let compressed =
        || info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == NAME)?.get_text().ok();
    let unicode = || info.utf8_text.iter().find(|chunk| chunk.keyword == NAME)?.get_text().ok();
    raw_profile(&plain.or_else(compressed).or_else(unicode)?)
}

fn open<'a>(bytes: &'a [u8], limits: &ImageLimits) -> Result<Reader<Cursor<&'a [u8]>>, ImageError> {
    let limits = Limits { bytes: memory_limit(limits) };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND);
    decoder.read_info().map_err(failed)
}

fn failed(error: png::DecodingError) -> ImageError {
    match error {
        png::DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            broken(Format::Png, "the data ends too early")
        }
        other => broken(Format::Png, other),
    }
}
