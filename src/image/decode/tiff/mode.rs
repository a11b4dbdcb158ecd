//! What samples mean and how they become RGB: the table `OPEN_INFO` of Pillow's `TiffImagePlugin`, and its conversions.

use super::super::colour;
use super::ycbcr::YCbCr;
use super::{damaged, refused};
use crate::image::{Format, ImageError};

/// The meaning of a pixel's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// One sample of at most 8 bits (of 16 with alpha, of which the high byte is kept).
    Grey { inverted: bool },
    /// One sample of more bits, clipped.
    Wide(Wide),
    /// An index.
    Palette,
    /// Red, green, blue and perhaps more.
    Rgb { premultiplied: bool },
    /// Inks.
    Cmyk,
    /// Luma and chroma.
    YCbCr,
}

/// Samples that Pillow's `convert("RGB")` clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wide {
    U12,
    U16,
    I16,
    I32,
    F32,
    F64,
}

impl Mode {
    /// The mode of `samples` samples of `bits` bits.
    pub(super) fn find(
        photometric: u64,
        format: u64,
        bits: usize,
        samples: usize,
        extra: &[u64],
    ) -> Result<Self, ImageError> {
        let unsigned = format == 1 || format == 4;
        let mode = match (photometric, bits, samples) {
            (0 | 1, 1 | 2 | 4 | 8, 1) if unsigned => Self::Grey { inverted: photometric == 0 },
            // Signed bytes are taken for unsigned ones.
            (1, 8, 1) if format == 2 => Self::Grey { inverted: false },
            (6, 8, 1) if unsigned => Self::Grey { inverted: false },
            (1, 8 | 16, 2) if unsigned && extra.first() != Some(&1) => Self::Grey { inverted: false },
            (0 | 1, 12, 1) if unsigned => Self::Wide(Wide::U12),
            (0 | 1, 16, 1) if unsigned => Self::Wide(Wide::U16),
            (0 | 1, 16, 1) if format == 2 => Self::Wide(Wide::I16),
            (0 | 1, 32, 1) if unsigned || format == 2 => Self::Wide(Wide::I32),
            (0 | 1, 32, 1) if format == 3 => Self::Wide(Wide::F32),
            (0 | 1, 64, 1) if format == 3 => Self::Wide(Wide::F64),
            (3, 1 | 2 | 4 | 8, 1) | (3, 8, 2) if unsigned => Self::Palette,
            (2, 8 | 16, 3..) if unsigned => {
                Self::Rgb { premultiplied: samples > 3 && extra.first() == Some(&1) }
            }
            (5, 8 | 16, 4..) if unsigned => Self::Cmyk,
            (6, 8, 3) if unsigned => Self::YCbCr,
            (8, ..) => return Err(refused("the colour space CIE L*a*b*")),
            _ => {
                return Err(refused(format!(
                    "{samples} samples of {bits} bits, sample format {format}, photometric interpretation \
                     {photometric}, extra samples {extra:?}"
                )));
            }
        };
        Ok(mode)
    }
}

/// One row of samples, all of a pixel's together, to RGB.
pub(super) struct RowConverter<'a> {
    pub(super) mode: Mode,
    pub(super) bits: usize,
    pub(super) samples: usize,
    pub(super) little_endian: bool,
    /// libtiff's arithmetic; Pillow's own where there is none.
    pub(super) ycbcr: Option<&'a YCbCr>,
    pub(super) palette: Option<&'a [[u8; 3]; 256]>,
    /// For every byte of 1-bit samples its eight pixels.
    pub(super) bytes_of_bits: Option<&'a [[[u8; 3]; 8]; 256]>,
}

impl RowConverter<'_> {
    /// Returns whether a value was clipped.
    pub(super) fn convert(&self, source: &[u8], line: &mut [[u8; 3]]) -> Result<bool, ImageError> {
        let wide = usize::from(self.bits == 16);
        // The high byte of a sample.
        let high = |pixel: &[u8], sample: usize| {
            pixel[(sample << wide) + usize::from(wide == 1 && self.little_endian)]
        };
        let step = self.samples << wide;
        let mut clipped = false;
        match self.mode {
            Mode::Grey { .. } | Mode::Palette if self.bits < 8 => self.small(source, line)?,
            Mode::Grey { inverted } => {
                for (out, pixel) in line.iter_mut().zip(source.chunks_exact(step)) {
                    let value = high(pixel, 0);
                    *out = [if inverted { 255 - value } else { value }; 3];
                }
            }
            Mode::Palette => {
                let palette = self.palette.ok_or_else(|| damaged("its palette is missing"))?;
                for (out, pixel) in line.iter_mut().zip(source.chunks_exact(step)) {
                    *out = palette[usize::from(pixel[0])];
                }
            }
            Mode::Wide(kind) => clipped = self.wide(kind, source, line),
            Mode::Rgb { premultiplied: true } => {
                for (out, pixel) in line.iter_mut().zip(source.chunks_exact(step)) {
                    *out = colour::unmultiply([0, 1, 2, 3].map(|sample| high(pixel, sample)));
                }
            }
            Mode::Rgb { premultiplied: false } => {
                for (out, pixel) in line.iter_mut().zip(source.chunks_exact(step)) {
                    *out = [0, 1, 2].map(|sample| high(pixel, sample));
                }
            }
            Mode::Cmyk => {
                for (out, pixel) in line.iter_mut().zip(source.chunks_exact(step)) {
                    *out = colour::cmyk([0, 1, 2, 3].map(|sample| high(pixel, sample)));
                }
            }
            Mode::YCbCr => {
                for (out, pixel) in line.iter_mut().zip(source.chunks_exact(step)) {
                    let samples = [pixel[0], pixel[1], pixel[2]];
                    *out = self.ycbcr.map_or_else(|| colour::ycbcr(samples), |tables| tables.pixel(samples));
                }
            }
        }
        Ok(clipped)
    }

    /// Samples of 1, 2 or 4 bits.
    fn small(&self, source: &[u8], line: &mut [[u8; 3]]) -> Result<(), ImageError> {
        let inverted = matches!(self.mode, Mode::Grey { inverted: true });
        let white = 255 / ((1_u16 << self.bits) - 1) as u8;
        let colour = |value: u8| match self.palette {
            Some(palette) => palette[usize::from(value)],
            None => [if inverted { 255 - value * white } else { value * white }; 3],
        };
        if let (1, Some(table)) = (self.bits, self.bytes_of_bits) {
            let (whole, rest) = line.as_chunks_mut::<8>();
            for (out, byte) in whole.iter_mut().zip(source) {
                *out = table[usize::from(*byte)];
            }
            if let Some(byte) = source.get(whole.len()) {
                rest.copy_from_slice(&table[usize::from(*byte)][..rest.len()]);
            }
            return Ok(());
        }
        let mask = ((1_u16 << self.bits) - 1) as u8;
        for (x, out) in line.iter_mut().enumerate() {
            let bit = x * self.bits;
            *out = colour(source[bit / 8] >> (8 - self.bits - bit % 8) & mask);
        }
        Ok(())
    }

    fn wide(&self, kind: Wide, source: &[u8], line: &mut [[u8; 3]]) -> bool {
        let mut clipped = false;
        let mut put = |out: &mut [u8; 3], value: f64| {
            clipped |= value > 255.0;
            *out = [colour::clip(value); 3];
        };
        let little = self.little_endian;
        macro_rules! all {
            ($number:ty, $bytes:literal, $convert:expr) => {
                for (out, bytes) in line.iter_mut().zip(source.as_chunks::<$bytes>().0) {
                    let value = if little {
                        <$number>::from_le_bytes(*bytes)
                    } else {
                        <$number>::from_be_bytes(*bytes)
                    };
                    put(out, $convert(value));
                }
            };
        }
        match kind {
            Wide::U12 => {
                for (x, out) in line.iter_mut().enumerate() {
                    let at = x / 2 * 3;
                    let byte = |at: usize| u32::from(source.get(at).copied().unwrap_or(0));
                    let value = if x % 2 == 0 {
                        byte(at) << 4 | byte(at + 1) >> 4
                    } else {
                        (byte(at + 1) & 15) << 8 | byte(at + 2)
                    };
                    put(out, f64::from(value));
                }
            }
            Wide::U16 => all!(u16, 2, f64::from),
            Wide::I16 => all!(i16, 2, f64::from),
            Wide::I32 => all!(i32, 4, f64::from),
            Wide::F32 => all!(f32, 4, f64::from),
            Wide::F64 => all!(f64, 8, |value| value),
        }
        clipped
    }
}

/// The colours of a palette: `[3, colours]` 16-bit values, of which Pillow keeps the high bytes.
pub(super) fn palette(map: &[u64]) -> Box<[[u8; 3]; 256]> {
    let colours = map.len() / 3;
    let high = |at: usize| (map[at] >> 8) as u8;
    let entry = |index| [high(index), high(colours + index), high(2 * colours + index)];
    Box::new(colour::palette((0..colours).map(entry)))
}

/// The pixels of every byte of 1-bit samples.
pub(super) fn bytes_of_bits(zero: [u8; 3], one: [u8; 3]) -> Box<[[[u8; 3]; 8]; 256]> {
    let pixel = |byte: usize, bit: usize| if byte >> (7 - bit) & 1 == 1 { one } else { zero };
    Box::new(std::array::from_fn(|byte| std::array::from_fn(|bit| pixel(byte, bit))))
}

/// Says that wide samples were clipped.
pub(super) fn warn(clipped: bool) {
    colour::warn_clipped(Format::Tiff, clipped);
}
