//! Frames of a GIF (Pillow's GifImagePlugin.py). The first one has indices; from the second on the canvas has colours.
//!
//! Alpha that Pillow keeps beside the colours decides nothing about them, and is left out here.

use std::borrow::Cow;

use gif::Decoder;

use super::{Animation, Place, Survey, Timed};
use crate::image::decode::gif::{failed, open, palette, with_palette};
use crate::image::decode::metadata::orientation;
use crate::image::decode::{broken, buffer, colour};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError, ImageLimits};

/// What a frame asks for that comes after it: its place as the background, or as it was before.
const BACKGROUND: u8 = 2;
const PREVIOUS: u8 = 3;

/// Frames up to the first whose header is damaged, which is their end in Pillow, too.
pub(super) fn survey(bytes: &[u8], limits: &ImageLimits) -> Result<Survey, ImageError> {
    let bytes = with_palette(bytes);
    let mut decoder = open(&*bytes, limits, true)?;
    let (mut width, mut height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    let mut frames = Vec::new();
    while frames.len() <= limits.max_frames as usize {
        let frame = match decoder.next_frame_info() {
            Ok(Some(frame)) => frame,
            Err(error) if frames.is_empty() => return Err(failed(error)),
            Ok(None) | Err(_) => break,
        };
        width = width.max(u32::from(frame.left) + u32::from(frame.width));
        height = height.max(u32::from(frame.top) + u32::from(frame.height));
        frames.push(Timed {
            duration: f64::from(frame.delay) * 10.0,
            pixels: u64::from(frame.width) * u64::from(frame.height),
        });
    }
    Ok(Survey { width, height, frames })
}

pub(super) struct Gif<'a> {
    // Owned where the file had to be given a palette.
    decoder: Decoder<std::io::Cursor<Cow<'a, [u8]>>>,
    canvas: Canvas,
    width: usize,
    height: usize,
    /// Frames that were drawn.
    drawn: usize,
    /// What each frame asks for.
    asked: Vec<u8>,
    /// A frame that asks for nothing gets what the one before asked for.
    disposal: u8,
    /// What goes where the last frame was before the next one is drawn.
    dispose: Option<(Place, Fill)>,
    /// The transparent index of the first frame, as long as the canvas has indices.
    transparent: Option<u8>,
    background: u8,
}

enum Canvas {
    /// Indices, their colours, and whether the next frame turns it into colours.
    Indices {
        pixels: Vec<u8>,
        colours: Box<[[u8; 3]; 256]>,
        coloured: bool,
    },
    Colours(Vec<u8>),
}

/// Pixels of a rectangle, as the canvas has them.
enum Fill {
    Index(u8),
    Colour([u8; 3]),
    Pixels(Vec<u8>),
}

/// What each frame's control blocks ask for after it, as far as the file is whole: 0 for nothing. The library does not tell
/// a frame without one from a frame that is to stay.
fn disposals(bytes: &[u8]) -> Vec<u8> {
    let table = |flags: u8| if flags & 0x80 != 0 { 3usize << ((flags & 7) + 1) } else { 0 };
    let mut disposals = Vec::new();
    let (mut asked, mut at) = (0, 13 + bytes.get(10).copied().map_or(0, table));
    loop {
        match bytes.get(at) {
            Some(0x21) => {
                if let (Some(0xf9), Some(1..), Some(flags)) =
                    (bytes.get(at + 1), bytes.get(at + 2), bytes.get(at + 3))
                {
                    let bits = flags >> 2 & 7;
                    asked = if bits == 0 { asked } else { bits };
                }
                at += 2;
            }
            Some(0x2c) => {
                disposals.push(std::mem::take(&mut asked));
                // Nine bytes of a header, a palette, and the size of the first code.
                at += 11 + bytes.get(at + 9).copied().map_or(0, table);
            }
            Some(0x3b) | None => return disposals,
            // As Pillow does, what is no block is passed over.
            Some(_) => {
                at += 1;
                continue;
            }
        }
        while let Some(&length) = bytes.get(at) {
            at += 1 + usize::from(length);
            if length == 0 {
                break;
            }
        }
    }
}

/// A palette that is none to Pillow: each colour is its own number.
fn is_needed(palette: &[u8]) -> bool {
    palette.as_chunks::<3>().0.iter().enumerate().any(|(index, colour)| *colour != [index as u8; 3])
}

impl<'a> Gif<'a> {
    pub(super) fn open(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let background = if bytes.get(10).is_some_and(|flags| flags & 0x80 != 0) { bytes[11] } else { 0 };
        let decoder = open(std::io::Cursor::new(with_palette(bytes)), limits, false)?;
        let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
        let canvas =
            Canvas::Indices { pixels: Vec::new(), colours: Box::new(colour::grey_ramp()), coloured: false };
        Ok(Self {
            decoder,
            canvas,
            width,
            height,
            drawn: 0,
            asked: disposals(bytes),
            disposal: 0,
            dispose: None,
            transparent: None,
            background,
        })
    }

    /// Makes the canvas larger where a frame reaches over it; `fill` is what is new.
    fn grow(&mut self, width: usize, height: usize, fill: [u8; 3]) -> Result<(), ImageError> {
        let (old, size) = ((self.width, self.height), self.canvas.size());
        (self.width, self.height) = (width.max(self.width), height.max(self.height));
        let pixels = self.canvas.pixels();
        if (self.width, self.height) == old && pixels.len() == self.width * self.height * size {
            return Ok(());
        }
        let mut larger = buffer(Format::Gif, self.width * self.height * size)?;
        if size == 3 {
            larger.as_chunks_mut::<3>().0.fill(fill);
        }
        if old.0 > 0 {
            for (from, to) in
                pixels.chunks_exact(old.0 * size).zip(larger.chunks_exact_mut(self.width * size))
            {
                to[..from.len()].copy_from_slice(from);
            }
        }
        *pixels = larger;
        Ok(())
    }

    /// Puts in place what the last frame left to be done.
    fn put(&mut self) {
        let Some((place, fill)) = self.dispose.take() else { return };
        let (width, size) = (self.width, self.canvas.size());
        let pixels = self.canvas.pixels();
        for (y, row) in place.rows(width, size).enumerate() {
            let Some(row) = pixels.get_mut(row) else { continue };
            match &fill {
                Fill::Index(index) => row.fill(*index),
                Fill::Colour(colour) => row.as_chunks_mut::<3>().0.fill(*colour),
                Fill::Pixels(before) => {
                    let length = row.len();
                    row.copy_from_slice(&before[y * length..][..length]);
                }
            }
        }
    }

    /// What is in a place now; black beyond the canvas.
    fn copy(&mut self, place: Place) -> Result<Fill, ImageError> {
        let (size, width, height) = (self.canvas.size(), self.width, self.height);
        let mut copy = buffer(Format::Gif, place.width * place.height * size)?;
        let pixels = self.canvas.pixels();
        let inside = place.width.min(width.saturating_sub(place.left));
        for y in 0..place.height.min(height.saturating_sub(place.top)) {
            let from = ((place.top + y) * width + place.left) * size;
            copy[y * place.width * size..][..inside * size].copy_from_slice(&pixels[from..][..inside * size]);
        }
        Ok(Fill::Pixels(copy))
    }
}

impl Canvas {
    fn pixels(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Indices { pixels, .. } | Self::Colours(pixels) => pixels,
        }
    }

    /// Bytes of a pixel.
    fn size(&self) -> usize {
        match self {
            Self::Indices { .. } => 1,
            Self::Colours(_) => 3,
        }
    }
}

fn colours_of(pixels: &[u8], colours: &[[u8; 3]; 256]) -> Result<Vec<u8>, ImageError> {
    let mut rgb = buffer(Format::Gif, pixels.len() * 3)?;
    for (to, index) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        *to = colours[usize::from(*index)];
    }
    Ok(rgb)
}

impl Animation for Gif<'_> {
    fn advance(&mut self) -> Result<(), ImageError> {
        let frame = self.decoder.next_frame_info().map_err(failed)?;
        let frame = frame.ok_or_else(|| broken(Format::Gif, "there is no picture in it"))?;
        let place = Place {
            left: usize::from(frame.left),
            top: usize::from(frame.top),
            width: usize::from(frame.width),
            height: usize::from(frame.height),
        };
        let (transparent, local) = (frame.transparent, frame.palette.clone());
        let asked = self.asked.get(self.drawn).copied().unwrap_or(0);
        let defined = local.or_else(|| self.decoder.global_palette().map(<[u8]>::to_vec));
        let defined = defined.filter(|palette| is_needed(palette));
        let colours = palette(defined.as_deref());
        self.put();
        if let Canvas::Indices { pixels, colours, coloured: true } = &self.canvas {
            self.canvas = Canvas::Colours(colours_of(pixels, colours)?);
            self.transparent = None;
        }
        if asked != 0 {
            self.disposal = asked;
        }
        let first = self.drawn == 0;
        let fill = |index: u8, in_colours: bool| match in_colours {
            true if defined.as_ref().is_some_and(|palette| usize::from(index) * 3 + 3 > palette.len()) => {
                Fill::Colour(colours[0])
            }
            true => Fill::Colour(colours[usize::from(index)]),
            false => Fill::Index(index),
        };
        let in_colours = matches!(self.canvas, Canvas::Colours(_));
        let dispose = match self.disposal {
            BACKGROUND => {
                let index = self.transparent.or(transparent).unwrap_or(self.background);
                Some(fill(index, in_colours))
            }
            PREVIOUS.. if first => transparent.map(|index| fill(index, in_colours)),
            PREVIOUS.. => Some(self.copy(place)?),
            _ => None,
        };
        self.dispose = dispose.map(|fill| (place, fill));
        let new = if transparent.is_some() { [0; 3] } else { colours[0] };
        self.grow(place.left + place.width, place.top + place.height, new)?;
        if first {
            self.transparent = transparent;
            self.canvas.pixels().fill(transparent.unwrap_or(0));
        }
        let mut indices = buffer(Format::Gif, place.width * place.height)?;
        if !indices.is_empty() {
            self.decoder.read_into_buffer(&mut indices).map_err(failed)?;
        }
        let width = self.width;
        let lines = indices.chunks_exact(place.width.max(1));
        match &mut self.canvas {
            Canvas::Indices { pixels, colours: own, coloured } => {
                if first {
                    **own = colours;
                }
                *coloured = defined.is_some();
                let kept = transparent.filter(|_| !first);
                for (line, row) in lines.zip(place.rows(width, 1)) {
                    for (to, &index) in
                        pixels[row].iter_mut().zip(line).filter(|(_, index)| Some(**index) != kept)
                    {
                        *to = index;
                    }
                }
            }
            Canvas::Colours(pixels) => {
                for (line, row) in lines.zip(place.rows(width, 3)) {
                    let row = pixels[row].as_chunks_mut::<3>().0;
                    for (to, &index) in
                        row.iter_mut().zip(line).filter(|(_, index)| Some(**index) != transparent)
                    {
                        *to = colours[usize::from(index)];
                    }
                }
            }
        }
        self.drawn += 1;
        Ok(())
    }

    fn shown(&self) -> Result<(u32, u32, Vec<u8>), ImageError> {
        let rgb = match &self.canvas {
            Canvas::Indices { pixels, colours, .. } => colours_of(pixels, colours)?,
            Canvas::Colours(pixels) => {
                let mut rgb = buffer(Format::Gif, pixels.len())?;
                rgb.copy_from_slice(pixels);
                rgb
            }
        };
        Ok((self.width as u32, self.height as u32, rgb))
    }

    fn orientation(&self) -> Orientation {
        orientation(None, self.decoder.xmp_metadata())
    }
}
