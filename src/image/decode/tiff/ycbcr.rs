//! Luma and subsampled chroma to RGB with libtiff's arithmetic, which is not Pillow's own.

use super::super::ifd::Directory;
use super::{damaged, refused, tag};
use crate::image::ImageError;

/// Tables for one picture's coefficients.
pub(super) struct YCbCr {
    /// Pixels across and down that share their chroma.
    pub(super) across: usize,
    pub(super) down: usize,
    luma: [i32; 256],
    red: [i32; 256],
    blue: [i32; 256],
    green_of_red: [i32; 256],
    green_of_blue: [i32; 256],
}

const BITS: i32 = 16;

impl YCbCr {
    pub(super) fn new(directory: &Directory) -> Result<Self, ImageError> {
        let (across, down) = subsampling(directory).unwrap_or((2, 2));
        if ![1, 2, 4].contains(&across) || ![1, 2, 4].contains(&down) {
            return Err(refused(format!("chroma for {across} × {down} pixels")));
        }
        let weights = directory.fractions(tag::YCBCR_COEFFICIENTS, 3);
        let weights =
            weights.filter(|weights| weights.len() == 3).unwrap_or_else(|| vec![0.299, 0.587, 0.114]);
        let range = directory.fractions(tag::REFERENCE_BLACK_WHITE, 6).filter(|range| range.len() == 6);
        let range = range.unwrap_or_else(|| vec![0.0, 255.0, 128.0, 255.0, 128.0, 255.0]);
        if weights[1] == 0.0 || weights.iter().chain(&range).any(|value| !value.is_finite()) {
            return Err(damaged("its YCbCr coefficients are not numbers"));
        }
        let fixed = |value: f32| (f64::from(value.clamp(0.0, 2.0)) * f64::from(1 << BITS) + 0.5) as i32;
        let red = 2.0 - 2.0 * weights[0];
        let blue = 2.0 - 2.0 * weights[2];
        let factors = [
            fixed(red),
            -fixed(weights[0] * red / weights[1]),
            fixed(blue),
            -fixed(weights[2] * blue / weights[1]),
        ];
        let scaled = |code: i32, black: f32, white: f32, most: f32| {
            let span = if white - black == 0.0 { 1.0 } else { white - black };
            let value = code.saturating_sub(black as i32) as f32 * most / span;
            value.clamp(-128.0 * 32.0, 128.0 * 32.0) as i32
        };
        let half = 1 << (BITS - 1);
        let cr = |code: usize| scaled(code as i32 - 128, range[4] - 128.0, range[5] - 128.0, 127.0);
        let cb = |code: usize| scaled(code as i32 - 128, range[2] - 128.0, range[3] - 128.0, 127.0);
        Ok(Self {
            across,
            down,
            luma: std::array::from_fn(|code| scaled(code as i32, range[0], range[1], 255.0)),
            red: std::array::from_fn(|code| (factors[0] * cr(code) + half) >> BITS),
            green_of_red: std::array::from_fn(|code| factors[1] * cr(code)),
            blue: std::array::from_fn(|code| (factors[2] * cb(code) + half) >> BITS),
            green_of_blue: std::array::from_fn(|code| factors[3] * cb(code) + half),
        })
    }

    pub(super) fn pixel(&self, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let (y, cb, cr) = (self.luma[usize::from(y)], usize::from(cb), usize::from(cr));
        [y + self.red[cr], y + ((self.green_of_blue[cb] + self.green_of_red[cr]) >> BITS), y + self.blue[cb]]
            .map(|value| value.clamp(0, 255) as u8)
    }

    /// Bytes of a chunk of `width × rows` pixels: blocks of luma, each followed by its two chroma samples.
    pub(super) fn chunk_bytes(&self, width: usize, rows: usize) -> usize {
        width.div_ceil(self.across) * rows.div_ceil(self.down) * (self.across * self.down + 2)
    }

    /// A chunk of blocks to RGB rows of `width` pixels.
    pub(super) fn convert(&self, source: &[u8], width: usize, out: &mut [[u8; 3]]) {
        let block = self.across * self.down + 2;
        let blocks = width.div_ceil(self.across);
        for (y, line) in out.chunks_exact_mut(width).enumerate() {
            let start = y / self.down * blocks * block;
            for (x, pixel) in line.iter_mut().enumerate() {
                let samples = &source[start + x / self.across * block..][..block];
                let luma = samples[y % self.down * self.across + x % self.across];
                *pixel = self.pixel([luma, samples[block - 2], samples[block - 1]]);
            }
        }
    }
}

/// Pixels across and down that share their chroma, where the file says so.
pub(super) fn subsampling(directory: &Directory) -> Option<(usize, usize)> {
    match directory.integers(tag::YCBCR_SUBSAMPLING, 2)?[..] {
        [across, down] => Some((usize::try_from(across).ok()?, usize::try_from(down).ok()?)),
        _ => None,
    }
}
