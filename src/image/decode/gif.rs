//! The first frame of a GIF on its logical screen.

use std::borrow::Cow;
use std::io::Read;
use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, MemoryLimit};

use super::metadata::orientation;
use super::{Decoded, Header, broken, buffer, colour};
use crate::image::{Format, ImageError, ImageLimits};

pub(super) fn header(bytes: &[u8], limits: &ImageLimits) -> Result<Header, ImageError> {
    let bytes = with_palette(bytes);
    let mut decoder = open(&*bytes, limits, true)?;
    let frame = decoder.next_frame_info().map_err(failed)?;
    let (left, top, width, height) = frame
        .map(|frame| (frame.left, frame.top, frame.width, frame.height))
        .ok_or_else(|| broken(Format::Gif, "there is no picture in it"))?;
    // A frame that reaches over the logical screen enlarges it.
    let width = u32::from(decoder.width()).max(u32::from(left) + u32::from(width));
    let height = u32::from(decoder.height()).max(u32::from(top) + u32::from(height));
    let mut frames = 1;
    // What follows the first frame may be damaged: it is only counted, never shown.
    while frames <= limits.max_frames && matches!(decoder.next_frame_info(), Ok(Some(_))) {
        frames += 1;
    }
    Ok(Header { width, height, pixel_bytes: 4, frames, scans: (0, 0) })
}

pub(super) fn pixels(bytes: &[u8], limits: &ImageLimits) -> Result<Decoded, ImageError> {
    let bytes = with_palette(bytes);
    let mut decoder = open(&*bytes, limits, false)?;
    let screen = (usize::from(decoder.width()), usize::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(failed)?;
    let frame = frame.ok_or_else(|| broken(Format::Gif, "there is no picture in it"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
    let background = frame.transparent.unwrap_or(0);
    let local = frame.palette.clone();
    let palette = palette(local.as_deref().or_else(|| decoder.global_palette()));
    let mut indices = buffer(Format::Gif, frame_width * frame_height)?;
    if !indices.is_empty() {
        decoder.read_into_buffer(&mut indices).map_err(failed)?;
    }

    // Pillow fills what the frame does not cover with the transparent colour or else with colour 0.
    let width = screen.0.max(left + frame_width);
    let height = screen.1.max(top + frame_height);
    let mut rgb = buffer(Format::Gif, width * height * 3)?;
    rgb.as_chunks_mut::<3>().0.fill(palette[usize::from(background)]);
    if frame_width > 0 {
        for (y, line) in indices.chunks_exact(frame_width).enumerate() {
            let start = ((top + y) * width + left) * 3;
            let (row, _) = rgb[start..start + frame_width * 3].as_chunks_mut::<3>();
            for (pixel, index) in row.iter_mut().zip(line) {
                *pixel = palette[usize::from(*index)];
            }
        }
    }
    let orientation = orientation(None, decoder.xmp_metadata());
    Ok(Decoded { width: width as u32, height: height as u32, rgb, orientation })
}

/// All 256 colours. A palette of which each colour is its own number says nothing to Pillow, which then takes grey for
/// the others too; behind any other palette all is black.
pub(super) fn palette(defined: Option<&[u8]>) -> [[u8; 3]; 256] {
    let (defined, _) = defined.unwrap_or_default().as_chunks::<3>();
    if defined.iter().enumerate().all(|(index, colour)| *colour == [index as u8; 3]) {
        return colour::grey_ramp();
    }
    colour::palette(defined.iter().copied())
}

/// The file with a palette of all greys, which is Pillow's, where it has none for all frames: the library refuses it.
pub(super) fn with_palette(bytes: &[u8]) -> Cow<'_, [u8]> {
    const SCREEN: usize = 13;
    match bytes.get(10) {
        Some(flags) if flags & 0x80 == 0 && bytes.len() > SCREEN => {
            let mut copy = Vec::with_capacity(bytes.len() + 768);
            copy.extend_from_slice(&bytes[..SCREEN]);
            copy[10] = flags & 0x78 | 0x87;
            // The background colour, which the library wants to be in the palette.
            copy[11] = 0;
            copy.extend(colour::grey_ramp().as_flattened());
            copy.extend_from_slice(&bytes[SCREEN..]);
            Cow::Owned(copy)
        }
        _ => Cow::Borrowed(bytes),
    }
}

pub(super) fn open<R: Read>(input: R, limits: &ImageLimits, skip: bool) -> Result<Decoder<R>, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.allow_unknown_blocks(true);
    options.skip_frame_decoding(skip);
    let bytes_allowed = NonZeroU64::new(limits.max_decoded_bytes).unwrap_or(NonZeroU64::MIN);
    options.set_memory_limit(MemoryLimit::Bytes(bytes_allowed));
    options.read_info(input).map_err(failed)
}

pub(super) fn failed(error: DecodingError) -> ImageError {
    match error {
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            broken(Format::Gif, "the data ends too early")
        }
        other => broken(Format::Gif, other),
    }
}
