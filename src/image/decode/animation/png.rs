//! Frames of an animated PNG, as Pillow's PngImagePlugin.py composes them: each is read as a file of its own.
//!
//! A picture that is no part of the animation is what the first frame is drawn on. Alpha that Pillow keeps beside the colours
//! decides nothing about them, and is left out here.

use std::io::Cursor;

use png::{BitDepth, ColorType, DecodeOptions, Decoder, Limits, Transformations};

use super::{Animation, Place, Survey, Timed, blend};
use crate::image::decode::{broken, buffer, colour, memory_limit, png as still, unsupported};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError, ImageLimits};

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const BACKGROUND: u8 = 1;
const PREVIOUS: u8 = 2;
const OVER: u8 = 1;

/// A frame by its control chunk.
#[derive(Clone, Copy, Default)]
struct Control {
    place: Option<Place>,
    duration: f64,
    dispose: u8,
    blend: u8,
}

/// A picture in the file: where the contents of its data chunks are.
#[derive(Default)]
struct Part {
    control: Control,
    data: Vec<(usize, usize)>,
}

/// What the chunks say.
struct Parts {
    width: u32,
    height: u32,
    /// The rest of the header: depth, type, methods.
    rest: [u8; 5],
    /// Palette and transparency, as chunks.
    colours: Vec<u8>,
    /// The picture that is no frame.
    default: Option<Part>,
    frames: Vec<Part>,
}

fn parts(bytes: &[u8], limits: &ImageLimits) -> Result<Option<Parts>, ImageError> {
    let number = |at: usize| {
        bytes.get(at..at + 4).map(|field| u32::from_be_bytes([field[0], field[1], field[2], field[3]]))
    };
    let early = || broken(Format::Png, "the data ends too early");
    let (mut at, mut animated) = (SIGNATURE.len(), false);
    let mut parts: Option<Parts> = None;
    // As for Pillow, what cannot be read is the end.
    while let Some(length) = number(at).map(|length| length as usize) {
        let Some(name) = bytes.get(at + 4..at + 8) else { break };
        let (from, to) = (at + 8, at + 8 + length);
        let Some(body) = bytes.get(from..to) else { break };
        match (name, &mut parts) {
            (b"IHDR", parts @ None) if length >= 13 => {
                let mut rest = [0; 5];
                rest.copy_from_slice(&body[8..13]);
                let (width, height) = (number(from).ok_or_else(early)?, number(from + 4).ok_or_else(early)?);
                *parts = Some(Parts {
                    width,
                    height,
                    rest,
                    colours: Vec::new(),
                    default: None,
                    frames: Vec::new(),
                });
            }
            (_, None) => return Err(broken(Format::Png, "its header is missing")),
            (b"acTL", Some(_)) => animated = true,
            (b"PLTE" | b"tRNS", Some(parts)) => put(&mut parts.colours, name, &[body]),
            (b"fcTL", Some(parts)) => {
                if parts.frames.len() > limits.max_frames as usize {
                    break;
                }
                let control = control(body, parts.width, parts.height)?;
                parts.frames.push(Part { control, data: Vec::new() });
            }
            (b"IDAT", Some(parts)) => match parts.frames.first_mut() {
                Some(first) => first.data.push((from, to)),
                None => parts.default.get_or_insert_default().data.push((from, to)),
            },
            // After a number.
            (b"fdAT", Some(parts)) if length >= 4 => {
                if let Some(frame) = parts.frames.last_mut() {
                    frame.data.push((from + 4, to));
                }
            }
            (b"IEND", _) => break,
            _ => {}
        }
        // After a checksum.
        at = to + 4;
    }
    let mut parts = parts.filter(|_| animated);
    if let Some(parts) = &mut parts {
        let whole = parts.frames.iter().position(|frame| frame.data.is_empty()).unwrap_or(parts.frames.len());
        parts.frames.truncate(whole);
    }
    Ok(parts)
}

fn control(body: &[u8], width: u32, height: u32) -> Result<Control, ImageError> {
    let body = body.get(..26).ok_or_else(|| broken(Format::Png, "a frame's header is too short"))?;
    let long = |at: usize| u32::from_be_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    let short = |at: usize| f64::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let (w, h, left, top) = (long(4), long(8), long(12), long(16));
    let fits =
        |from: u32, size: u32, limit: u32| size > 0 && from.checked_add(size).is_some_and(|to| to <= limit);
    if !fits(left, w, width) || !fits(top, h, height) {
        return Err(broken(Format::Png, "a frame reaches over the picture"));
    }
    let place = Place { left: left as usize, top: top as usize, width: w as usize, height: h as usize };
    let parts = if short(22) == 0.0 { 100.0 } else { short(22) };
    Ok(Control {
        place: Some(place),
        duration: short(20) * 1000.0 / parts,
        dispose: body[24],
        blend: body[25],
    })
}

/// Adds a chunk; nobody looks at its checksum.
fn put(file: &mut Vec<u8>, name: &[u8], body: &[&[u8]]) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    file.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    file.extend(name);
    body.iter().for_each(|part| file.extend(*part));
    file.extend([0; 4]);
}

/// None for a file that is no animation.
pub(super) fn survey(bytes: &[u8], limits: &ImageLimits) -> Result<Option<Survey>, ImageError> {
    let Some(parts) = parts(bytes, limits)? else { return Ok(None) };
    let pixels = |part: &Part| part.control.place.map_or(0, |place| place.width as u64 * place.height as u64);
    let frames =
        parts.frames.iter().map(|part| Timed { duration: part.control.duration, pixels: pixels(part) });
    Ok(Some(Survey { width: parts.width, height: parts.height, frames: frames.collect() }))
}

pub(super) struct Png<'a> {
    bytes: &'a [u8],
    limits: ImageLimits,
    parts: Parts,
    next: usize,
    orientation: Orientation,
    /// Samples of a pixel: an index or grey, or three colours.
    bands: usize,
    palette: Option<[[u8; 3]; 256]>,
    canvas: Vec<u8>,
    /// Whether the first frame is drawn on a picture.
    on_default: bool,
    /// What was there before the last frame was drawn, where that comes back.
    before: Option<Vec<u8>>,
    last: Option<Control>,
}

impl<'a> Png<'a> {
    pub(super) fn open(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let parts = parts(bytes, limits)?.ok_or_else(|| broken(Format::Png, "it is no animation"))?;
        let (depth, kind) = (parts.rest[0], parts.rest[1]);
        if (depth, kind) == (16, 0) {
            return Err(unsupported(Format::Png, "an animation of grey with 16 bits"));
        }
        let bands = if matches!(kind, 0 | 3 | 4) { 1 } else { 3 };
        let (width, height) = (parts.width as usize, parts.height as usize);
        let orientation = still::orientation_before_pixels(bytes, limits)?;
        let canvas = buffer(Format::Png, width * height * bands)?;
        let limits = *limits;
        let (palette, before, last) = (None, None, None);
        let mut png = Self {
            bytes,
            limits,
            parts,
            next: 0,
            orientation,
            bands,
            palette,
            canvas,
            on_default: false,
            before,
            last,
        };
        if let Some(default) = png.parts.default.take() {
            let place = Some(Place { left: 0, top: 0, width, height });
            png.draw(&Part { control: Control { place, ..Control::default() }, data: default.data })?;
            png.on_default = true;
            png.last = None;
        }
        Ok(png)
    }

    fn draw(&mut self, part: &Part) -> Result<(), ImageError> {
        let Control { place, dispose, blend: operation, .. } = part.control;
        let place = place.ok_or_else(|| broken(Format::Png, "a frame without a place"))?;
        let (samples, mask) = self.pixels(part, place)?;
        self.before = (dispose == PREVIOUS).then(|| self.canvas.clone());
        let (width, bands) = (self.parts.width as usize, self.bands);
        // The first picture of all lies on nothing.
        let over = operation == OVER && (self.next > 0 || self.on_default);
        let mut pixels = samples.chunks_exact(bands).enumerate();
        for row in place.rows(width, bands) {
            for to in self.canvas[row].chunks_exact_mut(bands) {
                let Some((i, pixel)) = pixels.next() else { continue };
                match mask.as_ref().filter(|_| over).map(|mask| mask[i]) {
                    Some(alpha) => {
                        to.iter_mut().zip(pixel).for_each(|(to, from)| *to = blend(alpha, *to, *from))
                    }
                    None => to.copy_from_slice(pixel),
                }
            }
        }
        self.last = Some(part.control);
        Ok(())
    }

    /// The samples of a picture and, where it is not opaque, the alpha of each pixel.
    fn pixels(&mut self, part: &Part, place: Place) -> Result<(Vec<u8>, Option<Vec<u8>>), ImageError> {
        let failed = |error| broken(Format::Png, error);
        let (depth, kind) = (self.parts.rest[0], self.parts.rest[1]);
        let mut file = SIGNATURE.to_vec();
        let (width, height) = ((place.width as u32).to_be_bytes(), (place.height as u32).to_be_bytes());
        put(&mut file, b"IHDR", &[&width, &height, &self.parts.rest]);
        file.extend(&self.parts.colours);
        for &(from, to) in &part.data {
            put(&mut file, b"IDAT", &[&self.bytes[from..to]]);
        }
        put(&mut file, b"IEND", &[]);
        let mut options = DecodeOptions::default();
        options.set_ignore_crc(true);
        let mut decoder = Decoder::new_with_options(Cursor::new(&file), options);
        decoder.set_limits(Limits { bytes: memory_limit(&self.limits) });
        let indexed = kind == 3;
        decoder.set_transformations(if indexed {
            Transformations::IDENTITY
        } else {
            Transformations::EXPAND
        });
        let mut reader = decoder.read_info().map_err(failed)?;
        let size = reader.output_buffer_size().ok_or_else(|| broken(Format::Png, "its size overflows"))?;
        let mut samples = buffer(Format::Png, size)?;
        let output = reader.next_frame(&mut samples).map_err(failed)?;
        samples.truncate(output.buffer_size());
        if indexed {
            let info = reader.info();
            let defined =
                info.palette.as_deref().ok_or_else(|| broken(Format::Png, "its palette is missing"))?;
            self.palette = Some(colour::palette(defined.as_chunks::<3>().0.iter().copied()));
            let indices = unpacked(&samples, place.width, depth);
            let mask = info.trns.as_deref().map(|alpha| {
                indices.iter().map(|&index| alpha.get(usize::from(index)).copied().unwrap_or(255)).collect()
            });
            return Ok((indices, mask));
        }
        let step = if output.bit_depth == BitDepth::Sixteen { 2 } else { 1 };
        let channels = output.color_type.samples();
        let channel = |pixel: &[u8], i: usize| pixel[i * step];
        let pixels = || samples.chunks_exact(channels * step);
        let colours = pixels()
            .flat_map(|pixel| (0..self.bands).map(|i| channel(pixel, i)).collect::<Vec<_>>())
            .collect();
        // Of grey with one transparent value Pillow takes every pixel.
        let alpha = matches!(output.color_type, ColorType::Rgba | ColorType::GrayscaleAlpha) && kind != 0;
        let mask = alpha.then(|| pixels().map(|pixel| channel(pixel, channels - 1)).collect());
        Ok((colours, mask))
    }
}

/// Indices of fewer than 8 bits, a byte each.
fn unpacked(samples: &[u8], width: usize, depth: u8) -> Vec<u8> {
    if depth == 8 {
        return samples.to_vec();
    }
    let depth = usize::from(depth);
    let (per_byte, mask) = (8 / depth, ((1u16 << depth) - 1) as u8);
    let line = width.div_ceil(per_byte).max(1);
    let index = |line: &[u8], x: usize| line[x / per_byte] >> (8 - depth - x % per_byte * depth) & mask;
    samples
        .chunks_exact(line)
        .flat_map(|line| (0..width).map(|x| index(line, x)).collect::<Vec<_>>())
        .collect()
}

impl Animation for Png<'_> {
    fn advance(&mut self) -> Result<(), ImageError> {
        if self.next >= self.parts.frames.len() {
            return Err(broken(Format::Png, "a frame is missing"));
        }
        if let Some(Control { place: Some(place), dispose, .. }) = self.last {
            let (width, bands) = (self.parts.width as usize, self.bands);
            // What was before the first picture of all is nothing.
            let before = self.before.take().filter(|_| self.next > 1 || self.on_default);
            match (dispose, before) {
                (PREVIOUS, Some(before)) => {
                    place
                        .rows(width, bands)
                        .for_each(|row| self.canvas[row.clone()].copy_from_slice(&before[row]));
                }
                (PREVIOUS | BACKGROUND, _) => {
                    place.rows(width, bands).for_each(|row| self.canvas[row].fill(0))
                }
                _ => {}
            }
        }
        let part = std::mem::take(&mut self.parts.frames[self.next]);
        self.draw(&part)?;
        self.next += 1;
        Ok(())
    }

    fn shown(&self) -> Result<(u32, u32, Vec<u8>), ImageError> {
        let mut rgb = buffer(Format::Png, self.parts.width as usize * self.parts.height as usize * 3)?;
        let pixels = rgb.as_chunks_mut::<3>().0.iter_mut();
        match (&self.palette, self.bands) {
            (Some(palette), _) => {
                pixels.zip(&self.canvas).for_each(|(to, index)| *to = palette[usize::from(*index)])
            }
            (None, 1) => pixels.zip(&self.canvas).for_each(|(to, grey)| *to = [*grey; 3]),
            (None, _) => rgb.copy_from_slice(&self.canvas),
        }
        Ok((self.parts.width, self.parts.height, rgb))
    }

    fn orientation(&self) -> Orientation {
        self.orientation
    }
}
