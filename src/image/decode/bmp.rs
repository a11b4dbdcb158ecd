//! Windows and OS/2 bitmaps, with Pillow's rules (its `BmpImagePlugin`).

use super::{Decoded, Header, broken, buffer, colour, unsupported};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError};

pub(super) fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let bitmap = Bitmap::parse(bytes)?;
    // RGB, and the indices of a run-length coded picture.
    Ok(Header { width: bitmap.width, height: bitmap.height, pixel_bytes: 4, frames: 1, scans: (0, 0) })
}

pub(super) fn pixels(bytes: &[u8]) -> Result<Decoded, ImageError> {
    let bitmap = Bitmap::parse(bytes)?;
    let (width, height) = (bitmap.width as usize, bitmap.height as usize);
    let mut rgb = buffer(Format::Bmp, width * height * 3)?;
    let indices;
    let (data, stride) = match bitmap.run_bits {
        Some(bits) => {
            indices = run_lengths(bytes, bitmap.start, bits, width, height)?;
            (&indices[..], width)
        }
        None => {
            let stride = (width * bitmap.bits).div_ceil(32) * 4;
            (bytes.get(bitmap.start..).unwrap_or_default(), stride)
        }
    };
    let row_bytes =
        if bitmap.run_bits.is_some() { width } else { (width * bitmap.layout.bits()).div_ceil(8) };
    if row_bytes > stride {
        return Err(unsupported(Format::Bmp, "a grey palette for pixels of fewer bits"));
    }
    for (y, line) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let row = if bitmap.top_down { y } else { height - 1 - y };
        let start = row * stride;
        let source = data.get(start..start + row_bytes);
        let source = source.ok_or_else(|| broken(Format::Bmp, "the data ends too early"))?;
        bitmap.layout.unpack(source, line.as_chunks_mut::<3>().0, bitmap.run_bits.is_some());
    }
    Ok(Decoded { width: bitmap.width, height: bitmap.height, rgb, orientation: Orientation::Upright })
}

/// What the headers say.
struct Bitmap {
    width: u32,
    height: u32,
    top_down: bool,
    /// Bits a pixel in the file.
    bits: usize,
    layout: Layout,
    /// Bits of an index, 4 or 8, where the indices are run-length coded.
    run_bits: Option<u8>,
    /// Where the pixels start.
    start: usize,
}

/// How a pixel is stored.
enum Layout {
    /// An index of so many bits into 256 colours.
    Palette(usize, Box<[[u8; 3]; 256]>),
    /// 16 bits: 5 of red, 5 or 6 of green, 5 of blue.
    Packed { green_bits: u32 },
    /// Bytes: how many, and where red, green and blue are.
    Bytes(usize, [usize; 3]),
}

impl Layout {
    fn bits(&self) -> usize {
        match self {
            Self::Palette(bits, _) => *bits,
            Self::Packed { .. } => 16,
            Self::Bytes(bytes, _) => bytes * 8,
        }
    }

    /// One row; `expanded` where an index takes a whole byte.
    fn unpack(&self, source: &[u8], line: &mut [[u8; 3]], expanded: bool) {
        match self {
            Self::Palette(bits, palette) => {
                let bits = if expanded { 8 } else { *bits };
                let mask = ((1_u16 << bits) - 1) as u8;
                for (x, pixel) in line.iter_mut().enumerate() {
                    let bit = x * bits;
                    let index = source[bit / 8] >> (8 - bits - bit % 8) & mask;
                    *pixel = palette[usize::from(index)];
                }
            }
            Self::Packed { green_bits } => {
                for (pixel, value) in line.iter_mut().zip(source.as_chunks::<2>().0) {
                    let value = u32::from(u16::from_le_bytes(*value));
                    let widen = |value: u32, bits: u32| {
                        let most = (1 << bits) - 1;
                        ((value & most) * 255 / most) as u8
                    };
                    *pixel = [
                        widen(value >> (5 + green_bits), 5),
                        widen(value >> 5, *green_bits),
                        widen(value, 5),
                    ];
                }
            }
            Self::Bytes(step, places) => {
                for (pixel, bytes) in line.iter_mut().zip(source.chunks_exact(*step)) {
                    *pixel = places.map(|place| bytes[place]);
                }
            }
        }
    }
}

const UNCOMPRESSED: u32 = 0;
const RUNS_OF_8_BITS: u32 = 1;
const RUNS_OF_4_BITS: u32 = 2;
const BIT_FIELDS: u32 = 3;

impl Bitmap {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let short = |at: usize| {
            let field = bytes.get(at..at + 2).and_then(|field| field.try_into().ok());
            field.map(u16::from_le_bytes).ok_or_else(|| broken(Format::Bmp, "its header is incomplete"))
        };
        let long = |at: usize| {
            let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
            field.map(u32::from_le_bytes).ok_or_else(|| broken(Format::Bmp, "its header is incomplete"))
        };
        let header_size = long(14)? as usize;
        let header_end = 14 + header_size;
        let entry_size;
        let (width, height, top_down, bits, compression, colours);
        match header_size {
            12 => {
                (width, height, top_down) = (u32::from(short(18)?), u32::from(short(20)?), false);
                (bits, compression, colours, entry_size) = (short(24)?, UNCOMPRESSED, 0, 3);
            }
            40 | 52 | 56 | 64 | 108 | 124 => {
                let signed = long(22)?;
                top_down = signed >> 24 == 0xff;
                (width, height) = (long(18)?, if top_down { signed.wrapping_neg() } else { signed });
                (bits, compression, colours, entry_size) = (short(28)?, long(30)?, long(46)?, 4);
            }
            other => return Err(unsupported(Format::Bmp, format!("a header of {other} bytes"))),
        }
        if bytes.len() < header_end {
            return Err(broken(Format::Bmp, "its header is incomplete"));
        }
        let mut palette_at = header_end;
        let bits = usize::from(bits);
        let colours = match colours {
            0 if bits <= 16 => 1_usize << bits,
            colours => colours as usize,
        };
        let mut start = long(10)? as usize;
        if start == header_end && bits <= 8 {
            start = start.saturating_add(entry_size * colours);
        }
        let mut layout = match bits {
            1 | 4 | 8 => Layout::Palette(bits, Box::new([[0; 3]; 256])),
            16 => Layout::Packed { green_bits: 5 },
            24 => Layout::Bytes(3, [2, 1, 0]),
            32 => Layout::Bytes(4, [2, 1, 0]),
            other => return Err(unsupported(Format::Bmp, format!("{other} bits a pixel"))),
        };
        let mut run_bits = None;
        match compression {
            UNCOMPRESSED => {}
            RUNS_OF_8_BITS if bits <= 8 => run_bits = Some(8),
            RUNS_OF_4_BITS if bits <= 8 => run_bits = Some(4),
            BIT_FIELDS => {
                if header_size == 40 {
                    palette_at += 12;
                }
                let alpha = if header_size >= 56 { long(66)? } else { 0 };
                layout = bit_fields(bits, [long(54)?, long(58)?, long(62)?, alpha])?;
            }
            other => {
                return Err(unsupported(
                    Format::Bmp,
                    format!("compression {other} with {bits} bits a pixel"),
                ));
            }
        }
        if let Layout::Palette(bits, palette) = &mut layout {
            if colours == 0 || colours > 65_536 {
                return Err(unsupported(Format::Bmp, format!("a palette of {colours} colours")));
            }
            let stored = bytes.get(palette_at..).unwrap_or_default();
            let stored = &stored[..stored.len().min(colours * entry_size)];
            // A palette that is only a ramp of grey does without one: two colours are then one bit, more are a byte.
            let is_ramp = stored.len() >= colours * entry_size
                && stored.chunks_exact(entry_size).enumerate().all(|(index, entry)| {
                    let grey = if colours == 2 { index as u8 * 255 } else { index as u8 };
                    entry[..3] == [grey; 3]
                });
            if is_ramp {
                *bits = if colours <= 2 { 1 } else { 8 };
                let white = if colours <= 2 { 255 } else { 1 };
                **palette = std::array::from_fn(|index| [(index as u8).wrapping_mul(white); 3]);
            } else {
                if stored.len() > 256 * entry_size {
                    return Err(unsupported(Format::Bmp, format!("a palette of {colours} colours")));
                }
                let entries = stored.chunks_exact(entry_size);
                **palette = colour::palette(entries.map(|entry| [entry[2], entry[1], entry[0]]));
            }
            palette_at += stored.len();
        }
        let start = if start == 0 { palette_at } else { start };
        Ok(Self { width, height, top_down, bits, layout, run_bits, start })
    }
}

/// The masks that Pillow knows; alpha is dropped, wherever it is.
fn bit_fields(bits: usize, masks: [u32; 4]) -> Result<Layout, ImageError> {
    Ok(match (bits, masks) {
        (16, [0xf800, 0x7e0, 0x1f, _]) => Layout::Packed { green_bits: 6 },
        (16, [0x7c00, 0x3e0, 0x1f, _]) => Layout::Packed { green_bits: 5 },
        (24, [0xff_0000, 0xff00, 0xff, _]) => Layout::Bytes(3, [2, 1, 0]),
        (32, [0xff_0000, 0xff00, 0xff, 0 | 0xff00_0000] | [0, 0, 0, 0]) => Layout::Bytes(4, [2, 1, 0]),
        (32, [0xff00_0000, 0xff_0000, 0xff00, 0 | 0xff]) => Layout::Bytes(4, [3, 2, 1]),
        (32, [0xff00_0000, 0xff00, 0xff, 0 | 0xff_0000]) => Layout::Bytes(4, [3, 1, 0]),
        (32, [0xff, 0xff00, 0xff_0000, 0xff00_0000]) => Layout::Bytes(4, [0, 1, 2]),
        _ => return Err(unsupported(Format::Bmp, format!("bit fields {masks:x?} of {bits} bits a pixel"))),
    })
}

/// Run-length coded indices, one a byte, rows as in the file. Pixels that are skipped have index 0.
fn run_lengths(
    bytes: &[u8],
    start: usize,
    bits: u8,
    width: usize,
    height: usize,
) -> Result<Vec<u8>, ImageError> {
    let total = width * height;
    let mut out = Vec::new();
    out.try_reserve_exact(total).map_err(|_| broken(Format::Bmp, format!("no memory for {total} bytes")))?;
    let mut at = start;
    let mut x = 0;
    let push = |out: &mut Vec<u8>, value: u8| {
        if out.len() < total {
            out.push(value);
        }
    };
    while out.len() < total {
        let Some(&[count, value]) = bytes.get(at..at + 2) else { break };
        at += 2;
        match (count, value) {
            (0, 0) => {
                let missing = (width - out.len() % width) % width;
                out.resize((out.len() + missing).min(total), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let Some(&[right, up]) = bytes.get(at..at + 2) else { break };
                at += 2;
                let skipped = usize::from(right) + usize::from(up) * width;
                out.resize((out.len() + skipped).min(total), 0);
                x = out.len() % width;
            }
            (0, literal) => {
                let count = usize::from(literal).min(total - out.len());
                let length = if bits == 4 { count.div_ceil(2) } else { count };
                let Some(source) = bytes.get(at..at + length) else { break };
                for index in 0..count {
                    let value = match (bits, index % 2) {
                        (4, 0) => source[index / 2] >> 4,
                        (4, _) => source[index / 2] & 15,
                        _ => source[index],
                    };
                    push(&mut out, value);
                }
                x += usize::from(literal);
                // Literals end on an even byte of the file.
                at += length;
                at += at % 2;
            }
            (run, value) => {
                // A run never reaches into the next row.
                let run = usize::from(run).min(width.saturating_sub(x));
                for index in 0..run {
                    let value = match (bits, index % 2) {
                        (4, 0) => value >> 4,
                        (4, _) => value & 15,
                        _ => value,
                    };
                    push(&mut out, value);
                }
                x += run;
            }
        }
    }
    if out.len() < total {
        return Err(broken(Format::Bmp, format!("{} of its {total} pixels are missing", total - out.len())));
    }
    Ok(out)
}
