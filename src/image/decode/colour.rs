//! Pillow's conversions to RGB, each named after the mode or raw mode that Pillow gives the samples.

use crate::image::Format;

/// Keeps the first three of four channels: alpha is dropped, never composited (`RGBA`, `RGBX`).
pub(super) fn drop_fourth(mut rgba: Vec<u8>) -> Vec<u8> {
    let pixels = rgba.len() / 4;
    for pixel in 0..pixels {
        rgba.copy_within(pixel * 4..pixel * 4 + 3, pixel * 3);
    }
    rgba.truncate(pixels * 3);
    rgba
}

/// Grey to RGB, one byte a pixel (`L`, `1`).
pub(super) fn grey(samples: impl IntoIterator<Item = u8>) -> Vec<u8> {
    samples.into_iter().flat_map(|value| [value; 3]).collect()
}

/// The colours of a palette; those that it does not define are black, as in Pillow.
pub(super) fn palette(defined: impl IntoIterator<Item = [u8; 3]>) -> [[u8; 3]; 256] {
    let mut palette = [[0; 3]; 256];
    for (entry, colour) in palette.iter_mut().zip(defined) {
        *entry = colour;
    }
    palette
}

/// What indices mean without a palette.
pub(super) fn grey_ramp() -> [[u8; 3]; 256] {
    std::array::from_fn(|index| [index as u8; 3])
}

/// Tells the operator that a picture of one wide channel was clipped: most of it may have become white.
pub(super) fn warn_clipped(format: Format, clipped: bool) {
    if clipped {
        tracing::warn!(
            %format,
            "a grey picture of more than 8 bits has values above 255; they became white, as in Pillow's \
             convert(\"RGB\"): scale such pictures to 8 bits before they are sent"
        );
    }
}

/// `I;16`, `I` and `F` hold more than 8 bits of one channel; Pillow clips them, it does not scale them.
pub(super) fn clip(value: f64) -> u8 {
    value.clamp(0.0, 255.0) as u8
}

/// `CMYK` to RGB (`cmyk2rgb` in Pillow's Convert.c), for inks that count up to full cover.
pub(super) fn cmyk(pixel: [u8; 4]) -> [u8; 3] {
    let [c, m, y, k] = pixel.map(u32::from);
    let white = 255 - k;
    [c, m, y].map(|ink| {
        let product = ink * white + 128;
        (white.saturating_sub(((product >> 8) + product) >> 8)) as u8
    })
}

/// `RGBa` (colour already multiplied with alpha) to RGB (`unpackRGBa` in Pillow's Unpack.c).
pub(super) fn unmultiply([r, g, b, a]: [u8; 4]) -> [u8; 3] {
    match a {
        0 => [0; 3],
        255 => [r, g, b],
        a => [r, g, b].map(|value| (u32::from(value) * 255 / u32::from(a)).min(255) as u8),
    }
}

/// `YCbCr` to RGB (Pillow's ConvertYCbCr.c: tables with six bits behind the point).
pub(super) fn ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let part = |weight: f32, code: u8| (weight * 64.0 * (f32::from(code) - 128.0) + 0.5) as i32;
    let y = i32::from(y);
    [
        y + (part(1.402, cr) >> 6),
        y + ((part(-0.34414, cb) + part(-0.71414, cr)) >> 6),
        y + (part(1.772, cb) >> 6),
    ]
    .map(|value| value.clamp(0, 255) as u8)
}
