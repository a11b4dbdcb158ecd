//! Frames of a WebP, as libwebp's anim_decode.c composes them.

use super::{Animation, Place, Survey, Timed};
use crate::image::decode::metadata::orientation;
use crate::image::decode::webp::{chunk, frame_file, open, samples};
use crate::image::decode::{broken, buffer};
use crate::image::orientation::Orientation;
use crate::image::{Format, ImageError, ImageLimits};

/// A frame by the header of its chunk.
#[derive(Clone, Copy)]
struct FrameHead {
    /// Where its chunk's content begins and ends in the file.
    from: usize,
    to: usize,
    place: Place,
    duration: u32,
    /// Whether it is laid over what is there, instead of in its place.
    blend: bool,
    /// Whether its place becomes transparent after it.
    dispose: bool,
}

/// None for a file that is no animation.
pub(super) fn survey(bytes: &[u8], limits: &ImageLimits) -> Result<Option<Survey>, ImageError> {
    let decoder = open(bytes, limits)?;
    if !decoder.is_animated() {
        return Ok(None);
    }
    let (width, height) = decoder.dimensions();
    let timed = |frame: &FrameHead| Timed {
        duration: f64::from(frame.duration),
        pixels: frame.place.width as u64 * frame.place.height as u64,
    };
    let frames = heads(bytes, width as usize, height as usize, limits)?.iter().map(timed).collect();
    Ok(Some(Survey { width, height, frames }))
}

fn heads(
    bytes: &[u8],
    width: usize,
    height: usize,
    limits: &ImageLimits,
) -> Result<Vec<FrameHead>, ImageError> {
    let three = |field: &[u8]| field.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
    let (mut heads, mut at) = (Vec::new(), 12);
    // One more than allowed is enough to know.
    while heads.len() <= limits.max_frames as usize {
        let Some((name, body)) = chunk(bytes, at) else { break };
        if name == b"ANMF" {
            let head = body.get(..16).ok_or_else(|| broken(Format::WebP, "the data ends too early"))?;
            let place = Place {
                left: three(&head[..3]) * 2,
                top: three(&head[3..6]) * 2,
                width: three(&head[6..9]) + 1,
                height: three(&head[9..12]) + 1,
            };
            if place.left + place.width > width || place.top + place.height > height {
                return Err(broken(Format::WebP, "a frame reaches over the canvas"));
            }
            heads.push(FrameHead {
                from: at + 8,
                to: at + 8 + body.len(),
                place,
                duration: three(&head[12..15]) as u32,
                blend: head[15] & 2 == 0,
                dispose: head[15] & 1 != 0,
            });
        }
        at += 8 + body.len() + body.len() % 2;
    }
    Ok(heads)
}

pub(super) struct WebP<'a> {
    bytes: &'a [u8],
    limits: ImageLimits,
    width: usize,
    height: usize,
    orientation: Orientation,
    frames: std::vec::IntoIter<FrameHead>,
    /// `RGBA`.
    canvas: Vec<u8>,
    /// The last frame, and whether it did not need those before it.
    last: Option<(FrameHead, bool)>,
}

impl<'a> WebP<'a> {
    pub(super) fn open(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let mut decoder = open(bytes, limits)?;
        let (width, height) = decoder.dimensions();
        let (width, height) = (width as usize, height as usize);
        let exif = decoder.exif_metadata().ok().flatten();
        let xmp = decoder.xmp_metadata().ok().flatten();
        Ok(Self {
            bytes,
            limits: *limits,
            width,
            height,
            orientation: orientation(exif.as_deref(), xmp.as_deref()),
            frames: heads(bytes, width, height, limits)?.into_iter(),
            canvas: buffer(Format::WebP, width * height * 4)?,
            last: None,
        })
    }

    fn is_whole(&self, place: Place) -> bool {
        (place.width, place.height) == (self.width, self.height)
    }
}

impl Animation for WebP<'_> {
    fn advance(&mut self) -> Result<(), ImageError> {
        let frame = self.frames.next().ok_or_else(|| broken(Format::WebP, "a frame is missing"))?;
        let place = frame.place;
        let file = frame_file(&self.bytes[frame.from..frame.to])?;
        let mut decoder = open(&file, &self.limits)?;
        if decoder.dimensions() != (place.width as u32, place.height as u32) {
            return Err(broken(Format::WebP, "a frame has another size than it says"));
        }
        let has_alpha = decoder.has_alpha();
        let pixels = samples(&mut decoder)?;
        // A frame that needs nothing of those before begins on an empty canvas.
        let key = match self.last {
            None => true,
            Some(_) if (!has_alpha || !frame.blend) && self.is_whole(place) => true,
            Some((last, key)) => last.dispose && (self.is_whole(last.place) || key),
        };
        let mut cleared = None;
        if key {
            self.canvas.fill(0);
        } else if let Some((last, _)) = self.last.filter(|(last, _)| last.dispose) {
            last.place.rows(self.width, 4).for_each(|row| self.canvas[row].fill(0));
            cleared = Some(last.place);
        }
        let size = if has_alpha { 4 } else { 3 };
        let lines = pixels.chunks_exact(place.width * size).zip(place.rows(self.width, 4)).enumerate();
        for (y, (line, row)) in lines {
            let canvas = self.canvas[row].as_chunks_mut::<4>().0;
            for (x, (to, pixel)) in canvas.iter_mut().zip(line.chunks_exact(size)).enumerate() {
                let above = [pixel[0], pixel[1], pixel[2], if has_alpha { pixel[3] } else { 255 }];
                // Where the last frame was cleared away, there is nothing to be laid over, not even transparently.
                let bare = cleared.is_some_and(|cleared| cleared.has(place.left + x, place.top + y));
                *to = if key || bare || !frame.blend { above } else { over(above, *to) };
            }
        }
        self.last = Some((frame, key));
        Ok(())
    }

    fn shown(&self) -> Result<(u32, u32, Vec<u8>), ImageError> {
        let mut rgb = buffer(Format::WebP, self.width * self.height * 3)?;
        for (to, [r, g, b, _]) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(self.canvas.as_chunks::<4>().0) {
            *to = [*r, *g, *b];
        }
        Ok((self.width as u32, self.height as u32, rgb))
    }

    fn orientation(&self) -> Orientation {
        self.orientation
    }
}

/// `BlendPixelNonPremult` of anim_decode.c.
fn over(above: [u8; 4], below: [u8; 4]) -> [u8; 4] {
    let alpha = u32::from(above[3]);
    match alpha {
        0 => return below,
        255 => return above,
        _ => {}
    }
    let factor = (u32::from(below[3]) * (256 - alpha)) >> 8;
    let blended = alpha + factor;
    let scale = (1u32 << 24) / blended;
    let channel = |i: usize| {
        let sum = u32::from(above[i]) * alpha + u32::from(below[i]) * factor;
        ((u64::from(sum) * u64::from(scale)) >> 24) as u8
    };
    [channel(0), channel(1), channel(2), blended as u8]
}
