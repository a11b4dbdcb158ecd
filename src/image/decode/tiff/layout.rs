//! What the tags say about where samples are and what they are.

use super::super::ifd::Directory;
use super::mode::Mode;
use super::{damaged, refused, tag};
use crate::image::ImageError;

/// More strips or tiles than any writer makes.
const MAX_CHUNKS: usize = 1 << 20;

/// Samples of a pixel, as many as Pillow reads.
const MAX_SAMPLES: usize = 6;

/// How the samples of a strip or tile are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// CCITT's modified Huffman code, each row on a byte boundary.
    Rle,
    Group3,
    Group4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
    Zstd,
}

impl Compression {
    fn from_number(number: u64) -> Result<Self, ImageError> {
        Ok(match number {
            1 => Self::None,
            2 => Self::Rle,
            3 => Self::Group3,
            4 => Self::Group4,
            5 => Self::Lzw,
            7 => Self::Jpeg,
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            50000 => Self::Zstd,
            6 => return Err(refused("the JPEG compression of TIFF 5 (6), which TIFF 6 replaced")),
            34925 => return Err(refused("LZMA compression")),
            50001 => return Err(refused("WebP compression")),
            other => return Err(refused(format!("compression {other}"))),
        })
    }

    /// Whether libtiff undoes a difference of neighbours behind it.
    fn has_predictor(self) -> bool {
        matches!(self, Self::Lzw | Self::Deflate | Self::Zstd)
    }
}

/// The first picture of a TIFF.
pub(super) struct Layout {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Bits of a sample.
    pub(super) bits: usize,
    /// Samples of a pixel that are stored.
    pub(super) samples: usize,
    /// Whether each sample has strips or tiles of its own.
    pub(super) planar: bool,
    pub(super) mode: Mode,
    pub(super) compression: Compression,
    /// 1 none, 2 differences of integers, 3 of floating point numbers.
    pub(super) predictor: u64,
    /// Whether the bits of each byte are in the other order.
    pub(super) reversed: bool,
    pub(super) little_endian: bool,
    /// Whether chunks are tiles, which are always whole; the last strip may be shorter.
    pub(super) tiled: bool,
    /// Width of a strip or tile.
    pub(super) chunk_width: usize,
    /// Height of a strip or tile.
    pub(super) chunk_height: usize,
    /// Where strips or tiles start, plane by plane, from left to right and from top to bottom.
    pub(super) offsets: Vec<u64>,
    /// Their bytes, where the file says so.
    pub(super) byte_counts: Vec<u64>,
}

/// Width and height.
pub(super) fn size(directory: &Directory) -> Result<(u32, u32), ImageError> {
    let side = |tag| -> Result<u32, ImageError> {
        let side = directory.integer(tag).ok_or_else(|| damaged("its size is missing"))?;
        u32::try_from(side).map_err(|_| damaged("its size overflows"))
    };
    Ok((side(tag::WIDTH)?, side(tag::HEIGHT)?))
}

impl Layout {
    pub(super) fn parse(directory: &Directory) -> Result<Self, ImageError> {
        let number = |tag, default| directory.integer(tag).unwrap_or(default);
        let (width, height) = size(directory)?;
        let (width, height) = (width as usize, height as usize);
        let compression = Compression::from_number(number(tag::COMPRESSION, 1))?;
        let photometric = number(tag::PHOTOMETRIC, 0);
        let default_samples =
            if compression == Compression::Jpeg && matches!(photometric, 2 | 6) { 3 } else { 1 };
        let samples = number(tag::SAMPLES_PER_PIXEL, default_samples);
        if samples == 0 || samples > MAX_SAMPLES as u64 {
            return Err(refused(format!("{samples} samples per pixel")));
        }
        let samples = samples as usize;
        let list = |tag, default: u64| -> Vec<u64> {
            directory.integers(tag, 64).unwrap_or_else(|| vec![directory.integer(tag).unwrap_or(default)])
        };
        let mut depths = list(tag::BITS_PER_SAMPLE, 1);
        if depths.len() == 1 {
            depths.resize(samples, depths[0]);
        }
        depths.truncate(samples);
        if depths.len() != samples || depths.iter().any(|depth| *depth != depths[0]) {
            return Err(refused(format!("samples of {depths:?} bits")));
        }
        let bits = usize::try_from(depths[0]).unwrap_or(usize::MAX);
        let planar = number(tag::PLANAR_CONFIGURATION, 1) == 2 && samples > 1;
        let extra =
            if directory.count(tag::EXTRA_SAMPLES) > 0 { list(tag::EXTRA_SAMPLES, 0) } else { Vec::new() };
        let formats = list(tag::SAMPLE_FORMAT, 1);
        let format = if formats.iter().all(|format| *format == formats[0]) { formats[0] } else { 0 };
        let mode = Mode::find(photometric, format, bits, samples, &extra)?;
        let tiled = directory.count(tag::STRIP_OFFSETS) == 0;
        let (chunk_width, chunk_height) = if tiled {
            let side = |tag| directory.integer(tag).and_then(|side| usize::try_from(side).ok());
            let sides = side(tag::TILE_WIDTH).zip(side(tag::TILE_LENGTH));
            sides.ok_or_else(|| damaged("it has neither strips nor tiles"))?
        } else {
            let rows = number(tag::ROWS_PER_STRIP, height as u64).min(height as u64);
            (width, rows as usize)
        };
        if chunk_width == 0 || chunk_height == 0 {
            return Err(if width == 0 || height == 0 {
                damaged("its size is zero")
            } else {
                damaged("empty strips")
            });
        }
        let most = (width * height).max(1 << 20);
        if chunk_width.checked_mul(chunk_height).is_none_or(|pixels| pixels > most) {
            return Err(refused(format!("tiles of {chunk_width} × {chunk_height} pixels")));
        }
        let planes = if planar { samples } else { 1 };
        let expected = width.div_ceil(chunk_width) * height.div_ceil(chunk_height) * planes;
        if expected > MAX_CHUNKS {
            return Err(refused(format!("{expected} strips or tiles")));
        }
        let (offsets, byte_counts) = if tiled {
            (tag::TILE_OFFSETS, tag::TILE_BYTE_COUNTS)
        } else {
            (tag::STRIP_OFFSETS, tag::STRIP_BYTE_COUNTS)
        };
        let offsets = directory.integers(offsets, MAX_CHUNKS).unwrap_or_default();
        let mut byte_counts = directory.integers(byte_counts, MAX_CHUNKS).unwrap_or_default();
        let mut offsets = offsets;
        if expected == 1 && offsets.len() > 1 && compression == Compression::None {
            // Each of them covers the picture: Pillow takes the last.
            offsets.drain(..offsets.len() - 1);
            byte_counts.clear();
        }
        if offsets.len() < expected {
            return Err(damaged(format!(
                "{} of its {expected} strips or tiles are missing",
                expected - offsets.len()
            )));
        }
        let is_measured = byte_counts.len() >= expected && !byte_counts[..expected].contains(&0);
        if compression != Compression::None && expected > 1 && !is_measured {
            return Err(damaged("the lengths of its strips or tiles are missing"));
        }
        let predictor = if compression.has_predictor() { number(tag::PREDICTOR, 1) } else { 1 };
        Ok(Self {
            width,
            height,
            bits,
            samples,
            planar,
            mode,
            compression,
            predictor,
            reversed: number(tag::FILL_ORDER, 1) == 2 && compression != Compression::Jpeg,
            little_endian: directory.is_little_endian(),
            tiled,
            chunk_width,
            chunk_height,
            offsets,
            byte_counts,
        })
    }

    /// Bytes that the stored samples of a pixel take, rounded up.
    pub(super) fn sample_bytes_per_pixel(&self) -> u64 {
        (self.bits * self.samples).div_ceil(8) as u64
    }

    /// Samples of a pixel in one strip or tile.
    pub(super) fn chunk_samples(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Bytes of a row of `width` pixels in one plane.
    pub(super) fn row_bytes(&self, width: usize) -> usize {
        (width * self.chunk_samples() * self.bits).div_ceil(8)
    }
}
