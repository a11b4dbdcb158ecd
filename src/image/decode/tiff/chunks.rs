//! Strips and tiles to the RGB picture.

use super::super::{buffer, colour, ifd::Directory, jpeg};
use super::compression::{Fax, expand};
use super::layout::{Compression, Layout};
use super::mode::{self, Mode, RowConverter};
use super::ycbcr::{self, YCbCr};
use super::{damaged, predictor, refused, tag};
use crate::image::{Format, ImageError, ImageLimits};

/// All chunks together may name so many bytes for every byte of the file: writers share equal tiles.
const MAX_REUSE: u64 = 16;

/// `[height, width, 3]` bytes.
pub(super) fn rgb(
    bytes: &[u8],
    directory: &Directory,
    layout: &Layout,
    limits: &ImageLimits,
) -> Result<Vec<u8>, ImageError> {
    let compressed = layout.byte_counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    if layout.compression != Compression::None && compressed / MAX_REUSE > bytes.len() as u64 {
        return Err(refused("strips or tiles that share their data more than 16 times"));
    }
    if layout.compression == Compression::Jpeg && !layout.planar {
        return jpeg_chunks(bytes, directory, layout, limits);
    }
    if layout.mode == Mode::YCbCr {
        // Without a tag libtiff takes 2 × 2; Pillow reads plain samples itself and never looks.
        let default = if layout.compression == Compression::None { (1, 1) } else { (2, 2) };
        if ycbcr::subsampling(directory).unwrap_or(default) != (1, 1) {
            return blocks(bytes, directory, layout);
        }
    }
    samples(bytes, directory, layout, limits)
}

/// A strip or tile.
struct Chunk {
    /// Its number among those of its plane.
    index: usize,
    left: usize,
    top: usize,
    /// Rows that are stored.
    rows: usize,
    /// Pixels of a row inside the picture.
    visible: usize,
    /// Rows inside the picture.
    visible_rows: usize,
}

impl Layout {
    fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let across = self.width.div_ceil(self.chunk_width);
        let down = self.height.div_ceil(self.chunk_height);
        (0..across * down).map(move |index| {
            let (left, top) = (index % across * self.chunk_width, index / across * self.chunk_height);
            let visible_rows = self.chunk_height.min(self.height - top);
            let rows = if self.tiled { self.chunk_height } else { visible_rows };
            let visible = self.chunk_width.min(self.width - left);
            Chunk { index, left, top, rows, visible, visible_rows }
        })
    }

    /// Number of chunks of one plane.
    fn chunks_of_plane(&self) -> usize {
        self.width.div_ceil(self.chunk_width) * self.height.div_ceil(self.chunk_height)
    }

    /// The stored bytes of a chunk; to the end of the file where its length is not known or not needed.
    fn source<'a>(&self, bytes: &'a [u8], index: usize) -> Result<&'a [u8], ImageError> {
        let start = usize::try_from(self.offsets[index]).unwrap_or(usize::MAX);
        let rest = bytes.get(start..).ok_or_else(|| damaged("a strip or tile lies outside the file"))?;
        let length = match self.byte_counts.get(index) {
            Some(0) | None => rest.len(),
            Some(_) if self.compression == Compression::None => rest.len(),
            Some(count) => usize::try_from(*count).unwrap_or(usize::MAX).min(rest.len()),
        };
        Ok(&rest[..length])
    }

    /// A chunk's bytes, expanded into `out`.
    fn read(
        &self,
        bytes: &[u8],
        index: usize,
        rows: usize,
        options: u64,
        out: &mut [u8],
    ) -> Result<(), ImageError> {
        let source = self.source(bytes, index)?;
        let fax = Fax { width: self.chunk_width * self.chunk_samples(), rows, options };
        if self.reversed {
            let source = if self.compression == Compression::None {
                &source[..source.len().min(out.len())]
            } else {
                source
            };
            let turned: Vec<u8> = source.iter().map(|byte| byte.reverse_bits()).collect();
            expand(&turned, out, self.compression, fax)?;
        } else {
            expand(source, out, self.compression, fax)?;
        }
        predictor::undo(out, self.chunk_width, self)
    }
}

/// Chunks of samples, plane by plane, then rows to RGB.
fn samples(
    bytes: &[u8],
    directory: &Directory,
    layout: &Layout,
    limits: &ImageLimits,
) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (layout.width, layout.height);
    let options = directory.integer(tag::T4_OPTIONS).unwrap_or(0);
    let palette = if layout.mode == Mode::Palette {
        let map =
            directory.integers(tag::COLOUR_MAP, 3 << 16).ok_or_else(|| damaged("its palette is missing"))?;
        Some(mode::palette(&map))
    } else {
        None
    };
    let table = (layout.bits == 1).then(|| {
        let ends = match (&palette, layout.mode) {
            (Some(palette), _) => (palette[0], palette[1]),
            (None, Mode::Grey { inverted: true }) => ([255; 3], [0; 3]),
            (None, _) => ([0; 3], [255; 3]),
        };
        mode::bytes_of_bits(ends.0, ends.1)
    });
    let planes = if layout.planar { layout.samples } else { 1 };
    let row_bytes = layout.row_bytes(width);
    let chunk_row = layout.row_bytes(layout.chunk_width);
    let bits_across = layout.chunk_width * layout.chunk_samples() * layout.bits;
    if layout.chunk_width < width && !bits_across.is_multiple_of(8) {
        return Err(refused("tiles whose rows do not end on a byte"));
    }
    let plane_bytes = row_bytes * height;
    let mut stored = buffer(Format::Tiff, plane_bytes * planes)?;
    // The chunk that is read; strips and tiles as wide as the picture are read where they belong.
    let direct = layout.chunk_width == width;
    let mut tile = if direct && !layout.tiled {
        Vec::new()
    } else {
        buffer(Format::Tiff, chunk_row * layout.chunk_height)?
    };
    let mut jpegs = Jpegs { bytes, directory, layout, limits, work: limits.max_decode_work };
    for plane in 0..planes {
        for chunk in layout.chunks() {
            let index = plane * layout.chunks_of_plane() + chunk.index;
            let start = plane * plane_bytes
                + chunk.top * row_bytes
                + (chunk.left * bits_across / layout.chunk_width) / 8;
            let mut read = |out: &mut [u8]| -> Result<(), ImageError> {
                if layout.compression == Compression::Jpeg {
                    return jpegs.plane(index, chunk.rows, out);
                }
                layout.read(bytes, index, chunk.rows, options, out)
            };
            if tile.is_empty() {
                read(&mut stored[start..start + chunk.rows * row_bytes])?;
                continue;
            }
            read(&mut tile[..chunk.rows * chunk_row])?;
            let visible = layout.row_bytes(chunk.visible);
            for row in 0..chunk.visible_rows {
                stored[start + row * row_bytes..][..visible]
                    .copy_from_slice(&tile[row * chunk_row..][..visible]);
            }
        }
    }
    drop(tile);
    let tables = match (layout.mode, layout.compression) {
        (Mode::YCbCr, Compression::None) => None,
        (Mode::YCbCr, _) => Some(YCbCr::new(directory)?),
        _ => None,
    };
    let converter = RowConverter {
        ycbcr: tables.as_ref(),
        mode: layout.mode,
        bits: layout.bits,
        samples: layout.samples,
        little_endian: layout.little_endian,
        palette: palette.as_deref(),
        bytes_of_bits: table.as_deref(),
    };
    let mut rgb = buffer(Format::Tiff, width * height * 3)?;
    let mut clipped = false;
    let mut together = Vec::new();
    for (y, line) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let line = line.as_chunks_mut::<3>().0;
        let row = &stored[y * row_bytes..][..row_bytes];
        if planes == 1 {
            clipped |= converter.convert(row, line)?;
            continue;
        }
        let size = layout.bits / 8;
        if size == 0 {
            return Err(refused("planes of less than 8 bits"));
        }
        together.resize(row_bytes * planes, 0);
        for plane in 0..planes {
            let row = &stored[plane * plane_bytes + y * row_bytes..][..row_bytes];
            for (x, sample) in row.chunks_exact(size).enumerate() {
                together[(x * planes + plane) * size..][..size].copy_from_slice(sample);
            }
        }
        clipped |= converter.convert(&together, line)?;
    }
    mode::warn(clipped);
    Ok(rgb)
}

/// Chunks of luma blocks with their chroma.
fn blocks(bytes: &[u8], directory: &Directory, layout: &Layout) -> Result<Vec<u8>, ImageError> {
    if layout.predictor > 1 || layout.planar {
        return Err(refused("subsampled YCbCr in planes or with a predictor"));
    }
    let converter = YCbCr::new(directory)?;
    let mut picture = Canvas::new(layout)?;
    let mut stored = buffer(Format::Tiff, converter.chunk_bytes(layout.chunk_width, layout.chunk_height))?;
    let mut rgb = buffer(Format::Tiff, layout.chunk_width * layout.chunk_height * 3)?;
    for chunk in layout.chunks() {
        let length = converter.chunk_bytes(layout.chunk_width, chunk.rows);
        layout.read(bytes, chunk.index, chunk.rows, 0, &mut stored[..length])?;
        let pixels = &mut rgb.as_chunks_mut::<3>().0[..layout.chunk_width * chunk.rows];
        converter.convert(&stored, layout.chunk_width, pixels);
        picture.put(&chunk, layout, &rgb);
    }
    Ok(picture.rgb)
}

/// Chunks that are JPEGs.
fn jpeg_chunks(
    bytes: &[u8],
    directory: &Directory,
    layout: &Layout,
    limits: &ImageLimits,
) -> Result<Vec<u8>, ImageError> {
    let colours = match layout.mode {
        Mode::Grey { .. } => jpeg::Colours::Grey,
        Mode::YCbCr => jpeg::Colours::YCbCr,
        Mode::Rgb { premultiplied: false } if layout.samples == 3 => jpeg::Colours::Rgb,
        Mode::Cmyk if layout.samples == 4 => jpeg::Colours::Cmyk,
        _ => return Err(refused("JPEG compression of such samples")),
    };
    if layout.bits != 8 {
        return Err(refused(format!("JPEG compression of {} bits", layout.bits)));
    }
    let mut picture = Canvas::new(layout)?;
    let mut jpegs = Jpegs { bytes, directory, layout, limits, work: limits.max_decode_work };
    for chunk in layout.chunks() {
        let part = jpegs.chunk(chunk.index, chunk.rows, colours)?;
        let part = match layout.mode {
            Mode::Cmyk => part.as_chunks::<4>().0.iter().flat_map(|pixel| colour::cmyk(*pixel)).collect(),
            Mode::Grey { inverted: true } => part.into_iter().map(|value| 255 - value).collect(),
            _ => part,
        };
        picture.put(&chunk, layout, &part);
    }
    Ok(picture.rgb)
}

/// Strips or tiles that are JPEGs, and what is left of the work that they may ask for.
struct Jpegs<'a> {
    bytes: &'a [u8],
    directory: &'a Directory<'a>,
    layout: &'a Layout,
    limits: &'a ImageLimits,
    work: u64,
}

impl Jpegs<'_> {
    fn chunk(&mut self, index: usize, rows: usize, colours: jpeg::Colours) -> Result<Vec<u8>, ImageError> {
        let source = self.layout.source(self.bytes, index)?;
        let tables = self.directory.data(tag::JPEG_TABLES);
        let size = (self.layout.chunk_width, rows);
        jpeg::embedded(source, tables, colours, self.limits, size, &mut self.work)
    }

    /// A chunk of one plane of a picture whose planes are JPEGs of their own.
    fn plane(&mut self, index: usize, rows: usize, out: &mut [u8]) -> Result<(), ImageError> {
        if self.layout.bits != 8 || self.layout.mode == Mode::YCbCr {
            return Err(refused("JPEG compression of such planes"));
        }
        let grey = self.chunk(index, rows, jpeg::Colours::Grey)?;
        for (sample, pixel) in out.iter_mut().zip(grey.as_chunks::<3>().0) {
            *sample = pixel[0];
        }
        Ok(())
    }
}

/// The picture that chunks of RGB are put into.
struct Canvas {
    rgb: Vec<u8>,
}

impl Canvas {
    fn new(layout: &Layout) -> Result<Self, ImageError> {
        Ok(Self { rgb: buffer(Format::Tiff, layout.width * layout.height * 3)? })
    }

    fn put(&mut self, chunk: &Chunk, layout: &Layout, pixels: &[u8]) {
        for row in 0..chunk.visible_rows {
            let start = ((chunk.top + row) * layout.width + chunk.left) * 3;
            let source = &pixels[row * layout.chunk_width * 3..][..chunk.visible * 3];
            self.rgb[start..start + source.len()].copy_from_slice(source);
        }
    }
}
