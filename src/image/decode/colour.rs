//! Pillow's conversions to RGB, each named after the mode or raw mode that Pillow gives the samples.

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

/// One 8-bit `YCbCr` pixel to RGB by JFIF's formula.
pub(super) fn ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb]
        .map(|value| value.round().clamp(0.0, 255.0) as u8)
}
